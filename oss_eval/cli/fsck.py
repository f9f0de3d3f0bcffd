"""`oss-eval fsck`: whether a stored run is complete."""

from __future__ import annotations

import argparse
import sys

from oss_eval.cli.options import add_out
from oss_eval.cli.parser import RUN_HELP


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A run."""
    parser.description = (
        "Check a run's files, rows and counts, compute its summary again and print what differs. Changes nothing. "
        "Exit code 0: clean, 1: something is wrong."
    )
    parser.add_argument("RUN", help=RUN_HELP)
    add_out(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document on standard output")


def run(arguments: argparse.Namespace) -> int:
    """Check the run and print each problem."""
    from oss_eval.analysis import fsck
    from oss_eval.cli.output import print_json
    from oss_eval.results.reader import find_run

    path = find_run(arguments.RUN, arguments.out)
    problems = fsck.examine(path)
    document = fsck.as_json(path, problems)
    if arguments.json:
        print_json(document)
    else:
        for problem in problems:
            sys.stdout.write(f"{problem.level:<4}  {problem.where}: {problem.message}\n")
        sys.stdout.write(f"{path.name}: {'clean' if document['clean'] else 'not as it should be'}\n")
    return 0 if document["clean"] else 1
