"""Entry point: runs the command, prints errors and returns the exit code."""

from __future__ import annotations

import signal
import sys

from oss_eval.cli.parser import command, parse
from oss_eval.errors import OssEvalError
from oss_eval.system.signals import clear_unhandled_flag, reraise_lost_interrupts
from oss_eval.system.terminal import open_output, output_failure, print_error

INTERRUPTED = 130
RUNS = ("perf", "bench", "effort", "resume", "calibrate")
"""Their exit codes say what became of the run, whatever becomes of the output."""


def _run(argv: list[str] | None) -> int:
    """Run the command and print its error."""
    try:
        arguments = parse(argv)
        code = command(arguments.command).run(arguments)
        sys.stdout.flush()
        failure = output_failure()
        if failure is None:
            return code
        print_error(f"the output could not be written: {failure.strerror}", "nothing else was lost")
        return code if arguments.command in RUNS else code or 1
    except OssEvalError as error:
        print_error(error.message, error.hint)
        return error.exit_code
    except KeyboardInterrupt:
        print_error("interrupted")
        return INTERRUPTED


def main(argv: list[str] | None = None) -> int:
    """Run a command line. Exit codes: 0 done, 1 measured and failed, 2 usage error, 3 a condition is undecided,
    130 interrupted."""
    # SIGTERM, as a job manager sends it, keeps finished work just as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    reraise_lost_interrupts()
    open_output()
    try:
        return _run(argv)
    finally:
        if argv is None:  # only the exit is left, which another Ctrl-C would only break
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            clear_unhandled_flag()
