"""`oss-eval bench`: benchmarks."""

from __future__ import annotations

import argparse

from oss_eval.cli.options import EndpointSettings, RunSettings, add_assert, add_flags, task_settings
from oss_eval.config.bench_task import BenchTask
from oss_eval.errors import UsageError

EPILOG = """examples:
  oss-eval bench demo --url sim://gpt-oss-20b-h20 --reasoning-effort low medium high    no GPU, no network
  oss-eval bench aime25 --url http://gpu1:8000/v1                                       the task file's settings
  oss-eval bench aime25 gsm8k --repeats 8 --parallel 64 --limit 10 --data ./data
  oss-eval bench mine.yaml                                                              your own questions
  oss-eval bench mmlu_pro --limit 20                                                    any of EvalScope's
  oss-eval resume last                                                                  what is still missing
"""
APIS = ("openai", "chat", "responses", "ollama")
"""Those that take messages."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Tasks, and flags that override their settings."""
    parser.description = (
        "Ask the questions of benchmarks, score the answers, and report the scores with intervals."
    )
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.argument_default = argparse.SUPPRESS
    parser.add_argument(
        "tasks", nargs="*", metavar="TASK",
        help="tasks by name, YAML files, or any of EvalScope's benchmarks; flags override them",
    )  # fmt: skip
    add_flags(parser, BenchTask, EndpointSettings, RunSettings, choices={"api": APIS})
    add_assert(parser, "'score>=0.9'")
    parser.add_argument("--grid", action="store_true", help="print the grid of problems and epochs")
    parser.add_argument(
        "--resume", metavar="RUN",
        help="resume a stored run: ask what it lacks, or more (--repeats, --limit, --reasoning-effort)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Run the benchmarks and print the scores."""
    from oss_eval.bench import remaining
    from oss_eval.bench import run as bench
    from oss_eval.bench.select import plans
    from oss_eval.cli.output import assertions, finish
    from oss_eval.cli.shared import run_options
    from oss_eval.results.manifest import read_manifest
    from oss_eval.results.reader import find_run

    conditions = assertions(arguments)
    options, named = run_options(arguments)
    settings = {**named, **task_settings(BenchTask, arguments)}
    tasks, resumed = vars(arguments).get("tasks", []), vars(arguments).get("resume")
    if resumed is None:
        return finish(bench.run(plans(tasks, settings), options), arguments, conditions)
    if tasks:
        raise UsageError("--resume takes the tasks of the stored run", "leave the task names out")
    stored = find_run(resumed, options.out)
    result = bench.run(remaining.plans(read_manifest(stored), settings), options, stored)
    return finish(result, arguments, conditions)
