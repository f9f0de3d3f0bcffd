"""EvalScope's own run_task, its requests sent and timed by oss-eval's probe."""

import sys

from evalscope import TaskConfig, run_task

import oss_eval.plugin  # registers the evaluation type "oss_eval"

url, data = sys.argv[1:3]  # a server, and a local copy of AIME 2025
config = TaskConfig(
    eval_type="oss_eval",
    model="m",
    api_url=url,
    datasets=["aime25"],
    dataset_args={"aime25": {"local_path": data}},
)
report = run_task(config)["aime25"]
print(f"{oss_eval.plugin.__name__}: {report.dataset_name} {report.score:.3f}")
