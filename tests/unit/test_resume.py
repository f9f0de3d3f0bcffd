"""Whatever breaks, finished work stays and the run can go on."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path

import pytest

from oss_eval.analysis.metrics import point_metrics
from oss_eval.analysis.request_rows import measured_seconds
from oss_eval.analysis.slo import goodput
from oss_eval.analysis.steady_state import plateau_span
from oss_eval.errors import RunFailed, StoreError
from oss_eval.load.client_stats import ClientStats, merge
from oss_eval.perf.remaining import remaining
from oss_eval.results.manifest import read_manifest
from oss_eval.results.reader import CLOSED, iter_requests
from oss_eval.results.tables import requests_table
from oss_eval.results.writer import RunWriter
from oss_eval.run.lifecycle import RunResult, finish_run
from oss_eval.system.signals import Interrupts
from tests.helpers.resume_helpers import row


def test_time_between_sessions_is_not_measured_and_cancelled_rows_are_replaced() -> None:
    rows = [
        row(0, 0, 2, 1),
        row(1, 2, 5, 1),
        row(2, 5, 6, 1, "cancelled"),
        row(2, 1000, 1002, 2),
        row(3, 1002, 1004, 2),
    ]
    table = requests_table(rows)
    found = point_metrics(table)
    assert found.get("duration") == 6 + 4 - 1, "5 s and 4 s: what was cancelled and asked again has its later row"
    assert found.get("requests") == 4
    assert found.get("cancelled") is None
    assert found.finished == 4
    assert found.get("rps") == 4 / 9
    span = plateau_span(table)
    assert span is not None
    assert span[1] - span[0] < 10e9
    alone = point_metrics(requests_table(rows[:3]))
    assert alone.get("cancelled") == 1
    assert alone.finished == 2


def test_a_run_of_before_sessions_is_one(tmp_path: Path) -> None:
    table = requests_table([row(0, 0, 2, 1), row(1, 2, 5, 1)]).drop_columns(["session"])
    assert measured_seconds(table) == 5


def test_a_lock_is_its_files_not_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has opened the file just before its owner removed it holds nothing: another one may make it anew."""
    RunWriter(tmp_path, "r1", {"kind": "perf", "points": []}).finish("finished")
    real, calls = fcntl.flock, 0

    def late(lock: int, how: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            (tmp_path / "r1" / ".lock").unlink()
        real(lock, how)

    monkeypatch.setattr("oss_eval.results.lock.fcntl.flock", late)
    writer = RunWriter.reopen(tmp_path / "r1")
    assert calls == 2
    with pytest.raises(StoreError, match=f"is being written by process {os.getpid()} on "):
        RunWriter.reopen(tmp_path / "r1")
    writer.close()
    assert read_manifest(tmp_path / "r1")["status"] in CLOSED
    assert not (tmp_path / "r1" / ".lock").exists()


def test_what_an_outage_kept_from_being_sent_is_missing(tmp_path: Path) -> None:
    records = [row(0, 0, 2, 1), row(1, 2, 4, 1), row(2, 0, 0, 1, "error")]
    records[2].start_ns = records[2].first_token_ns = records[2].last_token_ns = records[2].event_ns = None
    records[2].n_events, records[2].error_kind = 0, "connect"
    again = row(2, 100, 103, 2)
    found = point_metrics(requests_table([*records, again]))
    assert (found.get("requests"), found.get("failures"), found.get("success_rate")) == (3, 0, 1)
    assert found.get("duration") == 7
    point = {"point_id": "p", "index": 0, "parallel": 1, "number": 3}
    writer = RunWriter(tmp_path, "r", {"kind": "perf", "points": [point], "begun": ["p"]})
    for record in records:
        writer.add(record)
    writer.finish("interrupted")  # whether the server was known to be gone by then or not
    assert remaining(tmp_path / "r", missing=True).todo == {"p": [2]}
    assert remaining(tmp_path / "r", missing=False).todo == {"p-r2": range(3)}
    writer = RunWriter.reopen(tmp_path / "r")
    writer.finish("finished", ended=["p"])  # what was refused in a point that came to its end, the server refused
    assert not remaining(tmp_path / "r", missing=True).todo
    assert not remaining(tmp_path / "r", missing=False).todo
    manifest = read_manifest(tmp_path / "r")
    del manifest["ended"]  # of a run of before: only what was begun last can have been under way
    for begun_ones, todo in ((["p", "q"], {}), (["q", "p"], {"p": [2]})):
        (tmp_path / "r" / "manifest.json").write_text(json.dumps({**manifest, "begun": begun_ones}))
        assert remaining(tmp_path / "r", missing=True).todo == todo


def test_a_run_that_could_not_be_reopened_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunWriter(tmp_path, "r", {"kind": "perf"}).close()
    with monkeypatch.context() as broken_disk:
        broken_disk.setattr("oss_eval.results.writer.repair", refuse)
        with pytest.raises(StoreError, match="No space left"):
            RunWriter.reopen(tmp_path / "r")
    with monkeypatch.context() as stopped:
        stopped.setattr("oss_eval.results.writer.read_journal", interrupt)
        with pytest.raises(KeyboardInterrupt):
            RunWriter.reopen(tmp_path / "r")
    RunWriter.reopen(tmp_path / "r").close()


def interrupt(*what: object) -> None:
    raise KeyboardInterrupt


def test_a_disk_that_fills_up_in_a_hurry_is_no_misuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = RunWriter(tmp_path, "r", {"kind": "perf"})
    writer.add(row(0, 0, 1, 1))
    monkeypatch.setattr("oss_eval.results.writer.write_part", refuse)
    made, interrupts = RunResult(tmp_path / "r", "interrupted", "interrupted"), Interrupts()
    interrupts.count = 2
    with pytest.raises(RunFailed) as error:
        finish_run(writer, made, interrupts, lambda made: made)
    assert "No space left on device" in error.value.message


def refuse(*what: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_goodput_knows_of_sessions() -> None:
    rows = [row(0, 0, 2, 1), row(1, 2, 5, 1, "cancelled"), row(1, 1000, 1003, 2)]
    found = goodput(requests_table(rows), {"latency": 1e9})
    assert found is not None
    assert found.rate == point_metrics(requests_table(rows)).get("rps")
    assert found.attainment.value == 1


def test_reading_goes_on_while_parts_are_joined(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, "r", {"kind": "perf", "points": []})
    for part in range(30):
        for number in range(10):
            writer.add(row(part * 10 + number, 0, 1, 1))
        writer.flush()
    seen: list[str] = []
    for table in iter_requests(tmp_path / "r", columns=["request_id"]):
        seen += table["request_id"].to_pylist()
        if len(seen) == 50:
            writer.seal()
    assert seen == [f"p/{number}" for number in range(300)]
    writer.finish("finished")


def test_two_sessions_of_a_client_are_one(tmp_path: Path) -> None:
    first = ClientStats(2, 4, 8, 10, 1, 5.0, 2.0, 1.0, 0.2, 1.4, 0.001, 0.5)
    second = ClientStats(2, 4, 8, 8, 0, 3.0, 1.0, 0.5, None, 0.1, 0.002, 0.0)
    both = merge(first, second)
    assert (both.connections, both.wall_seconds, both.held_back_seconds) == (18, 8.0, 0.5)
    assert (both.longest_stall_seconds, both.waited_share, both.workers) == (1.4, 0.2, 2)
