"""The seam between a load schedule and the workers: planned timestamps reach the wire and the stored row."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from oss_eval.load.plan import Point
from oss_eval.load.schedule import Planned, Take
from oss_eval.load.schedule.closed_loop import ClosedLoop
from oss_eval.load.workers.pool import WorkerPool
from oss_eval.load.workers.process import Limits
from oss_eval.records import RequestRecord
from oss_eval.system.signals import Interrupts
from tests.helpers.scripted_server import DONE, LAST_CHUNK, SSE_HEAD, STOP, ScriptedServer, answering, chunk, delta

BODY = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
STEP_NS = 60_000_000


@dataclass(frozen=True)
class EveryStep:
    """A test schedule: request n starts (n + 1) steps after the point."""

    def slot(self, take: Take, start_ns: int) -> Iterator[Planned]:
        while (number := take()) is not None:
            yield Planned(number, start_ns + (number + 1) * STEP_NS)


class Rows:
    def __init__(self) -> None:
        self.rows: list[RequestRecord] = []

    def record(self, record: RequestRecord) -> None:
        self.rows.append(record)

    def idle(self, in_flight: int, tokens: int) -> str | None:
        return None

    def stopping(self, in_flight: int) -> None:
        return None


def run_point(number: int, parallel: int, **more: object) -> list[RequestRecord]:
    from oss_eval.endpoint.endpoint import parse_url

    rows = Rows()
    point = Point(point_id="p", index=0, parallel=parallel, number=number)
    events = [delta("a"), delta("b"), STOP, DONE]
    with (
        ScriptedServer(answering(SSE_HEAD, chunk(b"".join(events)), LAST_CHUNK)) as server,
        Interrupts() as interrupts,
        WorkerPool("r", (parse_url(server.url, "chat").target(),), Limits(5, 5, 20), interrupts) as pool,
    ):
        pool.run_point(point, "m", iter([BODY] * number), rows, **more)
    return sorted(rows.rows, key=lambda row: int(row.request_id.rpartition("/")[2]))


def test_planned_timestamps_reach_the_wire_and_the_row() -> None:
    rows = run_point(6, 3, schedule=EveryStep())
    assert [row.status for row in rows] == ["ok"] * 6
    planned = [row.scheduled_ns for row in rows]
    assert [b - a for a, b in pairwise(planned)] == [STEP_NS] * 5
    delays = [row.start_ns - row.scheduled_ns for row in rows]
    assert min(delays) >= -1_000_000, "none starts before its time"
    assert max(delays) < STEP_NS, "each starts before the next one is due"


def test_a_closed_loop_plans_no_timestamps() -> None:
    assert [row.scheduled_ns for row in run_point(4, 2)] == [None] * 4
    numbers = iter([0, 1, None])
    assert list(ClosedLoop().slot(lambda: next(numbers), time.time_ns())) == [Planned(0, None), Planned(1, None)]


def test_a_missing_start_keeps_its_planned_timestamp(tmp_path: Path) -> None:
    from oss_eval.results.tables import requests_table

    row = RequestRecord("r", "p", "p/0", 0, False, 1, "m", None, 1, scheduled_ns=7, status="error")
    assert requests_table([row])["scheduled_ns"].to_pylist() == [7]
    assert requests_table([row])["start_ns"].to_pylist() == [None]
