"""The instrument doubting itself: calibration, worker processes, findings, limits."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from oss_eval.diagnose.calibrate import compare, verdicts
from oss_eval.results.manifest import read_manifest
from oss_eval.results.reader import read_requests
from tests.helpers.commands import ROOT, Command, launched, until, worker_of
from tests.helpers.scripted_server import (
    DONE,
    GOOD,
    LAST_CHUNK,
    SSE_HEAD,
    STOP,
    ScriptedServer,
    answering,
    chunk,
    delta,
)

pytestmark = pytest.mark.alone


def test_calibrate(oss_eval: Command, tmp_path: Path) -> None:
    done = oss_eval("calibrate", "--parallel", "2", "32", "--token-rate", "200", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    cores = {1, len(__import__("os").sched_getaffinity(0))}
    levels = {(c["workers"], c["parallel"]) for c in document["calibration"]}
    assert levels == {(w, p) for w in cores for p in (2, 32) if w == 1 or p >= w}
    for level in document["calibration"]:
        assert level["missing"] == 0
        assert level["cpu_us_per_token"] > 0
        for metric in ("ttft", "tpot", "itl", "latency"):
            for q in ("p50", "p90"):
                pair = level["ms"][metric][q]
                assert pair["reported"] == pytest.approx(pair["true"], rel=0.01), (level["parallel"], metric, q)
        assert level["ms"]["ttft"]["p50"]["true"] == pytest.approx(100, rel=0.1)
        assert level["ms"]["tpot"]["p50"]["true"] == pytest.approx(5, rel=0.1)
    assert "Verdict" in done.stderr
    assert "1 worker: trust up to 32 streams" in done.stderr
    run = tmp_path / document["path"]
    assert read_manifest(run)["kind"] == "calibrate"
    summary = pd.read_parquet(run / "summary.parquet")
    assert {"ttft_ms", "true_ttft_ms", "cpu_us_per_token"} <= set(summary.metric)
    shown = oss_eval("show", "last")
    assert shown.stdout == done.stderr[done.stderr.index("Calibration on") : done.stderr.index("stored in")]


def test_a_wrong_report_would_be_noticed(oss_eval: Command, tmp_path: Path) -> None:
    """Move all true times by 3%: the comparison has to say so."""
    done = oss_eval("calibrate", "--parallel", "4", "--token-rate", "400", "--json")
    run = tmp_path / json.loads(done.stdout)["path"]
    truth = run / "truth.jsonl"
    lines = [json.loads(line) for line in truth.read_text().splitlines()]
    for line in lines:
        first = line["received_ns"]
        line["token_ns"] = [first + round((t - first) * 0.97) for t in line["token_ns"]]
    truth.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for found in compare(run):
        assert 0.025 < found.worst < 0.5
        assert "not to be trusted" in verdicts([found])[0]


@pytest.mark.parametrize(
    ("words", "cause"), [(["--parallel", "0"], "--parallel 0"), (["--token-rate", "0"], "--token-rate 0")]
)
def test_calibrate_explains_mistakes(oss_eval: Command, words: list[str], cause: str) -> None:
    done = oss_eval("calibrate", *words)
    assert done.returncode == 2
    assert cause in done.stderr


def bodies_by_tag(server: ScriptedServer) -> dict[bytes, bytes]:
    found = {}
    for request in server.requests:
        head, _, body = request.partition(b"\r\n\r\n")
        if b"/00-c7/" in head:
            found[head.partition(b"/00-c7/")[2].split(b"\r\n")[0]] = body
    return found


def test_requests_do_not_depend_on_the_number_of_workers(oss_eval: Command, tmp_path: Path) -> None:
    sent = []
    for workers in ("1", "3"):
        with ScriptedServer(answering(0.01, GOOD)) as server:
            done = oss_eval("perf", "--url", server.url, "--parallel", "7", "--number", "50", "--seed", "4",
                            "--workers", workers, "--out", workers)  # fmt: skip
            assert done.returncode == 0, done.stderr
            sent.append(bodies_by_tag(server))
        [run] = (tmp_path / workers).iterdir()
        rows = read_requests(run, "00-c7").to_pylist()
        assert {row["worker"] for row in rows} == set(range(int(workers)))
        assert sorted(row["request_id"] for row in rows) == sorted(f"00-c7/{n}" for n in range(50))
        assert read_manifest(run)["client"]["00-c7"]["connections"] == 7
    assert len(sent[0]) == 50
    assert sent[0] == sent[1]


def test_no_worker_idles_while_another_has_work(oss_eval: Command, tmp_path: Path) -> None:
    """One slot's first request takes 2 s: the other worker has to take over the whole budget meanwhile."""

    def script(number: int, request: bytes) -> list[object]:
        slow = b"/00-c2/0\r\n" in request
        return answering(*([2.0, GOOD] if slow else [0.02, GOOD]))(number, request)

    with ScriptedServer(script) as server:
        done = oss_eval("perf", "--url", server.url, "--parallel", "2", "--number", "40", "--prompt", "Hi",
                        "--workers", "2")  # fmt: skip
    assert done.returncode == 0, done.stderr
    [run] = (tmp_path / "results").iterdir()
    counts = pd.Series(read_requests(run, "00-c2")["worker"].to_pylist()).value_counts().to_dict()
    assert sorted(counts.values()) == [1, 39]


def test_points_are_barriers(oss_eval: Command, tmp_path: Path) -> None:
    with ScriptedServer(answering(0.05, GOOD)) as server:
        oss_eval(
            "perf",
            "--url",
            server.url,
            "--parallel",
            "4",
            "6",
            "--number",
            "20",
            "--prompt",
            "Hi",
            "--workers",
            "2",
        )
    [run] = (tmp_path / "results").iterdir()
    first, second = (read_requests(run, p).to_pandas() for p in ("00-c4", "01-c6"))
    assert first.end_ns.max() < second.start_ns.min()


def test_workers_must_make_sense(oss_eval: Command) -> None:
    for given in ("0", "some"):
        done = oss_eval("perf", "--workers", given)
        assert done.returncode == 2
        assert (
            f"--workers {given!r}" in done.stderr
            or f"--workers {given}" in done.stderr
            or "--workers" in done.stderr
        )


def test_a_busy_worker_reports_its_stall(tmp_path: Path) -> None:
    """A worker that is stopped for 0.4 s while its eight responses stream."""
    reply = [
        SSE_HEAD,
        *[step for _ in range(20) for step in (chunk(delta("a")), 0.1)],
        chunk(STOP + DONE),
        LAST_CHUNK,
    ]
    with ScriptedServer(answering(*reply)) as server:
        words = ["--parallel", "8", "--number", "8", "--prompt", "Hi", "--out", "out"]
        with launched(tmp_path, "perf", "--url", server.url, *words) as process:
            # The first request asks whether the server answers; the eight of the point follow.
            until(lambda: sum(request.startswith(b"POST") for request in server.requests) == 9)
            worker = worker_of(process)
            os.kill(worker, signal.SIGSTOP)
            time.sleep(0.4)
            os.kill(worker, signal.SIGCONT)
            out, _ = process.communicate(timeout=60)
    assert "a worker was blocked for" in out
    [run] = (tmp_path / "out").iterdir()
    checks = read_manifest(run)["checks"]["00-c8"]
    assert "stall" in [check["kind"] for check in checks]


def test_the_soft_limit_of_files_is_raised_and_a_hard_one_is_an_error(oss_eval: Command, tmp_path: Path) -> None:
    def limited(soft: int, hard: int) -> subprocess.CompletedProcess[str]:
        words = "perf --url sim://gpt-oss-20b-h20?speed=40 --parallel 300 --number 300 --max-tokens 4 --workers 1"
        command = [sys.executable, "-m", "oss_eval", *words.split(), "--out", str(tmp_path / "out")]
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=60,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)),
        )  # fmt: skip

    done = limited(128, 2048)
    assert done.returncode == 0, done.stderr
    assert "100%" in done.stdout
    done = limited(128, 256)
    assert done.returncode == 2
    assert (
        "300 connections a worker process are needed, and this system lets a process open 256 files" in done.stderr
    )
    assert "--workers 2" in done.stderr
    assert done.stderr.startswith("oss-eval: "), "known before the server is asked"
