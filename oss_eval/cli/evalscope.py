"""`oss-eval evalscope`: EvalScope's own command line, its requests sent through the probe."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None: EvalScope parses its own."""


def run(arguments: argparse.Namespace) -> int:
    """Run EvalScope's command."""
    from evalscope.cli.cli import run_cmd

    from oss_eval.plugin import take_over

    take_over()
    sys.argv = ["evalscope", *arguments.arguments]
    run_cmd()
    return 0
