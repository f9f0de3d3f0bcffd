"""How long until something happens: `oss-eval --help`, the table of a stored run, the first request of `oss-eval perf`.

    python benchmarks/startup.py [RUNS]

Prints the median of RUNS whole commands (default 7). The first request is the first POST that a local server
receives, counted from the moment the command was started.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.helpers.scripted_server import MODELS, SSE_HEAD, STOP, ScriptedServer, chunk, delta, usage

EXAMPLES = Path(__file__).parent.parent / "results/examples"
GOOD = SSE_HEAD + chunk(delta("Hi") + STOP + usage(5, 1)) + b"0\r\n\r\n"


def main(runs: int) -> None:
    """Measure and print."""
    command = [sys.executable, "-m", "oss_eval"]
    stored = str(next(EXAMPLES.glob("*-perf-*")))
    took: dict[str, list[float]] = {"oss-eval --help": [], "show: a stored sweep": []}
    for _ in range(runs):
        for words, times in zip((["--help"], ["show", stored]), took.values(), strict=True):
            begun = time.perf_counter()
            subprocess.run([*command, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
            times.append(time.perf_counter() - begun)
    firsts = took["perf: first request"] = []
    for _ in range(runs):
        posted: list[float] = []

        def script(number: int, request: bytes, posted: list[float] = posted) -> list[bytes]:
            if request.startswith(b"GET"):
                return [MODELS]
            posted.append(time.perf_counter())
            return [GOOD]

        with ScriptedServer(script) as server, tempfile.TemporaryDirectory() as out:
            words = ["perf", "--url", server.url, "--parallel", "1", "--number", "3", "--out", out]
            begun = time.perf_counter()
            subprocess.run([*command, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
            firsts.append(posted[0] - begun)
    for name, values in took.items():
        print(
            f"{name:22s} median {statistics.median(values):.3f} s  (min {min(values):.3f}, max {max(values):.3f})"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
