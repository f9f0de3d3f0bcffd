"""`oss-eval view`: stored runs in a browser. Reads Parquet and manifests; asks nobody and runs nothing."""
