"""Diagnosis of a server with a few requests."""
