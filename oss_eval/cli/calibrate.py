"""`oss-eval calibrate`: how far this machine's numbers can be trusted."""

from __future__ import annotations

import argparse

from oss_eval.cli.options import add_out
from oss_eval.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The load, and where the run is stored."""
    parser.description = (
        "Measure a server that logs when it really writes each token, and compare. Takes about 1.5 minutes."
    )
    parser.add_argument(
        "--parallel", nargs="+", type=int, metavar="N", default=[1, 64, 256, 1024],
        help="streams (default 1 64 256 1024)",
    )  # fmt: skip
    parser.add_argument(
        "--token-rate", type=float, metavar="R", default=66.0, help="tokens/s of a stream (default 66)"
    )
    add_out(parser)
    parser.add_argument("--name", help="name of the run")
    parser.add_argument("--label", action="append", metavar="KEY=VALUE", help="stored with the run")
    parser.add_argument("--json", action="store_true", help="print one JSON document on standard output")


def run(arguments: argparse.Namespace) -> int:
    """Calibrate and print the comparison."""
    from oss_eval.cli.output import EXIT_CODES, print_result
    from oss_eval.cli.shared import labels
    from oss_eval.diagnose.calibrate import calibrate
    from oss_eval.run.options import RunOptions
    from oss_eval.system.terminal import print_error

    if min(arguments.parallel) < 1:
        raise UsageError(f"--parallel {min(arguments.parallel)}: must be at least 1")
    if not 0 < arguments.token_rate <= 1000:
        raise UsageError(f"--token-rate {arguments.token_rate:g}: must be above 0 and at most 1000")
    options = RunOptions(out=arguments.out, name=arguments.name, labels=labels(tuple(arguments.label or ())))
    result = calibrate(tuple(arguments.parallel), arguments.token_rate, options)
    print_result(result, arguments)
    if result.status == "interrupted":
        print_error("interrupted", "a calibration can't be resumed: run oss-eval calibrate again")
    return EXIT_CODES[result.status]
