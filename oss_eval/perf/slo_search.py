"""`perf --find`: levels of load, one after the other, until the highest that meets the objectives is known."""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oss_eval.analysis.latency import record_durations
from oss_eval.analysis.slo import objectives
from oss_eval.analysis.slo_search import (
    Level,
    Misses,
    Search,
    SearchAnswer,
    answer,
    enough,
    meets,
    misses,
    next_level,
    objective,
)
from oss_eval.analysis.trend import drifts
from oss_eval.config.perf_task import PerfTask
from oss_eval.errors import UsageError
from oss_eval.load.plan import Point, auto_workers, point_at
from oss_eval.perf.remaining import again
from oss_eval.records import RequestRecord

START = {"max-parallel": 8.0, "max-rate": 1.0}
HIGHEST = {"max-parallel": 4096.0, "max-rate": 10_000.0}
USUAL_STREAMS = 1024
"""Streams that the workers of a search are made for."""
WARMING_UP, MOST_COLD = 0.3, 3
"""Fall of the TTFT or the latency over a level that misses, relative to its mean, that is a server's warming up;
how many such levels are measured again."""
OVERLOAD = 0.5
"""Growth of the requests in flight and of the TTFT over a level, relative to their means, that is an overload."""


def search_of(task: PerfTask) -> Search:
    """What a task looks for. Raises UsageError for objectives that can't be searched by, or none."""
    assert task.find is not None
    asked = objectives(task.slo)
    if not asked.conditions:
        raise UsageError("--find needs objectives", "for example: --slo 'ttft_p99<2s' 'success>99%'")
    found = [objective(condition) for condition in asked.conditions]
    whole = [one.text for one in found if one.duration not in (None, "latency") and not task.stream]
    if whole:
        raise UsageError(f"--find can't search by {whole[0]!r} without streams", "leave out --no-stream")
    given = task.rate if task.find == "max-rate" else task.parallel
    start = float(given[0]) if given is not None and len(given) == 1 else START[task.find]
    return Search(task.find, tuple(found), start, HIGHEST[task.find])


def search_workers(task: PerfTask, cores: int) -> int:
    """Worker processes of a search, the same at all levels: slots that go on from level to level stay there."""
    return task.worker_count or auto_workers(USUAL_STREAMS, cores)


class SloSearch:
    """A search in progress: which point is next, and whether the one in progress has told enough."""

    def __init__(self, task: PerfTask, cores: int, stored: dict[str, Any] | None = None) -> None:
        """`stored` is the manifest's entry of a search that is resumed."""
        self._task, self._search = task, search_of(task)
        self._cores = cores
        self._most = task.number[0] if task.number else None
        self.levels: list[Level] = []
        self._points: list[str] = []
        for level in (stored or {}).get("levels") or ():
            counts = tuple(Misses(**one) for one in level["misses"])
            self.levels.append(Level(level["level"], counts, level["overloaded"]))
            self._points.append(level["point_id"])
        self.cold: list[str] = list((stored or {}).get("cold") or ())
        """Points at which the server was still warming up."""
        self._again: float | None = None
        """A level that is measured once more."""
        self._level = 0.0
        self._rows: list[tuple[int, dict[str, float]]] = []
        self._flight: list[int] = []
        self._looked = 0.0
        self._enough = False

    def next_point(self, index: int, taken: Collection[str] = ()) -> Point | None:
        """The level to measure next, as point number `index` of the run; None when the search is over. `taken`:
        ids of points that an earlier session has left unfinished."""
        level = self._again if self._again is not None else next_level(self._search, self.levels)
        if level is None:
            return None
        self._again = None
        self._level, self._rows, self._flight, self._enough = level, [], [], False
        point = point_at(self._task, self._cores, index, level, None, (self._task.reasoning_effort or (None,))[0])
        workers = search_workers(self._task, self._cores)
        name = again(point.point_id, taken) if point.point_id in taken else point.point_id
        self._points.append(name)
        return point.model_copy(update={"point_id": name, "search": True, "keeps_load": True, "workers": workers})

    def record(self, record: RequestRecord) -> None:
        """A measured request of the level has ended."""
        if record.start_ns is None or record.status == "cancelled":
            return
        durations = record_durations(record) if record.status == "ok" else {}
        self._rows.append((record.start_ns, {name: v for name, v in durations.items() if v is not None}))

    def look(self, in_flight: int) -> None:
        """Called several times a second, with the requests in flight."""
        self._flight.append(in_flight)

    def enough(self) -> bool:
        """Whether the level has told enough."""
        now = time.monotonic()
        if self._enough or now - self._looked < 0.2:
            return self._enough
        self._looked = now
        level = Level(self._level, tuple(self._misses()))
        self._enough = enough(self.levels, level, self._search.objectives, self._most)
        return self._enough

    def _misses(self) -> list[Misses]:
        rows = sorted(self._rows, key=lambda row: row[0])
        flight = self._level if self._task.find == "max-parallel" else float(np.mean(self._flight or [1]))
        together = max(1, round(flight))
        return [
            misses([_duration(values, one.duration) for _, values in rows], one, together)
            for one in self._search.objectives
        ]

    def goes_on(self) -> bool:
        """Whether load may go on to the next level: not where a queue has to be emptied first."""
        level = self._current()
        if self._is_warming_up(level):
            return True
        now = [*self.levels, level]
        no_queue = self._task.find == "max-parallel" or meets(now, self._search.objectives)[-1] is not False
        return no_queue and next_level(self._search, now) is not None

    def level_ended(self) -> None:
        """The level that was in progress has ended. One at which the server was still warming up tells nothing,
        and is measured again."""
        level = self._current()
        if self._is_warming_up(level):
            self.cold.append(self._points.pop())
            self._again = level.level
        else:
            self.levels.append(level)

    def _is_warming_up(self, level: Level) -> bool:
        """Whether a level misses the objectives while its TTFT or latency still falls."""
        if len(self.cold) >= MOST_COLD or meets([*self.levels, level], self._search.objectives)[-1] is not False:
            return False
        return any((drifts(values, WARMING_UP) or 0.0) < 0 for values in self._series())

    def _current(self) -> Level:
        level = Level(self._level, tuple(self._misses()))
        if self._task.find == "max-parallel" or meets([*self.levels, level], self._search.objectives)[-1] is False:
            return level
        return replace(level, overloaded=self._overloaded())

    def _overloaded(self) -> bool:
        """Whether the requests in flight grow, and TTFT or latency with them."""
        flight = np.asarray(self._flight, dtype=np.float64)
        if (drifts(flight, OVERLOAD) or 0.0) <= 0:
            return False
        return any((drifts(values, OVERLOAD) or 0.0) > 0 for values in self._series())

    def _series(self) -> list[NDArray[np.float64]]:
        """TTFT and latency of the level's requests, ms, in the order of their starts."""
        rows = sorted(self._rows, key=lambda row: row[0])
        return [np.array([v[name] for _, v in rows if name in v]) for name in ("ttft", "latency")]

    def answer(self) -> SearchAnswer:
        """What is known so far."""
        return answer(self._search, self.levels)

    def as_manifest(self) -> dict[str, Any]:
        """The search as it is stored with the run, and printed as JSON."""
        found = asdict(self.answer()) if self.levels else {"what": self._search.what}
        states = {True: "met", False: "missed", None: "undecided"}
        met = meets(self.levels, self._search.objectives)
        return {
            **found,
            "cold": self.cold,
            "objectives": [one.text for one in self._search.objectives],
            "levels": [
                {
                    "level": level.level,
                    "point_id": point_id,
                    "requests": level.misses[0].n,
                    "state": states[state],
                    "overloaded": level.overloaded,
                    "misses": [one._asdict() for one in level.misses],
                }
                for level, point_id, state in zip(self.levels, self._points, met, strict=False)
            ],
        }


def _duration(values: dict[str, float], name: str | None) -> float:
    """A duration in ms; infinite of a request that has failed or has none. An answer of one token has no time per
    token, and misses no limit of it."""
    if not values:
        return math.inf
    if name is None:
        return 0.0
    return values.get(name, 0.0 if name == "tpot" else math.inf)
