"""Standard output and error, whose reader may have gone."""

from __future__ import annotations

import os
import sys


def print_error(message: str, hint: str = "") -> None:
    """What went wrong and what to do about it, on standard error, if anybody still reads it."""
    try:
        sys.stderr.write(f"oss-eval: {message}\n" + (f"  → {hint}\n" if hint else ""))
        sys.stderr.flush()
    except BrokenPipeError:
        ignore_broken_pipe()


def ignore_broken_pipe() -> None:
    """What is left in the buffer of a pipe without a reader is for nobody, and would fail again at the exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
