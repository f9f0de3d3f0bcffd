"""`oss-eval report`: a run as one HTML file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from oss_eval.cli.options import add_out
from oss_eval.cli.parser import RUN_HELP


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A run, and the file to write."""
    parser.description = "Write a run's tables and figures into one HTML file that needs no other file."
    parser.add_argument("RUN", help=RUN_HELP)
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), metavar="FILE", help="default report.html"
    )
    add_out(parser)
    parser.add_argument("--lang", choices=["en", "zh"], default="en", help="language")


def run(arguments: argparse.Namespace) -> int:
    """Write the file."""
    from oss_eval.results.reader import find_run
    from oss_eval.viewer.html_report import write

    write(find_run(arguments.RUN, arguments.out), arguments.output, arguments.lang)
    sys.stderr.write(f"written to {arguments.output}\n")
    return 0
