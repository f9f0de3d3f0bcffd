"""Child processes of this package: independent of the current folder and of signals."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def start(module: str, *words: str, **options: Any) -> subprocess.Popen[bytes]:
    """Run one of this package's modules in a process of its own; `options` are subprocess.Popen's.

    `-P` keeps a user's ./random.py from being imported; this very package is on the path, installed or not. Ctrl-C
    and SIGTERM are the starter's to handle, and never reach the process: a job manager sends them to every process
    of a job, and a terminal to every one of a command. It has to end by itself when its starter is gone.
    """
    path = [str(Path(__file__).parent.parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    masked = (signal.SIGINT, signal.SIGTERM)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, masked)  # child processes inherit it
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", module, *words],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
            process_group=0,
            **options,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def serving(
    module: str, settings: dict[str, Any], patience: float, **options: Any
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A module that reads its settings as one JSON line on standard input, answers with one line, and serves until
    standard input ends. Yields (process, its line); on exit it has `patience` seconds to end, or is killed."""
    process = start(module, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        process.stdin.flush()
        yield process, process.stdout.readline().decode("utf-8", "replace").strip()
    finally:
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
