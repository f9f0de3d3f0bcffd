"""A load sweep from Python: P99 TTFT at each concurrency, with its 95% interval."""

import sys

import oss_eval

url = sys.argv[1] if len(sys.argv) > 1 else "sim://gpt-oss-20b-h20?speed=40"
run = oss_eval.run_perf(url=url, parallel=[1, 8, 32], number=[20, 120, 200], max_tokens=64)
summary = run.summary()
for row in summary[(summary.metric == "ttft_ms") & (summary.stat == "p99")].itertuples():
    interval = f"95% {row.ci_low:.1f} to {row.ci_high:.1f} ms"
    print(f"concurrency {row.parallel}: P99 TTFT {row.value:.1f} ms, {interval}, n={row.n}")
