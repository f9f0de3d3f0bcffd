"""Faulty servers: every fault is called what it is, others are undisturbed, and the run comes to its end."""

from __future__ import annotations

import gzip
import time
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from oss_eval import api
from oss_eval.analysis.fsck import examine
from oss_eval.results.manifest import read_manifest
from oss_eval.results.reader import read_requests, read_samples
from oss_eval.simulator.faults import FAULTS
from oss_eval.simulator.truth_log import read_truth
from tests.helpers.accounting import judge
from tests.helpers.faults_helpers import OF_REQUESTS, every
from tests.helpers.scripted_server import DONE, SSE_HEAD, STOP, ScriptedServer, answering, chunk, delta, saying

PATIENCE = {"first_token_timeout": 3, "read_timeout": 3, "total_timeout": 20}


def wrong(rows: list[dict[str, Any]], run: Path) -> list[str]:
    """What is wrong with a run's rows, by the server's own account."""
    truth = read_truth(run / "truth.jsonl")
    lines = [orjson.loads(line) for line in (run / "truth.jsonl").read_bytes().splitlines()]
    restarts = [line["received_ns"] for line in lines if line["request_id"] is None and line["fault"] == "restart"]
    found = []
    for row in rows:
        seen = truth.get(f"{run.name}/{row['request_id']}")
        text = judge(row, seen is not None, seen.fault if seen else None, restarts)
        found += [text] if text else []
    return found


def test_every_fault_of_a_request_at_once(tmp_path: Path) -> None:
    url = f"sim://paced?rate=300&ttft=30&fault={every(0.04, OF_REQUESTS)}"
    begun = time.monotonic()
    run = api.run_perf(url=url, parallel=24, number=500, max_tokens=40, out=tmp_path / "results", **PATIENCE)
    took = time.monotonic() - begun
    truth = read_truth(run.path / "truth.jsonl")
    rows = read_requests(run.path, "00-c24").to_pylist()
    assert len(rows) == 500
    assert not wrong(rows, run.path)
    met = Counter(seen.fault for name, seen in truth.items() if "/00-c24/" in name)
    assert set(met) == {None, *OF_REQUESTS}, "every one came up"
    kinds = Counter(row["error_kind"] for row in rows)
    assert sum(kinds.values()) == 500
    assert took < 60
    # The others: their times are the server's own, as if nothing else went on.
    errors = []
    for row in rows:
        seen = truth.get(f"{run.path.name}/{row['request_id']}")
        if seen is not None and seen.fault is None:
            errors.append(abs(row["first_token_ns"] - seen.token_ns[0]))
    assert len(errors) > 30
    assert sorted(errors)[len(errors) // 2] < 1e6
    manifest = read_manifest(run.path)
    assert manifest["status"] == "finished"
    assert not [finding for finding in examine(run.path) if finding.level == "bad"]


@pytest.mark.slow
def test_every_fault_in_a_benchmark(tmp_path: Path) -> None:
    names = [name for name in OF_REQUESTS if name not in ("huge", "trickle")]
    url = f"sim://gpt-oss-20b-h20?speed=20&fault={every(0.02, names)}"
    run = api.run_bench("demo", url=url, parallel=16, repeats=6, retries=12, out=tmp_path / "results", **PATIENCE)
    samples = read_samples(run.path).to_pylist()
    assert len(samples) == 34 * 6
    assert {row["status"] for row in samples} == {"ok"}, "what passes is asked again until it has passed"
    assert max(row["attempts"] for row in samples) > 1
    truth = read_truth(run.path / "truth.jsonl")
    rows = read_requests(run.path).to_pylist()
    assert not wrong(rows, run.path)
    assert len(rows) == len(truth), "every attempt is a row"
    assert not [finding for finding in examine(run.path) if finding.level == "bad"]


def test_replies_that_are_not_streamed(tmp_path: Path) -> None:
    names = [name for name in OF_REQUESTS if FAULTS[name].whole]
    url = f"sim://paced?rate=500&ttft=10&fault={every(0.05, names)}"
    run = api.run_perf(
        url=url, parallel=16, number=250, max_tokens=20, stream=False, out=tmp_path / "results", **PATIENCE
    )
    truth = read_truth(run.path / "truth.jsonl")
    rows = read_requests(run.path, "00-c16").to_pylist()
    short = [row for row in rows if truth[f"{run.path.name}/{row['request_id']}"].fault == "length-under"]
    assert {row["error_kind"] for row in short} == {"decode"}, "that leaves half a document"
    assert not wrong(rows, run.path)
    assert {seen.fault for seen in truth.values()} >= set(names)


@pytest.mark.slow
def test_a_server_that_restarts_and_refuses(tmp_path: Path) -> None:
    url = "sim://paced?rate=100&ttft=20&fault=restart:0.4,refuse:0.3"
    run = api.run_perf(url=url, parallel=8, number=300, max_tokens=40, out=tmp_path / "results")
    assert run.status == "finished", (
        "a server that is away for a second is not gone, not even at the end of a point"
    )
    rows = read_requests(run.path, "00-c8").to_pylist()
    assert len(rows) == 300
    assert not wrong(rows, run.path)
    log = (run.path / "truth.jsonl").read_text()
    assert '"request_id":null' in log, "restarts stand in the log"
    kinds = Counter(row["error_kind"] for row in rows)
    assert kinds["stream_broken"] > 0
    assert kinds["connect"] > 0
    assert kinds[None] > 150, "it goes on when the server is back"


@pytest.mark.parametrize("limit", [1_000_000, 67_108_864])
def test_a_large_event_is_cut_or_taken(tmp_path: Path, limit: int) -> None:
    url = "sim://paced?rate=300&ttft=10&fault=huge:0.3"
    run = api.run_perf(
        url=url, parallel=4, number=30, max_tokens=20, out=tmp_path / "results", max_response_bytes=limit
    )
    truth = read_truth(run.path / "truth.jsonl")
    rows = read_requests(run.path, "00-c4").to_pylist()
    struck = [row for row in rows if truth[f"{run.path.name}/{row['request_id']}"].fault == "huge"]
    assert struck
    for row in struck:
        if limit > 10_000_000:
            assert row["status"] == "ok"
            assert row["n_events"] == 21
        else:
            assert (row["status"], row["error_kind"]) == ("error", "too_large")
            assert row["error_message"] == "cut after 1,000,000 bytes (--max-response-bytes)"
            assert row["n_events"] == 3, "what came before is kept"
    others = [row for row in rows if row not in struck]
    assert {row["status"] for row in others} == {"ok"}


def test_a_response_without_an_end_is_cut(tmp_path: Path) -> None:
    endless = [SSE_HEAD, chunk(delta("first")), *[chunk(b": " + b"x" * 65000 + b"\n\n")] * 2000]
    probe = saying("hi")

    with ScriptedServer(answering(*endless)) as server:
        begun = time.monotonic()
        script_was = server._script
        server._script = lambda n, r: [probe] if b"probe" in r and r.startswith(b"POST") else script_was(n, r)
        run = api.run_perf(
            url=server.url, parallel=1, number=1, prompt="x", out=tmp_path / "results", max_response_bytes=500_000
        )
        assert time.monotonic() - begun < 15
    [row] = read_requests(run.path, "00-c1").to_pylist()
    assert row["error_kind"] == "too_large"
    assert row["n_events"] == 1
    assert run.status == "failed"


def test_a_compressed_bomb_is_not_unpacked(tmp_path: Path) -> None:
    packed = gzip.compress(delta("a" * 200_000_000) + STOP + DONE, 9)
    head = SSE_HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")

    with ScriptedServer(answering(head, chunk(packed), b"0\r\n\r\n")) as server:
        inner = server._script
        server._script = lambda n, r: [saying("hi")] if b"/probe/" in r else inner(n, r)
        run = api.run_perf(
            url=server.url,
            parallel=1,
            number=1,
            prompt="x",
            out=tmp_path / "results",
            max_response_bytes=1_000_000,
        )
    [row] = read_requests(run.path, "00-c1").to_pylist()
    assert row["error_kind"] == "too_large"
    assert row["n_events"] == 0


def test_silence_between_tokens_is_a_timeout_even_with_pings(tmp_path: Path) -> None:
    pings = [step for _ in range(40) for step in (0.2, chunk(b": ping\n\n"))]
    with ScriptedServer(answering(SSE_HEAD, chunk(delta("one")), *pings)) as server:
        inner = server._script
        server._script = lambda n, r: [saying("hi")] if b"/probe/" in r else inner(n, r)
        run = api.run_perf(
            url=server.url, parallel=1, number=1, prompt="x", out=tmp_path / "results", read_timeout=1.5
        )
    [row] = read_requests(run.path, "00-c1").to_pylist()
    assert (row["status"], row["error_kind"]) == ("timeout", "timeout_idle")
    assert row["error_message"] == "no further token within 1.5 s"
    assert 1.4e9 < row["end_ns"] - row["start_ns"] < 3e9
