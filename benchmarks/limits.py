"""Memory and long replies, measured on whole commands. Linux only; about five minutes.

    python benchmarks/limits.py

1. Peak resident memory, summed over the client's processes, of runs of 1, 2 and 4 million token events (1,024
   streams at 66 tokens/s, client on the first core): it has to stay under 500 MB and flat.
2. A reply of 20,000 tokens among 31 short streams: how long the worker's own work ever held up its loop
   (`longest flush`, CPU time), how late the loop ever was (`longest stall`, which includes waiting for the core),
   and the errors of all streams against the server's own clock.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from side_by_side import pinned, timed

from oss_eval.results.manifest import read_manifest
from oss_eval.results.reader import read_requests
from oss_eval.simulator.truth_log import read_truth
from oss_eval.system.environment import environment

PERF = [sys.executable, "-m", "oss_eval", "perf", "--extra-args", '{"ignore_eos": true}', "--workers", "1"]


def server(folder: Path, url: str, core: int) -> tuple[subprocess.Popen[bytes], str]:
    """A truth server on its own core, and its base URL."""
    code = (
        "import sys; from pathlib import Path; from oss_eval.simulator.process import parse_sim_url, serve\n"
        "serve(parse_sim_url(sys.argv[1]), Path(sys.argv[2]), '127.0.0.1', 0, lambda port: print(port, flush=True))"
    )
    command = [sys.executable, "-c", code, url, str(folder / "truth.jsonl")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=pinned(core))
    assert process.stdout is not None
    return process, f"http://127.0.0.1:{int(process.stdout.readline())}/v1"


def memory() -> None:
    for requests in (2048, 4096, 8192):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            process, url = server(folder, "sim://paced", 1)
            words = ["--url", url, "--parallel", "1024", "--number", str(requests), "--max-tokens", "512"]
            cost = timed([*PERF, *words, "--prompt", "Count.", "--out", str(folder / "out")], folder / "log")
            process.send_signal(signal.SIGTERM)
            process.wait()
            [run] = (folder / "out").iterdir()
            events = read_requests(run, columns=["n_events"])["n_events"].to_numpy().sum()
            print(f"{events:>9,} token events in {requests} requests: peak {cost.peak_mb:.0f} MB", flush=True)


def long_reply() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = [
            {"messages": [{"role": "user", "content": f"Count {n}."}], "max_tokens": 512} for n in range(1500)
        ]
        lines[0]["max_tokens"] = 20_000
        data = folder / "lines.jsonl"
        data.write_text("".join(json.dumps(line) + "\n" for line in lines))
        process, url = server(folder, "sim://paced?rate=1000", 1)
        words = ["--url", url, "--parallel", "32", "--number", "1000", "--dataset", "line_by_line"]
        timed([*PERF, *words, "--dataset-path", str(data), "--out", str(folder / "out")], folder / "log")
        process.send_signal(signal.SIGTERM)
        process.wait()
        [run] = (folder / "out").iterdir()
        [client] = read_manifest(run)["client"].values()
        truth = read_truth(folder / "truth.jsonl")
        errors = []
        longest = 0
        for row in read_requests(run, "00-c32").to_pylist():
            true = truth[f"{run.name}/{row['request_id']}"]
            longest = max(longest, len(true.token_ns))
            errors.append((row["last_token_ns"] - row["start_ns"]) - (true.token_ns[-1] - true.received_ns))
        print(
            f"a reply of {longest:,} tokens among 31 streams of 1,000 tokens/s: longest flush "
            f"{client['longest_flush_seconds'] * 1e3:.2f} ms, longest stall {client['longest_stall_seconds'] * 1e3:.1f} ms; "
            f"error of {len(errors)} latencies: p50 {np.percentile(errors, 50) / 1e6:.3f} ms, "
            f"p99 {np.percentile(errors, 99) / 1e6:.3f} ms, largest {max(errors) / 1e6:.3f} ms"
        )


if __name__ == "__main__":
    host = environment()
    print(f"{host['cpu']}, {host['cores']} cores, {time.strftime('%Y-%m-%d')}")
    memory()
    long_reply()
