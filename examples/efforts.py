"""Reasoning effort against score: what each effort costs in tokens, with pandas."""

import sys

import oss_eval

url = sys.argv[1] if len(sys.argv) > 1 else "sim://gpt-oss-20b-h20?speed=40"
run = oss_eval.run_bench("demo", url=url, reasoning_effort=["low", "medium", "high"], repeats=2)
samples = run.to_pandas()
efforts = samples.groupby("reasoning_effort", observed=True)
table = efforts.agg(score=("score", "mean"), tokens=("completion_tokens", "mean"), seconds=("latency_ms", "mean"))
table["seconds"] /= 1000
print(table.sort_values("tokens").round(3))
