"""The same load with one local worker, two local workers, and two workers on the nodes of a Ray cluster.

Accuracy against the simulator's own log, CPU per token of the workers and of the main process, false alarms of the
check for slow nodes. Then a benchmark here and on the two nodes: CPU per sample of the command's own process, whose
nodes do the rest. Needs `ray` (the dev extra).

    python benchmarks/ray_workers.py [--streams 64 256] [--turns 2]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from oss_eval.results.reader import read_requests
from oss_eval.simulator.truth_log import read_truth

TOKENS = 256


def measured(streams: int, *words: str) -> str:
    """Run a sweep; a line of its figures."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "oss_eval", "perf", "--url", "sim://paced?rate=66&ttft=100", "--parallel", str(streams),
            "--number", str(2 * streams), "--max-tokens", str(TOKENS), "--out", folder, *words,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return done.stderr[-300:]
        [run] = Path(folder).iterdir()
        rows = [row for row in read_requests(run).to_pylist() if not row["warmup"] and row["status"] == "ok"]
        truth = read_truth(run / "truth.jsonl")
        manifest = json.loads((run / "manifest.json").read_text())
        client = next(iter(manifest["client"].values()))
        found = [*manifest["run_checks"], *(check for checks in manifest["checks"].values() for check in checks)]
        slow = sum(check["kind"] == "slow_node" for check in found)
        pairs = [(row, truth[f"{row['run_id']}/{row['request_id']}"]) for row in rows]
        ours = np.array([row["first_token_ns"] - row["start_ns"] for row, _ in pairs]) / 1e6
        true = np.array([t.token_ns[0] - t.received_ns for _, t in pairs]) / 1e6
        tokens = sum(row["completion_tokens"] for row in rows)
        parts = [
            f"p{q} {np.percentile(ours, q):9.3f} true {np.percentile(true, q):9.3f} "
            f"({np.percentile(ours, q) / np.percentile(true, q) - 1:+.2%})"
            for q in (50, 99)
        ]
        cpu = client["cpu_seconds"] / tokens * 1e6, client["main_cpu_seconds"] / tokens * 1e6
        return f"TTFT ms {' '.join(parts)}  CPU us a token: workers {cpu[0]:.1f}, main process {cpu[1]:.1f}  slow nodes named: {slow}"


OWN_CPU = """
import resource, sys
from oss_eval.cli.main import main
code = main(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_SELF)
open(sys.argv[1], "w").write(str(used.ru_utime + used.ru_stime))
sys.exit(code)
"""


def benchmark(repeats: int, *words: str) -> float:
    """CPU seconds of the command's own process for the demonstration's 34 problems, so many times."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-c", OWN_CPU, f"{folder}/cpu", "bench", "demo", "--url", "sim://gpt-oss-20b-h20?speed=50",
            "--reasoning-effort", "low", "--parallel", "32", "--repeats", str(repeats), "--out", f"{folder}/results",
            *words,
        ]  # fmt: skip
        subprocess.run(command, capture_output=True, check=True)
        return float(Path(folder, "cpu").read_text())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--turns", type=int, default=2)
    arguments = parser.parse_args()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    try:
        for streams in arguments.streams:
            for _ in range(arguments.turns):
                for name, words in (
                    ("1 local worker", ("--workers", "1")),
                    ("2 local workers", ("--workers", "2")),
                    ("2 Ray actors", ("--workers", "ray:2", "--ray-address", cluster.address)),
                ):
                    print(f"{streams:4d} streams, {name:16s} {measured(streams, *words)}", flush=True)
        for _ in range(arguments.turns):
            for name, words in (
                ("here", ()),
                ("on 2 nodes", ("--workers", "ray:2", "--ray-address", cluster.address)),
            ):
                few, many = benchmark(2, *words), benchmark(42, *words)
                each = (many - few) / (40 * 34)
                print(f"bench demo {name:10s} CPU of the command: {each * 1e3:.2f} ms a sample", flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
