"""`oss-eval show`: the tables of a stored run."""

from __future__ import annotations

import argparse
import sys

from oss_eval.cli.options import add_out
from oss_eval.cli.parser import RUN_HELP


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A run, and how to show it."""
    parser.add_argument("RUN", help=RUN_HELP)
    add_out(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    parser.add_argument(
        "--roofline", action="store_true", help="load sweeps: each point's share of the bound of its speed"
    )
    parser.add_argument(
        "--gpu", metavar="GPU[xN]", help="with --roofline: the server's machine, see oss-eval models --gpus"
    )
    parser.add_argument("--grid", action="store_true", help="benchmarks: the grid of problems and epochs too")


def run(arguments: argparse.Namespace) -> int:
    """Print the run, and how to resume it if it can be."""
    from oss_eval.cli.output import print_run
    from oss_eval.models.machine import get_machine
    from oss_eval.results.manifest import read_manifest
    from oss_eval.results.reader import find_run, status_of
    from oss_eval.run.lifecycle import resume_hint

    if arguments.gpu is not None:
        get_machine(arguments.gpu)  # an unknown one is told
    path = find_run(arguments.RUN, arguments.out)
    print_run(path, arguments.json, arguments.grid, arguments.roofline or arguments.gpu is not None, arguments.gpu)
    manifest = read_manifest(path)
    if manifest["kind"] in ("perf", "bench") and status_of(path, manifest) in ("broken off", "interrupted"):
        sys.stderr.write(f"  → {resume_hint(path)}\n")
    return 0
