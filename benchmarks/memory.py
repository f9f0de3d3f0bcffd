"""What a run of eight hours at 50,000 tokens a second would take in memory, from measured slopes. About six minutes.

    python benchmarks/memory.py

1. While the run goes on: resident memory of all of the client's processes over four minutes at 760 streams of
   66 tokens/s; the slope against token events, by least squares after the first 75 s (parts are joined every 60 s).
2. When the figures are computed: peak of the process that loads stored runs of 0.1, 0.4 and 1.6 million requests; the
   slope against requests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from oss_eval.results.reader import iter_requests  # noqa: E402
from oss_eval.results.writer import RunWriter  # noqa: E402
from oss_eval.simulator.process import running  # noqa: E402
from oss_eval.system.environment import environment  # noqa: E402

HOURS, RATE, TOKENS = 8, 50_000, 512
STREAMS = 760

LOAD = (
    "import resource, sys; from pathlib import Path; from oss_eval.analysis.perf_summary import load_run; "
    "report = load_run(Path(sys.argv[1])); "
    "print(int(report.points[0].metrics.get('requests')), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
)


def rss_mb(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except (OSError, IndexError):
        return 0.0


def under_load(folder: Path) -> tuple[float, float, float]:
    """(MB at the end, MB per million token events, tokens/s) while a sweep goes on."""
    number = STREAMS * 32
    with running("sim://paced") as url:
        command = [sys.executable, "-m", "oss_eval", "perf", "--url", url, "--parallel", str(STREAMS), "--number"]
        command += [
            str(number),
            "--max-tokens",
            str(TOKENS),
            "--extra-args",
            '{"ignore_eos": true}',
            "--prompt",
            "x",
        ]
        begun, seen = time.monotonic(), []
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
            while process.poll() is None:
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                seen.append((time.monotonic() - begun, sum(map(rss_mb, [process.pid, *map(int, children)]))))
                time.sleep(0.5)
    [run] = folder.glob("results/*")
    starts, ends, events = [], [], 0
    for rows in iter_requests(run, columns=["start_ns", "end_ns", "n_events"]):
        starts += rows["start_ns"].to_pylist()
        ends += rows["end_ns"].to_pylist()
        events += sum(rows["n_events"].to_pylist())
    rate = events / ((max(ends) - min(starts)) / 1e9)
    span = (max(ends) - min(starts)) / 1e9
    at, mb = np.array([(t, mb) for t, mb in seen if 75 < t < span - 5]).T
    slope = float(np.polyfit(at, mb, 1)[0])
    return float(mb[-1]), slope / rate * 1e6, rate


def when_it_is_over(folder: Path) -> tuple[list[tuple[int, float]], float]:
    """((requests, peak MB) of loading stored runs, bytes per request)."""
    [source] = (folder / "results").iterdir()
    table = pa.concat_tables(iter_requests(source)).unify_dictionaries()
    table = table.filter(pa.compute.invert(table["warmup"])).slice(0, 10_000)
    short = table.set_column(  # 16 events a request: what is not in memory at a time need not be on this disk either
        table.schema.get_field_index("event_ns"), "event_ns",
        pa.array([row[:16] for row in table["event_ns"].to_pylist()], pa.list_(pa.int64())),
    )  # fmt: skip
    found = []
    for count in (100_000, 400_000, 1_600_000):
        writer = RunWriter(folder / "synthetic", f"r{count}", {"kind": "perf", "model": "m", "points": [
            {"point_id": "00-c760", "index": 0, "parallel": STREAMS, "number": count}]})  # fmt: skip
        for part in range(count // short.num_rows):
            pq.write_table(short, writer.path / "requests" / f"part-{part:06d}.parquet", row_group_size=16384)
        words = subprocess.run(
            [sys.executable, "-c", LOAD, str(writer.path)], capture_output=True, text=True, check=True
        )
        requests, peak = map(int, words.stdout.split())
        found.append((requests, peak * 1024 / 1e6))
        print(f"figures of {requests:>9,} requests: peak {found[-1][1]:.0f} MB", flush=True)
    counts, peaks = np.array(found).T
    return found, float(np.polyfit(counts, peaks, 1)[0]) * 1e6


def main() -> None:
    where = environment()
    print(f"{where['cpu']}, {where['cores']} cores, Linux {where['release']}, Python {where['python']}"
          if "release" in where else f"{where['cpu']}, {where['cores']} cores")  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="oss-eval-memory-") as name:
        folder = Path(name)
        now, slope, rate = under_load(folder)
        print(f"under {rate:,.0f} tokens/s: {now:.0f} MB, {slope:+.2f} MB per million token events", flush=True)
        found, per_request = when_it_is_over(folder)
    tokens = HOURS * 3600 * RATE
    requests = tokens // TOKENS
    base = found[0][1] - found[0][0] * per_request / 1e6
    print(f"{per_request:.0f} bytes a request when figures are computed")
    print(
        f"projected, {HOURS} hours at {RATE:,} tokens/s ({tokens / 1e9:.2f} billion token events, {requests / 1e6:.1f} "
        f"million requests of {TOKENS}): {now + max(0.0, slope) * tokens / 1e6:.0f} MB while it runs, "
        f"{base + per_request * requests / 1e6:.0f} MB at its end"
    )


if __name__ == "__main__":
    main()
