"""The runs in some folders: read on demand, and again when they change.

Run names from the browser are looked up here and never become a path.
"""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from oss_eval.analysis import bench_summary
from oss_eval.analysis import perf_summary as perf_runs
from oss_eval.analysis.figures import Metric, PointMetrics
from oss_eval.analysis.point_name import effort_rank, level_name, point_title
from oss_eval.analysis.repeats import merged
from oss_eval.errors import OssEvalError, StoreError, UsageError
from oss_eval.results.manifest import adaptive_points, has_older_intervals, read_begun_manifest
from oss_eval.results.model_name import short_model_name
from oss_eval.results.reader import (
    CLOSED,
    JOURNAL,
    count_rows,
    read_requests,
    read_samples,
    read_summary,
    status_of,
)
from oss_eval.system.text import as_utf8

T = TypeVar("T")
LOOK_AGAIN_SECONDS = 1.0


@dataclass(frozen=True)
class PointView:
    """One point of a run with its metrics."""

    run: StoredRun
    point_id: str
    task: str
    effort: str | None
    parallel: int | None
    rate: float | None
    number: int
    metrics: PointMetrics
    workers: int | None = None
    """Worker processes, for runs whose points differ in nothing else (calibrations)."""
    members: tuple[str, ...] = ()
    """Of repeats of a point that are put together: all their ids, the first one's included."""

    @property
    def adaptive(self) -> bool:
        """Whether its answers were asked for until its score was known."""
        return self.point_id in adaptive_points(self.run.manifest)

    def score(self) -> Metric | None:
        """avg@k."""
        return mean_score(self.metrics)

    @property
    def whole(self) -> bool:
        """Whether all planned requests or samples are done."""
        asked = self.metrics.metric("failed")
        done = asked.n if asked is not None else self.metrics.finished
        manifest = self.run.manifest
        return done >= self.number and (self.number > 0 or self.point_id in (manifest.get("ended") or ()))

    @property
    def level(self) -> float | None:
        """Its load: requests in flight, or per second; None of a benchmark."""
        return self.rate if self.rate is not None else self.parallel

    @property
    def level_name(self) -> str:
        """Its load: `c64` or `2.5/s`."""
        return level_name(self.parallel, self.rate) or ""

    @property
    def title(self) -> str:
        """`aime25 high`, `high c64`."""
        return point_title(self.task, self.effort, self.parallel, self.workers, self.rate)


def mean_score(metrics: PointMetrics) -> Metric | None:
    """avg@k among a point's metrics, for any k."""
    return next((m for (n, stat), m in metrics.figures.items() if n == "score" and stat.startswith("avg@")), None)


def shown_name(path: Path, whole: bool = False) -> str:
    """The name of a file as text: bytes that are no UTF-8 become `?`, as pages and addresses can't hold them."""
    return as_utf8(str(path) if whole else path.name)


class StoredRun:
    """A stored run, as far as it is readable. It does not change: after a write, the run is a new object."""

    def __init__(self, key: str, path: Path, stamp: tuple[int, ...]) -> None:
        self.key, self.path, self.stamp = key, path, stamp
        self.name = shown_name(path)
        self.problems: list[str] = []
        """Files that could not be read, as messages."""
        self.manifest: dict[str, Any] = {}
        self.status = "unreadable"
        try:
            manifest = read_begun_manifest(path)
            self.manifest, self.status = manifest, status_of(path, manifest)
        except OssEvalError as error:
            self.problems.append(error.message)

    @property
    def kind(self) -> str:
        """`perf`, `bench`, `calibrate`, or nothing for what can't be read."""
        return str(self.manifest.get("kind", ""))

    @property
    def live(self) -> bool:
        """Whether a process writes it."""
        return self.status == "running"

    @property
    def model(self) -> str:
        """Its model, without the folders of a path."""
        return short_model_name(str(self.manifest.get("model", "")))

    @property
    def task(self) -> str:
        """Its task."""
        return str((self.manifest.get("task") or {}).get("name", ""))

    @property
    def endpoint(self) -> dict[str, Any]:
        """Its endpoint."""
        return dict(self.manifest.get("endpoint") or {})

    @property
    def simulated(self) -> bool:
        """Whether a simulator answered."""
        return bool(self.endpoint.get("simulated"))

    @property
    def created(self) -> str:
        """Its start in UTC: 2026-11-22 07:12."""
        try:
            moment = datetime.fromisoformat(str(self.manifest["created"])).astimezone(UTC)
        except (KeyError, ValueError, OverflowError):
            try:
                moment = datetime.strptime(self.path.name[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
            except ValueError:
                return ""
        return f"{moment:%Y-%m-%d %H:%M}"

    @property
    def label(self) -> str:
        """A short name that distinguishes it from other runs of the model."""
        return str(self.manifest.get("name") or self.name[-4:])

    @property
    def efforts(self) -> list[str]:
        """Its reasoning efforts."""
        found = {point.get("reasoning_effort") for point in self.manifest.get("points", [])}
        return sorted((effort for effort in found if effort), key=effort_rank)

    @property
    def warnings(self) -> int | None:
        """Number of warnings of the checks; None if it was not checked."""
        if "run_checks" not in self.manifest and "checks" not in self.manifest:
            return None
        found = [check for checks in (self.manifest.get("checks") or {}).values() for check in checks or ()]
        return len([c for c in [*found, *(self.manifest.get("run_checks") or [])] if c.get("level") == "warn"])

    @cached_property
    def stored_rows(self) -> list[dict[str, Any]]:
        """Rows of its summary; none where it can't be trusted: a resumed run that broke off has that of before,
        and benchmarks of older versions have intervals that cover less often than they say."""
        if self.kind == "bench" and has_older_intervals(self.manifest):
            return []
        try:
            return read_summary(self.path) if self.status in CLOSED else []
        except StoreError as error:
            self._note(error.message)
            return []

    @cached_property
    def summary(self) -> dict[tuple[str, str | None], PointMetrics]:
        """Its metrics by point and subset: stored ones, or computed from the rows so far."""
        rows = self.stored_rows
        if not rows and self.manifest.get("points"):
            rows = self._computed()
        return perf_runs.metrics_by_point(rows)

    def _computed(self) -> list[dict[str, Any]]:
        if self.kind != "bench":
            return [] if self.report is None else perf_runs.summary_rows(self.report)
        return bench_summary.summary_rows(self.manifest, self.groups)

    @cached_property
    def groups(self) -> list[bench_summary.Group]:
        """A benchmark's scores with all details; needs all samples."""
        return bench_summary.groups(self.samples(bench_summary.COLUMNS), self.manifest)

    @cached_property
    def points(self) -> list[PointView]:
        """Points with metrics, in the order of the run."""
        found = []
        for planned in self.manifest.get("points", []):
            metrics = self.summary.get((planned["point_id"], None))
            if metrics is not None:
                found.append(
                    PointView(
                        self,
                        planned["point_id"],
                        planned.get("task") or self.task,
                        planned.get("reasoning_effort"),
                        planned.get("parallel"),
                        planned.get("rate"),
                        0 if planned.get("turns") else planned.get("number") or 0,
                        metrics,
                        self._workers(planned),
                    )
                )
        return found

    @cached_property
    def pooled(self) -> list[PointView]:
        """The same with repeats of a point (`perf --repeat`) put together."""
        if not (self.manifest.get("task") or {}).get("repeat"):
            return self.points
        groups: dict[tuple[str | None, float | None], list[PointView]] = {}
        for view in self.points:
            groups.setdefault((view.effort, view.level), []).append(view)
        return [
            some[0]
            if len(some) == 1
            else replace(
                some[0],
                number=sum(view.number for view in some),
                metrics=merged([view.metrics for view in some]),
                members=tuple(view.point_id for view in some),
            )
            for some in groups.values()
        ]

    @property
    def planned(self) -> list[tuple[str, str]]:
        """(title, point_id) of every point, begun or not."""
        return [(self._planned_title(point), point["point_id"]) for point in self.manifest.get("points", [])]

    def _planned_title(self, point: dict[str, Any]) -> str:
        effort, workers = point.get("reasoning_effort"), self._workers(point)
        return point_title(point.get("task"), effort, point.get("parallel"), workers, point.get("rate"))

    def _workers(self, point: dict[str, Any]) -> int | None:
        """Number of workers, if it distinguishes the points: only in a calibration."""
        return point.get("workers") if self.kind == "calibrate" else None

    def point(self, point_id: str) -> PointView | None:
        """A point by its id."""
        return next((view for view in self.points if view.point_id == point_id), None)

    @cached_property
    def report(self) -> perf_runs.RunReport | None:
        """A load sweep with failures, clocks and checks; None where nothing can be shown."""
        try:
            return self._read(perf_runs.load_run, stored=bool(self.stored_rows))
        except OssEvalError as error:
            self._note(error.message)
            return None

    def samples(self, columns: list[str]) -> pa.Table:
        """Rows of its samples, as far as they can be read."""
        return self._read(read_samples, columns=columns)

    def requests(self, columns: list[str], point_id: str | None = None) -> pa.Table:
        """Rows of its requests, as far as they can be read."""
        return self._read(read_requests, point_id=point_id, columns=columns)

    def _read(self, read: Callable[..., T], **what: Any) -> T:
        """The result of a read; unreadable files are noted."""
        damaged: list[str] = []
        try:
            return read(self.path, **what, damaged=damaged)
        finally:
            for problem in damaged:
                self._note(problem)

    @cached_property
    def progress(self) -> tuple[int, int]:
        """(finished, planned) requests or samples."""
        planned = sum(point.get("number") or 0 for point in self.manifest.get("points", []))
        aside = sum(point.get("requests") or 0 for point in self.manifest.get("set_aside", []))
        there = count_rows(self.path, "samples" if self.kind == "bench" else "requests") - aside
        return max(0, min(planned, there)), planned

    @property
    def resume(self) -> str | None:
        """The command that resumes a run that ended too early."""
        if self.kind in ("perf", "bench") and self.status in ("broken off", "interrupted", "failed"):
            return shlex.join(["oss-eval", "resume", self.name, "--out", shown_name(self.path.parent, whole=True)])
        return None

    def _note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


class RunIndex:
    """Every run in some folders, newest first."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """Raises UsageError for a folder that is not there."""
        for folder in folders:
            if not folder.is_dir():
                raise UsageError(
                    f"{folder} is no folder", "give folders of results, or run oss-eval perf --url sim://instant"
                )
        self.folders = [folder.resolve() for folder in folders]
        self._runs: dict[Path, StoredRun] = {}
        self._lock = threading.Lock()
        self._looked = float("-inf")

    def runs(self) -> list[StoredRun]:
        """All runs; folders are looked at again once a second."""
        with self._lock:
            if time.monotonic() - self._looked >= LOOK_AGAIN_SECONDS:
                self._look()
                self._looked = time.monotonic()
            return list(self._runs.values())

    def find(self, key: str) -> StoredRun | None:
        """A run by its key."""
        return next((run for run in self.runs() if run.key == key), None)

    def chosen(self, keys: Sequence[str], kinds: tuple[str, ...]) -> list[StoredRun]:
        """The named runs of these kinds, in the order named."""
        found = {run.key: run for run in self.runs()}
        return [found[key] for key in keys if key in found and found[key].kind in kinds]

    def _look(self) -> None:
        fresh: dict[Path, StoredRun] = {}
        used: set[str] = set()
        for path in self._paths():
            stamp, old = _stamp(path), self._runs.get(path)
            name = shown_name(path)
            key, number = name, 2
            while key in used:
                key, number = f"{name}~{number}", number + 1
            used.add(key)
            ended = old is not None and old.live and status_of(path, old.manifest) != "running"
            if old is None or old.stamp != stamp or ended or old.key != key:
                old = StoredRun(key, path, stamp)
            fresh[path] = old
        order = sorted(fresh.values(), key=lambda run: (run.created, run.key), reverse=True)
        self._runs = {run.path: run for run in order}

    def _paths(self) -> list[Path]:
        found = []
        for folder in self.folders:
            if (folder / "manifest.json").is_file():
                found.append(folder)
                continue
            found += [
                file.parent
                for pattern in ("*/manifest.json", "*/*/manifest.json")  # results/RUN, results/examples/RUN
                for file in sorted(folder.glob(pattern))
                if file.resolve().is_relative_to(folder) and not _linked(file.parent)  # a link may lead anywhere
            ]
        return list(dict.fromkeys(found))


def _linked(run: Path) -> bool:
    """Whether a table of a run is a link: oss-eval makes none, and one could show what is outside."""
    return any((run / name).is_symlink() for name in ("summary.parquet", "requests", "samples", JOURNAL))


def _stamp(path: Path) -> tuple[int, ...]:
    """Changes with every write to the run."""
    found = []
    for name in ("manifest.json", "summary.parquet", "requests", "samples", JOURNAL):
        try:
            stat = (path / name).stat()
            found += [stat.st_mtime_ns, stat.st_size]
        except OSError:
            found.append(0)
    return tuple(found)
