"""The viewer over 1,000,000 requests in 50 runs: how long until the first page, and how long each view takes.

    python benchmarks/viewer.py [--requests 1000000] [--runs 50] [--events 64] [--browser /usr/bin/chromium]

Runs are made up (random durations in the stored schema, marked simulated) in a temporary folder. Views are timed in
a real browser, from the click to the page drawn.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from playwright.sync_api import Page, sync_playwright

from oss_eval.analysis import perf_summary as stored
from oss_eval.results.schema import REQUESTS, SCHEMA_VERSION
from oss_eval.results.writer import write_summary

LEVELS = (16, 64, 256, 1024)


def make_run(folder: Path, number: int, requests: int, events: int) -> None:
    """One load sweep of four concurrencies, 1% of its requests failed."""
    rng = np.random.default_rng(number)
    run_id = f"20261122-{number // 60:02d}{number % 60:02d}00-perf-made-up-{number:04x}"
    path = folder / run_id
    (path / "requests").mkdir(parents=True)
    points, tables, begin = [], [], 1_795_000_000_000_000_000
    for index, parallel in enumerate(LEVELS):
        n = requests // len(LEVELS)
        point_id = f"{index:02d}-c{parallel}"
        points.append({"point_id": point_id, "index": index, "parallel": parallel, "number": n, "workers": 1})
        ttft = rng.lognormal(np.log(0.08 + parallel / 2000), 0.3, n) * 1e9
        gaps = rng.lognormal(np.log(0.008 + parallel / 40000), 0.25, (n, events)) * 1e9
        offsets = (ttft[:, None] + np.cumsum(gaps, axis=1)).astype(np.int64)
        latency = offsets[:, -1]
        start = begin + (np.arange(n) * latency.mean() / parallel).astype(np.int64)
        begin = int(start[-1] + latency.max() + 1e9)
        bad = rng.random(n) < 0.01
        lists = pa.ListArray.from_arrays(
            pa.array(np.arange(n + 1, dtype=np.int32) * events), pa.array(offsets.ravel())
        )
        columns = {
            "run_id": [run_id] * n,
            "point_id": [point_id] * n,
            "request_id": [f"{point_id}/{i}" for i in range(n)],
            "worker": [0] * n,
            "warmup": [False] * n,
            "attempt": [1] * n,
            "model": ["made-up"] * n,
            "parallel": [parallel] * n,
            "start_ns": start,
            "headers_ns": start + (ttft * 0.9).astype(np.int64),
            "first_token_ns": start + offsets[:, 0],
            "first_answer_ns": start + offsets[:, events // 3],
            "last_token_ns": start + latency,
            "end_ns": start + latency,
            "event_ns": lists,
            "prompt_tokens": [512] * n,
            "completion_tokens": [events] * n,
            "n_events": [events] * n,
            "n_shared": [0] * n,
            "token_source": ["usage"] * n,
            "status": ["error" if b else "ok" for b in bad],
            "error_kind": [("http_5xx" if b else None) for b in bad],
            "clock_source": ["kernel"] * n,
            "client_lag_p50_ns": rng.integers(1e4, 1e6, n),
            "client_lag_max_ns": rng.integers(1e6, 1e7, n),
        }
        tables.append(
            pa.table(
                {
                    f.name: pa.array(columns[f.name], f.type)
                    if f.name in columns and f.name != "event_ns"
                    else columns.get(f.name, pa.nulls(n, f.type))
                    for f in REQUESTS
                },
                schema=REQUESTS,
            )
        )
    pq.write_table(
        pa.concat_tables(tables).unify_dictionaries(),
        path / "requests" / "part-000000.parquet",
        compression="zstd",
        row_group_size=16384,
    )
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id,
        "status": "finished",
        "kind": "perf",
        "model": "made-up",
        "name": f"made-up {number}",
        "labels": {},
        "created": f"2026-11-22T{number // 60:02d}:{number % 60:02d}:00+00:00",
        "task": {"name": "sweep"},
        "points": points,
        "endpoint": {
            "url": "http://127.0.0.1:1/v1",
            "api": "chat",
            "simulated": True,
            "simulator": "none, made up",
        },
        "environment": {},
        "checks": {},
        "run_checks": [],
        "workload": "made up",
    }
    (path / "manifest.json").write_text(json.dumps(manifest))
    write_summary(path, stored.summary_rows(stored.load_run(path)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--events", type=int, default=64)
    parser.add_argument("--browser", default="/usr/bin/chromium")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "results"
        for number in range(given.runs):
            make_run(folder, number, given.requests // given.runs, given.events)
        size = sum(file.stat().st_size for file in folder.rglob("*.parquet"))
        print(
            f"{given.requests:,} requests, {given.requests * given.events:,} token events, {given.runs} runs, {size / 1e6:.0f} MB"
        )
        measure(folder, given.browser)


def measure(folder: Path, browser: str) -> None:
    """Start `oss-eval view` as a user would, and look at every page."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=browser, args=["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
        )
        begun = time.perf_counter()
        command = [sys.executable, "-m", "oss_eval", "view", str(folder), "--port", "7993"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None
                process.stderr.readline()
                up = time.perf_counter()
                urllib.request.urlopen("http://127.0.0.1:7993/").read()
                print(
                    f"from Enter to the first page answered: {time.perf_counter() - begun:.2f} s "
                    f"(server up after {up - begun:.2f} s)"
                )
                look(chromium.new_page(viewport={"width": 1400, "height": 1000}), folder, up)
            finally:
                process.terminate()


def look(page: Page, folder: Path, up: float) -> None:
    """Every page, from the moment a link is followed to the moment it is drawn."""
    page.goto("http://127.0.0.1:7993/")
    page.wait_for_selector("#content-runs table[data-name=runs] tbody tr")
    print(f"first view, all runs, in a fresh browser: {time.perf_counter() - up:.2f} s after the server was up")
    visit = "(to) => window.ossEvalPage.visit(to)"
    keys = [path.name for path in sorted(folder.iterdir())]
    shown = "[data-name={}] .js-plotly-plot"
    views = (
        ("one load sweep", f"?show=perf&runs={keys[3]}", "#content-perf .js-plotly-plot"),
        ("the same, P99 and a limit", f"?show=perf&runs={keys[3]}&stat=p99&ttft=500", shown.format("goodput")),
        ("four sweeps together", f"?show=perf&runs={','.join(keys[4:8])}", "#content-perf .js-plotly-plot"),
        ("requests of the busiest point", f"?show=requests&runs={keys[3]}", shown.format("client-lag")),
        ("comparison of two", f"?show=compare&runs={keys[1]},{keys[2]}", "#content-compare .js-plotly-plot"),
        ("about a run", f"?show=about&runs={keys[3]}", "#content-about table"),
        ("all runs, searched", "?show=runs&q=made-up", "#content-runs tbody tr"),
    )
    for name, address, ready in views:
        took = []
        for _ in range(3):
            page.evaluate(visit, "?show=runs&state=warned")  # a page that shows something else
            page.wait_for_function("location.search.includes('state=warned')")
            page.wait_for_timeout(500)
            at = time.perf_counter()
            page.evaluate(visit, address)
            page.wait_for_selector(ready, timeout=10_000)
            took.append(time.perf_counter() - at)
        print(f"{name}: {took[0]:.2f} s, again {took[1]:.2f} and {took[2]:.2f} s")


if __name__ == "__main__":
    main()
