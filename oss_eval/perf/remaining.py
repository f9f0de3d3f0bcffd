"""Resuming a stored sweep: its task, and the requests that it still lacks."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oss_eval.config.perf_task import PerfTask
from oss_eval.errors import StoreError, UsageError
from oss_eval.load.plan import Point
from oss_eval.results.manifest import read_manifest
from oss_eval.results.reader import iter_requests
from oss_eval.run.resume import FREE_SETTINGS, differences, settings_differ, stored_and_current_task


def sweep(path: Path, typed: dict[str, Any]) -> PerfTask:
    """The task of a stored sweep with the settings that are given now.

    Raises UsageError for a change that would mix unlike figures, and StoreError for a run that is no sweep or
    never began to measure.
    """
    manifest = read_manifest(path)
    kind = manifest.get("kind")
    if kind == "calibrate":
        raise StoreError(f"{path.name} is a calibration: it takes a minute", "run oss-eval calibrate again")
    if kind != "perf" or "points" not in manifest:
        raise StoreError(f"{path.name} has measured nothing that could be resumed", "run oss-eval perf again")
    before, now = stored_and_current_task(PerfTask, manifest, manifest["task"], typed, "oss-eval resume")
    lines = differences(before, now, FREE_SETTINGS)
    if lines:
        raise settings_differ(manifest, lines)
    return now


@dataclass(frozen=True, slots=True)
class RemainingWork:
    """The points and requests that a stored sweep still lacks."""

    points: list[Point]
    """All planned points."""
    todo: dict[str, Sequence[int] | None]
    """Request numbers that are missing, by point, None: all; complete points are left out."""
    quarantined: list[dict[str, Any]] = field(default_factory=list)
    """Points of which some requests are stored, and which are measured again as a whole under another name."""


def everything(points: list[Point]) -> RemainingWork:
    """All requests, for a new sweep."""
    return RemainingWork(points, {point.point_id: _numbers(point) for point in points})


def _numbers(point: Point) -> Sequence[int] | None:
    """The numbers of a point's requests; None where they depend on its time."""
    return None if point.continuous or point.number is None else range(point.number)


def remaining(path: Path, missing: bool) -> RemainingWork:
    """What the sweep in `path` lacks. `missing`: only the requests that an unfinished point lacks, instead of the
    complete point. Raises StoreError.

    A point is unfinished when requests are missing, or when the run failed at it because of its server. Requests
    of an unfinished point that could not be sent are missing too: the server may have been away.
    """
    manifest = read_manifest(path)
    broke_off = (manifest.get("broke_off") or {}).get("point_id")
    found = RemainingWork([], {}, list(manifest.get("set_aside") or []))
    taken = {point["point_id"] for point in [*manifest["points"], *found.quarantined]}
    # Older runs do not store the end of points: at most the last started one was in progress.
    under_way = [name for name in manifest.get("begun", []) if name not in manifest.get("ended", ())]
    finished = _finished(path, set(under_way if "ended" in manifest else under_way[-1:]))
    begun = {*manifest.get("begun", []), *finished}
    for planned in manifest["points"]:
        point = Point(**{key: planned[key] for key in Point.model_fields if key in planned})
        numbers = finished[point.point_id]
        lacking = _lacking(point, numbers, manifest.get("ended") or ())
        if missing and lacking is None and point.point_id in begun:
            raise UsageError(
                f"{point.point_id}: --missing can't complete a point whose requests depend on each other's times",
                "resume without --missing measures the point again",
            )
        if (lacking != [] or point.point_id == broke_off) and point.point_id in begun and not missing:
            found.quarantined.append(
                {
                    "point_id": point.point_id,
                    "parallel": point.parallel,
                    "rate": point.rate,
                    "reasoning_effort": point.reasoning_effort,
                    "requests": len(numbers),
                    "number": point.number,
                }
            )
            if point.search:
                continue  # the search decides anew which level comes next
            # A new name gives new random prompts: a server that has seen the first ones in this sweep would
            # answer them out of its prefix cache.
            point = point.model_copy(update={"point_id": again(point.point_id, taken)})
            taken.add(point.point_id)
            lacking = _numbers(point)
        found.points.append(point)
        if lacking != []:
            found.todo[point.point_id] = lacking
    return found


def _lacking(point: Point, finished: set[int], ended: Sequence[str]) -> Sequence[int] | None:
    """Requests of a point that are not finished; None: all of one that is measured as a whole."""
    numbers = _numbers(point)
    if numbers is None:
        return [] if point.point_id in ended else None
    return [number for number in numbers if number not in finished]


def _finished(path: Path, under_way: set[str]) -> dict[str, set[int]]:
    """Numbers of the requests that ended by themselves, by point.

    Of points that were in progress when the run ended, requests that could not be sent are not included.
    """
    found: dict[str, set[int]] = defaultdict(set)
    names = ["point_id", "request_id", "status", "error_kind", "warmup", "start_ns"]
    for table in iter_requests(path, columns=names):
        for point, name, status, kind, warmup, start in zip(
            *(table[key].to_pylist() for key in names), strict=True
        ):
            ended = status != "cancelled" or kind == "abandoned"
            if ended and not warmup and (start is not None or point not in under_way):
                found[point].add(int(name.rpartition("/")[2]))
    return found


def again(point_id: str, taken: Collection[str]) -> str:
    """`02-c50`, then `02-c50-r2`, `02-c50-r3`: the point's next repetition."""
    base = re.sub(r"-r\d+$", "", point_id)
    return next(name for n in range(2, 1 << 20) if (name := f"{base}-r{n}") not in taken)
