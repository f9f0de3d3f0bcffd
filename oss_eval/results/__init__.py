"""Parquet parts: schema, writer, reader, lock."""
