"""How long a command takes to end: after the first Ctrl-C with nothing left to wait for, and after the second one.

    python benchmarks/stopping.py

A sweep of 256 streams and a benchmark, ten times each, in the middle of their work; from the signal to the end of the
process, everything written.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
COMMANDS = {
    "perf, 256 streams": "perf --url sim://paced?rate=20 --parallel 256 --number 100000 --max-tokens 40 --prompt x",
    "bench, 32 in flight": "bench demo --url sim://gpt-oss-20b-h20 --parallel 32 --repeats 100",
}


def stopped(words: str, signals: int, folder: Path) -> float:
    """Seconds from the last of so many Ctrl-Cs to the end of the process."""
    grace = "60" if signals > 1 else "0"
    command = [sys.executable, "-m", "oss_eval", *words.split(), "--grace", grace]
    process = subprocess.Popen(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    before = time.monotonic()
    while time.monotonic() - before < 60 and not list(folder.glob("results/*/requests/part-000001.parquet")):
        time.sleep(0.05)
    for left in reversed(range(signals)):
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        time.sleep(0.5 if left else 0)
    process.wait(60)
    assert process.returncode == 130
    return time.monotonic() - begun


def main() -> None:
    for name, words in COMMANDS.items():
        for signals in (1, 2):
            took = []
            for _ in range(10):
                with tempfile.TemporaryDirectory(prefix="oss-eval-stop-") as folder:
                    took.append(stopped(words, signals, Path(folder)))
            which = "the first, --grace 0, table shown" if signals == 1 else "the second, --grace 60"
            print(f"{name}: {which}: median {np.median(took):.2f} s, longest {max(took):.2f} s", flush=True)


if __name__ == "__main__":
    main()
