"""`oss-eval view`: stored runs in a browser. Reads Parquet and manifests; sends no request and starts no run."""
