"""Open loops and conversations on one core: when requests start against when they should, by the client and the server.

The client is held to one core, the simulator to another one; a trace may use both. Prints, for each load, the planned and the achieved rate,
and the delay of starts; "received" is by the server's own log. `--trace FILE` adds a replayed trace.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from oss_eval.simulator.truth_log import read_truth

CLIENT, SERVER = {0}, {1}


def measured(
    folder: Path, cores: tuple[set[int], set[int]], profile: str, *flags: str
) -> tuple[dict[str, dict[str, float]], pd.DataFrame, Path]:
    """(the metrics, the rows, the server's log) of a point."""
    truth = folder / "truth.jsonl"
    server = subprocess.Popen(
        [sys.executable, "-m", "oss_eval", "simulate", "--profile", profile, "--port", "8931", "--truth-log", truth],
        stderr=subprocess.PIPE, preexec_fn=lambda: os.sched_setaffinity(0, cores[1]),
    )  # fmt: skip
    assert server.stderr is not None
    try:
        server.stderr.readline()
        server.stderr.readline()
        done = subprocess.run(
            [sys.executable, "-m", "oss_eval", "perf", "--url", "http://127.0.0.1:8931/v1", "--json", "--out", folder,
             "--seed", "1", *flags],
            capture_output=True, text=True, check=True, preexec_fn=lambda: os.sched_setaffinity(0, cores[0]),
        )  # fmt: skip
    finally:
        server.terminate()
        server.wait()
    document = json.loads(done.stdout)
    rows = pd.read_parquet(Path(document["path"]) / "requests", dtype_backend="pyarrow").query("not warmup")
    return document["points"][0]["metrics"], rows, truth


def received_delays(rows: pd.DataFrame, truth: Path) -> np.ndarray:
    """ms from a planned start to the server's receipt."""
    known = read_truth(truth)
    planned = rows[rows.scheduled_ns.notna()]
    names = planned.run_id.astype(str) + "/" + planned.request_id
    received = np.array([known[name].received_ns for name in names])
    return (received - planned.scheduled_ns.to_numpy(dtype=np.int64)) / 1e6


def main() -> None:
    """Print one line a load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", type=Path, help="Azure's code trace, replayed at 60 times its speed")
    options = parser.parse_args()
    short = ("--prompt", "Hi", "--max-tokens", "8")
    talks = ("--turns", "3-6", "--min-prompt-length", "50", "--max-prompt-length", "100", "--max-tokens", "8")
    cases = {
        "poisson 200/s": ("instant", "--rate", "200", "--number", "10000", *short),
        "poisson 1,000/s": ("instant", "--rate", "1000", "--number", "10000", *short),
        "gamma:2 200/s": ("instant", "--rate", "200", "--arrival", "gamma:2", "--number", "10000", *short),
        "constant 200/s": ("instant", "--rate", "200", "--arrival", "constant", "--number", "10000", *short),
        "conversations": ("instant", "--parallel", "200", "--think-time", "0.5-1.5", "--duration", "40s", *talks),
    }
    if options.trace is not None:
        cases["trace, 60 times"] = (
            "instant", "--trace", str(options.trace), "--time-scale", "60", "--max-tokens", "8"
        )  # fmt: skip
    print(f"{'load':18}{'requests':>9}{'planned/s':>10}{'achieved/s':>11}{'delay p50':>11}{'p99':>8}{'max':>8}"
          f"{'received p99':>14}{'max ms':>8}")  # fmt: skip
    for name, (profile, *flags) in cases.items():
        both = CLIENT | SERVER
        cores = (both, both) if "--trace" in flags else (CLIENT, SERVER)
        with tempfile.TemporaryDirectory() as folder:
            metrics, rows, truth = measured(Path(folder), cores, profile, *flags)
            delay, received = metrics["dispatch_delay_ms"], received_delays(rows, truth)
            print(
                f"{name:18}{len(rows):9,}{metrics['planned_rate']['value']:10.2f}"
                f"{metrics['achieved_rate']['value']:11.2f}{delay['p50']:11.3f}{delay['p99']:8.3f}{delay['max']:8.2f}"
                f"{np.percentile(received, 99):14.3f}{received.max():8.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
