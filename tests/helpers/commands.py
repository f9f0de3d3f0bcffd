"""The command line as a process: start it, wait for it, look at the run it leaves."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oss_eval.analysis.fsck import BAD, examine

ROOT = Path(__file__).parent.parent.parent
Command = Callable[..., subprocess.CompletedProcess[str]]


def worker_of(process: subprocess.Popen[Any]) -> int:
    """The process id of a run's only worker; the test is skipped, and the run ended, where it can't be told."""
    pids = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not pids.exists():
        process.kill()
        pytest.skip("this system does not list child processes")
    [worker] = [p for p in pids.read_text().split() if b"load.worker" in Path(f"/proc/{p}/cmdline").read_bytes()]
    return int(worker)


@contextlib.contextmanager
def launched(folder: Path, *words: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """The command under way, as a user would have started it; it is ended with the block, if it has not."""
    process = subprocess.Popen(
        [sys.executable, "-m", "oss_eval", *words],
        cwd=folder,
        env={**os.environ, "COLUMNS": "160", "PYTHONPATH": str(ROOT), **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs of a shell ignore it
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def bad(run: Path) -> list[str]:
    """What fsck finds wrong with a run."""
    return [f"{finding.where}: {finding.message}" for finding in examine(run) if finding.level == BAD]


def ended(process: subprocess.Popen[str], timeout: float = 30) -> tuple[int, str, str]:
    """(exit code, output, errors) of a command that comes to its end."""
    out, err = process.communicate(timeout=timeout)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait for something that has to come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.02)


def only_run(folder: Path) -> Path:
    """The folder of the one run that there is."""
    [found] = (folder / "results").iterdir()
    return found
