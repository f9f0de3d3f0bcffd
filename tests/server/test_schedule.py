"""Load patterns over sockets: planned timestamps reach the wire and the stored row, load goes on between points."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import pairwise, repeat
from pathlib import Path

import pytest

from oss_eval.endpoint.endpoint import parse_url
from oss_eval.load.plan import Point
from oss_eval.load.schedule.closed_loop import ClosedLoop
from oss_eval.load.schedule.open_loop import OpenLoop
from oss_eval.load.workers.pool import WorkerPool
from oss_eval.load.workers.process import Limits
from oss_eval.records import RequestRecord
from oss_eval.system.signals import Interrupts
from tests.helpers.scripted_server import DONE, LAST_CHUNK, SSE_HEAD, STOP, ScriptedServer, answering, chunk, delta

BODY = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
STEP_NS = 60_000_000
EVENTS = [delta("a"), delta("b"), STOP, DONE]


class Rows:
    def __init__(self) -> None:
        self.rows: list[RequestRecord] = []

    def record(self, record: RequestRecord) -> None:
        self.rows.append(record)

    def idle(self, in_flight: int, tokens: int) -> str | None:
        return None

    def stopping(self, in_flight: int) -> None:
        return None


class Busy:
    """A server that takes `seconds` for each answer and counts how many requests it works on."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.now = 0
        self.seen: list[tuple[float, int]] = []
        self._lock = threading.Lock()

    def change(self, by: int) -> None:
        with self._lock:
            self.now += by
            self.seen.append((time.monotonic(), self.now))

    def answer(self, number: int, request: bytes) -> Iterator[bytes | float]:
        if b"POST" not in request[:8]:
            return
        self.change(1)
        yield self.seconds
        self.change(-1)
        yield SSE_HEAD + chunk(b"".join(EVENTS)) + LAST_CHUNK


def run_points(points: list[Point], schedules: list[ClosedLoop | OpenLoop], busy: Busy | None = None, step: int = 0,
               workers: int = 1) -> list[RequestRecord]:  # fmt: skip
    """The rows of points that follow each other, in order of request number."""
    rows = Rows()
    script = busy.answer if busy else answering(SSE_HEAD, chunk(b"".join(EVENTS)), LAST_CHUNK)
    with (
        ScriptedServer(script) as server,
        Interrupts() as interrupts,
        WorkerPool(
            "r", (parse_url(server.url, "chat").target(),), Limits(5, 5, 20), interrupts, workers
        ) as pool,
    ):  # fmt: skip
        for point, schedule, goes_on in zip(
            points, schedules, [*repeat(True, len(points) - 1), False], strict=True
        ):
            requests = ((BODY, (number + 1) * step) for number in range(10**9))
            outcome = pool.run_point(
                point, "m", requests, rows, schedule=schedule, hand_over=lambda goes_on=goes_on: goes_on
            )
            assert outcome.broken is None
    return sorted(rows.rows, key=lambda row: (row.point_id, int(row.request_id.rpartition("/")[2])))


@pytest.mark.parametrize("workers", [1, 3])
def test_planned_timestamps_reach_the_wire_and_the_row(workers: int) -> None:
    point = Point(point_id="p", index=0, rate=1 / 0.06, number=6, workers=workers)
    rows = run_points([point], [OpenLoop(100)], step=STEP_NS, workers=workers)
    assert [row.status for row in rows] == ["ok"] * 6
    assert {row.worker for row in rows} == set(range(workers)), "requests go round the workers"
    planned = [row.scheduled_ns for row in rows]
    assert [b - a for a, b in pairwise(planned)] == [STEP_NS] * 5
    delays = [row.start_ns - row.scheduled_ns for row in rows]
    assert min(delays) >= 0, "none starts before its time"
    assert max(delays) < STEP_NS, "each starts before the next one is due"
    assert [row.rate for row in rows] == [1 / 0.06] * 6
    assert [row.parallel for row in rows] == [None] * 6


def test_an_open_loop_does_not_wait_for_answers() -> None:
    """Answers take ten times as long as the time between arrivals."""
    busy = Busy(0.5)
    rows = run_points([Point(point_id="p", index=0, rate=20.0, number=20)], [OpenLoop(100)], busy, 50_000_000)
    assert max(row.start_ns - row.scheduled_ns for row in rows) < 40_000_000
    assert 8 <= max(now for _, now in busy.seen) <= 13


def test_the_limit_of_requests_in_flight_delays_the_start() -> None:
    busy = Busy(0.3)
    rows = run_points([Point(point_id="p", index=0, rate=20.0, number=12)], [OpenLoop(2)], busy, 50_000_000)
    assert max(now for _, now in busy.seen) == 2
    delays = [row.start_ns - row.scheduled_ns for row in rows]
    assert max(delays[:2]) < 40_000_000
    assert delays[-1] > 800_000_000, "12 requests, 2 at a time, take 1.8 s instead of the planned 0.6"


def test_a_closed_loop_plans_no_timestamps() -> None:
    rows = run_points([Point(point_id="p", index=0, parallel=2, number=4)], [ClosedLoop(2)])
    assert [row.scheduled_ns for row in rows] == [None] * 4


def test_load_goes_on_from_point_to_point() -> None:
    """4, 8, 2 slots: the server always has as many requests as the level asks for, also between points."""
    busy = Busy(0.08)
    levels = (4, 8, 2)
    points = [
        Point(point_id=f"p{n}", index=n, parallel=slots, number=3 * slots, warmup_requests=slots, keeps_load=True)
        for n, slots in enumerate(levels)
    ]
    rows = run_points(points, [ClosedLoop(slots) for slots in levels], busy)
    for point, slots in zip(points, levels, strict=True):
        own = [row for row in rows if row.point_id == point.point_id]
        measured = [row for row in own if not row.warmup]
        assert len(measured) == 3 * slots, "exactly as many as planned are measured"
        assert [row.status for row in measured] == ["ok"] * (3 * slots)
        assert all(row.warmup for row in own[:slots]), "the first request of each slot is not"
    start, end = busy.seen[0][0] + 0.05, busy.seen[-1][0]
    idle = [b - a for (a, now), (b, _) in pairwise(busy.seen) if not now and start < a < end - 0.2]
    assert max(idle, default=0.0) < 0.04, "the server never has nothing to do for longer than it takes to ask"
    assert max(now for _, now in busy.seen) == 8


def test_slots_that_think_go_on_to_the_next_point() -> None:
    """A slot has taken a request of the first point and waits while the second one begins."""
    points = [
        Point(point_id=f"p{n}", index=n, parallel=slots, number=8, warmup_requests=slots, keeps_load=True)
        for n, slots in enumerate((2, 4))
    ]
    rows = run_points(points, [ClosedLoop(2, think=(0.2, 0.3)), ClosedLoop(4, think=(0.01, 0.02))], Busy(0.02))
    assert [sum(not r.warmup for r in rows if r.point_id == p.point_id) for p in points] == [8, 8]


def test_time_limits_a_point() -> None:
    busy = Busy(0.05)
    point = Point(point_id="p", index=0, parallel=3, duration=0.6)
    rows = run_points([point], [ClosedLoop(3)], busy)
    assert not any(row.warmup for row in rows)
    last = max(row.start_ns for row in rows) - min(row.start_ns for row in rows)
    assert 0.4e9 < last < 0.65e9
    assert all(row.status == "ok" for row in rows), "what was in flight has finished"


def test_slots_begin_over_the_ramp_and_think_between_requests() -> None:
    busy = Busy(0.05)
    point = Point(point_id="p", index=0, parallel=4, number=8, warmup_seconds=1.6, keeps_load=True)
    rows = run_points([point], [ClosedLoop(4, ramp=1.6, think=(0.1, 0.1))], busy)
    begun = min(row.start_ns for row in rows)
    early = [row for row in rows if row.start_ns - begun < 0.38e9]
    assert len(early) == 3, "one slot, whose next requests come 0.1 s after its answers of 0.05 s"
    measured = [row for row in rows if not row.warmup]
    assert len(measured) == 8
    assert min(row.start_ns for row in measured) - begun >= 1.59e9


def test_a_missing_start_keeps_its_planned_timestamp(tmp_path: Path) -> None:
    from oss_eval.results.tables import requests_table

    row = RequestRecord("r", "p", "p/0", 0, False, 1, "m", None, 1, scheduled_ns=7, status="error")
    assert requests_table([row])["scheduled_ns"].to_pylist() == [7]
    assert requests_table([row])["start_ns"].to_pylist() == [None]
