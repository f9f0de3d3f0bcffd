"""SQL over the Parquet files of a stored run: the slowest requests, and where their time went."""

import sys

import duckdb

folder = sys.argv[1]  # a run folder, such as results/20260101-120000-perf-gpt-oss-20b-ab12
print(
    duckdb.sql(f"""
    SELECT request_id, parallel, completion_tokens AS tokens,
           round((first_token_ns - start_ns) / 1e6, 1) AS ttft_ms,
           round((last_token_ns - start_ns) / 1e6, 1) AS latency_ms
    FROM '{folder}/requests/part-*.parquet'
    WHERE status = 'ok' AND NOT warmup
    ORDER BY last_token_ns - start_ns DESC LIMIT 5
""")
)
