"""`oss-eval resume`: a stored run that ended too early."""

from __future__ import annotations

import argparse

from oss_eval.cli.options import EndpointSettings, RunSettings, add_flags, task_settings
from oss_eval.cli.parser import RUN_HELP
from oss_eval.config.fields import ENDPOINT, LIMITS, RESULTS
from oss_eval.config.perf_task import PerfTask
from oss_eval.errors import UsageError

DESCRIPTION = (
    "Resume a run after Ctrl-C, kill -9, a crash, a full disk or a server that went away. A load sweep measures "
    "its unfinished points again, each as a whole; a benchmark asks the samples it lacks. Finished work is kept. "
    "Settings that are not given are those of the stored run, whatever default is shown below."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A run, and the settings that may differ from its own."""
    parser.description, parser.argument_default = DESCRIPTION, argparse.SUPPRESS
    parser.add_argument("RUN", help=RUN_HELP)
    parser.add_argument(
        "--missing", action="store_true", default=False,
        help="load sweeps: of an unfinished point only the requests that it lacks, with the same prompts, instead "
        "of the whole point with new ones",
    )  # fmt: skip
    add_flags(
        parser, PerfTask, EndpointSettings, RunSettings,
        only=(ENDPOINT, LIMITS, RESULTS, "extra_args"), without=("name", "label"),
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Resume the run and print it."""
    from oss_eval.bench import remaining as bench_remaining
    from oss_eval.bench import run as bench
    from oss_eval.cli.output import finish
    from oss_eval.cli.shared import run_options
    from oss_eval.perf import remaining as perf_remaining
    from oss_eval.perf import sweep
    from oss_eval.results.manifest import read_manifest
    from oss_eval.results.mirror import results_folder
    from oss_eval.results.reader import find_run

    given = vars(arguments)
    stored = find_run(arguments.RUN, results_folder(given.get("out", RunSettings().out)))
    manifest = read_manifest(stored)
    profile = (manifest.get("endpoint") or {}).get("name")
    if profile and "url" not in given:
        given.setdefault("endpoint", profile)  # its key and its prices are in no file of the run
    options, named = run_options(arguments)
    settings = {**named, **task_settings(PerfTask, arguments)}
    if manifest.get("kind") != "bench":
        task = perf_remaining.sweep(stored, settings)
        return finish(sweep.run(task, options, resumed=stored, missing=arguments.missing), arguments)
    if arguments.missing:
        raise UsageError("--missing is for load sweeps", "a benchmark always asks only the samples that it lacks")
    return finish(bench.run(bench_remaining.plans(manifest, settings), options, stored), arguments)
