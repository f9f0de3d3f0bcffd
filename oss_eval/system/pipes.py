"""Standard output and error when their reader has closed them."""

from __future__ import annotations

import os
import sys


def print_error(message: str, hint: str = "") -> None:
    """Print an error and its hint on standard error, if it is still open."""
    try:
        sys.stderr.write(f"oss-eval: {message}\n" + (f"  → {hint}\n" if hint else ""))
        sys.stderr.flush()
    except BrokenPipeError:
        ignore_broken_pipe()


def ignore_broken_pipe() -> None:
    """Discard buffered output of a closed pipe: writing it would fail again at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
