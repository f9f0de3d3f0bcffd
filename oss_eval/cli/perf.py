"""`oss-eval perf`: a load sweep."""

from __future__ import annotations

import argparse

from oss_eval.cli.options import EndpointSettings, RunSettings, add_assert, add_flags, task_settings
from oss_eval.config.perf_task import PerfTask

EPILOG = """examples:
  oss-eval perf --parallel 1 10 50 100                          the server on this machine, else the simulator
  oss-eval perf --url http://gpu1:8000/v1 --parallel 1 64 256   a server
  oss-eval perf --url sim://gpt-oss-20b-h20                     the simulator
  oss-eval perf stress --url http://gpu1:8000                   a task file, see `oss-eval tasks`
  oss-eval perf --parallel 16 --reasoning-effort low medium high
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A task, and flags that override its settings."""
    parser.description = "Measure TTFT, TPOT, latency and throughput at one or several concurrencies."
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.argument_default = argparse.SUPPRESS  # only what is typed may override the task file
    parser.add_argument(
        "task", nargs="?", metavar="TASK",
        help="a task by name or a YAML file (default: sweep); flags override it",
    )  # fmt: skip
    add_flags(parser, PerfTask, EndpointSettings, RunSettings)
    parser.add_argument(
        "--roofline", action="store_true",
        help="print each point's share of the bound that the GPU's bandwidth and arithmetic set",
    )  # fmt: skip
    add_assert(parser, "'ttft_p99<2s' 'success>99%%'")


def run(arguments: argparse.Namespace) -> int:
    """Run the sweep and print it."""
    from oss_eval.cli.output import assertions, finish
    from oss_eval.cli.shared import run_options
    from oss_eval.config.task import validated
    from oss_eval.config.task_files import DEFAULT, overridden
    from oss_eval.perf import sweep

    conditions = assertions(arguments)
    options, named = run_options(arguments)
    values = overridden(vars(arguments).get("task", DEFAULT), {**named, **task_settings(PerfTask, arguments)})
    result = sweep.run(validated(PerfTask, values, "oss-eval perf"), options)
    return finish(result, arguments, conditions)
