"""Entry point: runs the command, prints errors and returns the exit code."""

from __future__ import annotations

import signal
import sys

from oss_eval.cli.parser import command, parse
from oss_eval.errors import OssEvalError
from oss_eval.system.pipes import ignore_broken_pipe, print_error
from oss_eval.system.signals import clear_unhandled_flag, reraise_lost_interrupts

INTERRUPTED = 130


def _run(argv: list[str] | None) -> int:
    """Run the command and print its error. Raises BrokenPipeError."""
    try:
        arguments = parse(argv)
        code = command(arguments.command).run(arguments)
        sys.stdout.flush()
        return code
    except OssEvalError as error:
        print_error(error.message, error.hint)
        return error.exit_code
    except KeyboardInterrupt:
        print_error("interrupted")
        return INTERRUPTED


def main(argv: list[str] | None = None) -> int:
    """Run a command line. Exit codes: 0 done, 1 measured and failed, 2 usage error, 130 interrupted."""
    # SIGTERM, as a job manager sends it, keeps finished work just as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    reraise_lost_interrupts()
    try:
        return _run(argv)
    except BrokenPipeError:
        ignore_broken_pipe()  # `oss-eval show last | head`
        return 0
    finally:
        if argv is None:  # only the exit is left, which another Ctrl-C would only break
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            clear_unhandled_flag()
