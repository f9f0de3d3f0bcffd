"""Which stored points are compared with which, and what the comparison gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from oss_eval.analysis.compare import (
    PAIRED,
    BenchmarkDifference,
    MetricDifference,
    adjusted,
    benchmarks,
    sweeps,
)
from oss_eval.analysis.conditions import Mismatch, mismatches
from oss_eval.analysis.figures import PointMetrics
from oss_eval.analysis.perf_summary import load_run
from oss_eval.analysis.point_name import effort_rank, point_title
from oss_eval.analysis.published_points import PREFIX, manifest, origin, published_points
from oss_eval.analysis.slo import REQUEST_COLUMNS, goodput, goodput_figures
from oss_eval.errors import UsageError
from oss_eval.results.manifest import adaptive_points, read_begun_manifest
from oss_eval.results.reader import find_run, read_requests, read_samples

GROUPED = ("reasoning_effort", "model")
"""What points can be grouped by, beside `label:KEY`."""
COLUMNS = ["point_id", "subset", "sample_id", "prompt", "token_source", *(name for name, _ in PAIRED)]
Key = tuple[Any, ...]
LENGTHS = 0.05
"""Difference of mean lengths from published ones that is said, as a share."""


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """A point of a stored run, with its samples (benchmarks) or metrics (load sweeps)."""

    path: Path
    manifest: dict[str, Any] = field(repr=False)
    point_id: str
    task: str | None
    effort: str | None
    parallel: int | None
    rate: float | None
    samples: pa.Table | None = field(repr=False)
    metrics: PointMetrics | None = field(repr=False)
    token_sources: tuple[str, ...]
    """Where the token counts of its answers are from."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Kinds of the instrument's warnings at this point."""
        found = (self.manifest.get("checks") or {}).get(self.point_id) or ()
        return tuple(sorted({str(check.get("kind")) for check in found if check.get("level") == "warn"}))

    @property
    def title(self) -> str:
        """`aime25 high`, `high c64`."""
        return point_title(self.task, self.effort, self.parallel, rate=self.rate)

    @property
    def adaptive(self) -> bool:
        """Whether its answers were asked for until its score was known."""
        return self.point_id in adaptive_points(self.manifest)

    @property
    def model(self) -> str:
        """Its model."""
        return str(self.manifest.get("model", ""))


@dataclass(frozen=True, slots=True)
class Side:
    """What is compared: points of a run, or of several, by what makes them comparable."""

    name: str
    points: dict[Key, list[StoredPoint]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Side B against side A in one respect: a task and effort, or an effort and concurrency."""

    a: str
    b: str
    where: str
    task: str | None
    effort: str | None
    parallel: int | None
    rate: float | None
    differences: list[MetricDifference]
    benchmark: BenchmarkDifference | None
    repeats: tuple[int, int]
    """Points of each side: several are repeats of a sweep."""
    points: tuple[StoredPoint, StoredPoint]
    """The first point of each side."""


def sides(names: Sequence[str], out: Path, by: str | None, limits: dict[str, float] | None = None) -> list[Side]:
    """The sides that `oss-eval compare` names: runs, or points of runs (RUN:POINT); or the groups of all their
    points by reasoning_effort, model, or label:KEY. With `limits` of a request (see `goodput`), sweeps have their
    attainment and goodput too. Raises UsageError and StoreError."""
    stored = {name: _points(name, out, limits or {}) for name in names if not name.startswith(PREFIX)}
    models = [point.model for some in stored.values() for point in some]
    if not models:
        raise UsageError("published figures are compared with a run", f"for example {names[0]} last")
    points = [(name, stored[name] if name in stored else _published(name, models[0])) for name in names]
    if by is None:
        if len(names) < 2:
            raise UsageError(
                "one run alone can't be compared",
                "name another one, or compare its efforts: --by reasoning_effort",
            )
        return [Side(name, _keyed(some, ("task", "effort", "parallel", "rate"))) for name, some in points]
    if by not in GROUPED and not by.startswith("label:"):
        raise UsageError(f"--by {by!r} is unknown", f"there are: {', '.join(GROUPED)}, label:KEY")
    rest = tuple(
        k
        for k in ("task", "effort", "parallel", "rate", "model")
        if k != by and not (k == "effort" and by == "reasoning_effort")
    )
    groups: dict[str, list[StoredPoint]] = {}
    for point in (point for _, some in points for point in some):
        value = _value(point, by)
        if value is None:
            raise UsageError(f"{point.path.name} has no {by}", "leave it out, or choose another --by")
        groups.setdefault(value, []).append(point)
    if len(groups) < 2:
        raise UsageError(f"all points have the same {by}: {next(iter(groups))}", "name more runs, or another --by")
    ordered = sorted(groups, key=effort_rank) if by == "reasoning_effort" else list(groups)
    return [Side(name, _keyed(groups[name], rest)) for name in ordered]


def _value(point: StoredPoint, by: str) -> str | None:
    if by == "reasoning_effort":
        return point.effort
    if by == "model":
        return point.model
    return (point.manifest.get("labels") or {}).get(by.removeprefix("label:"))


def _keyed(points: list[StoredPoint], names: Sequence[str]) -> dict[Key, list[StoredPoint]]:
    found: dict[Key, list[StoredPoint]] = {}
    for point in points:
        found.setdefault(tuple(getattr(point, name) for name in names), []).append(point)
    return found


def _points(name: str, out: Path, limits: dict[str, float]) -> list[StoredPoint]:
    """The points of a run, or the one that RUN:POINT names. Raises UsageError and StoreError."""
    place, slash, rest = name.rpartition("/") if "://" in name else ("", "", name)
    run, colon, wanted = (rest, "", "") if Path(name).exists() else rest.partition(":")
    run = place + slash + run
    path = find_run(run, out)
    manifest = read_begun_manifest(path)
    if manifest["kind"] not in ("bench", "perf"):
        raise UsageError(f"{path.name} is a {manifest['kind']} run", "compare benchmarks or load sweeps")
    found = _of_benchmark(path, manifest) if manifest["kind"] == "bench" else _of_sweep(path, manifest, limits)
    if not found:
        raise UsageError(f"{path.name} holds no finished request yet", "look again when it has some")
    if not colon:
        return found
    matching = [p for p in found if p.point_id == wanted] or [
        p for p in found if wanted in p.point_id or wanted == p.title
    ]
    if len(matching) != 1:
        raise UsageError(
            f"{len(matching)} points of {path.name} match {wanted!r}",
            f"its points are: {', '.join(p.point_id for p in found)}",
        )
    return matching


def _published(name: str, model: str) -> list[StoredPoint]:
    """Published figures of a model (`published:MACHINE`) as points. Raises UsageError."""
    return [
        StoredPoint(
            Path(name), manifest(row), f"c{row.parallel}", None, None, row.parallel, None, None, metrics, ()
        )
        for row, metrics in published_points(name, model)
    ]


def _of_benchmark(path: Path, manifest: dict[str, Any]) -> list[StoredPoint]:
    rows = read_samples(path).select(COLUMNS)
    ids = rows["point_id"].cast(pa.string())
    return [
        StoredPoint(
            path, manifest, p["point_id"], p["task"], p.get("reasoning_effort"), None, None,
            of_point := rows.filter(pc.equal(ids, p["point_id"])), None,
            tuple(sorted({s for s in of_point["token_source"].to_pylist() if s})),
        )
        for p in manifest["points"]
        if p["point_id"] in set(ids.to_pylist())
    ]  # fmt: skip


def _of_sweep(path: Path, manifest: dict[str, Any], limits: dict[str, float]) -> list[StoredPoint]:
    return [
        StoredPoint(
            path,
            manifest,
            p.point_id,
            None,
            p.reasoning_effort,
            p.parallel,
            p.rate,
            None,
            _with_goodput(p.metrics, path, p.point_id, limits),
            p.token_sources,
        )
        for p in load_run(path).points
    ]


def _with_goodput(metrics: PointMetrics, path: Path, point_id: str, limits: dict[str, float]) -> PointMetrics:
    found = goodput(read_requests(path, point_id, REQUEST_COLUMNS), limits) if limits else None
    return PointMetrics({**metrics.figures, **goodput_figures(found)})


def compare(found: Sequence[Side], all_pairs: bool = False) -> list[Comparison]:
    """Each side against the first one, or against each one before it, in every respect that both have. p-values of
    scores are corrected for their number (Holm). Raises UsageError where two sides have nothing in common."""
    pairs = list(combinations(found, 2)) if all_pairs else [(found[0], other) for other in found[1:]]
    compared = [comparison for a, b in pairs for comparison in _compared(a, b)]
    corrected = iter(adjusted([c for comparison in compared for c in comparison.differences]))
    return [replace(c, differences=[next(corrected) for _ in c.differences]) for c in compared]


def _compared(a: Side, b: Side) -> list[Comparison]:
    keys = [(key, key) for key in a.points if key in b.points]
    if not keys and len(a.points) == len(b.points) == 1:  # two points that were named, whatever they are
        keys = [(next(iter(a.points)), next(iter(b.points)))]
    if not keys:
        raise UsageError(
            f"{a.name} and {b.name} have no point in common: {_titles(a)} and {_titles(b)}",
            "name the points: RUN:POINT RUN:POINT, or group them: --by reasoning_effort",
        )
    return [_comparison(a, b, a.points[one], b.points[two]) for one, two in keys]


def _titles(side: Side) -> str:
    return ", ".join(dict.fromkeys(p.title for points in side.points.values() for p in points))


def _comparison(a: Side, b: Side, ones: list[StoredPoint], twos: list[StoredPoint]) -> Comparison:
    first, other = ones[0], twos[0]
    if (first.samples is None) != (other.samples is None):
        raise UsageError(f"{a.name} and {b.name}: one is a benchmark, the other a load sweep", "compare like runs")
    same_effort = first.effort == other.effort
    title = point_title(first.task, first.effort if same_effort else None, first.parallel, rate=first.rate)
    task, effort, parallel = first.task, first.effort if same_effort else None, first.parallel
    benchmark, differences = None, []
    if first.samples is not None and other.samples is not None:
        hashes = {p.manifest["tasks"].get(p.task, {}).get("samples_hash") for p in (*ones, *twos)}
        tables = [pa.concat_tables([p.samples for p in side]).unify_dictionaries() for side in (ones, twos)]
        adaptive = (any(p.adaptive for p in ones), any(p.adaptive for p in twos))
        benchmark = benchmarks(title, tables[0], tables[1], len(hashes) == 1, adaptive)
        differences = benchmark.differences
        if not any(d.metric == "score" for d in differences):
            raise UsageError(
                f"{a.name} and {b.name} have no problem of {title} in common", "compare runs of the same samples"
            )
    else:
        metrics = [[p.metrics for p in side if p.metrics is not None] for side in (ones, twos)]
        differences = sweeps(title, metrics[0], metrics[1])
    return Comparison(
        a.name, b.name, title, task, effort, parallel, first.rate, differences, benchmark, (len(ones), len(twos)),
        (first, other),
    )  # fmt: skip


def unlike(found: Sequence[Side]) -> list[tuple[str, list[Mismatch]]]:
    """For each side after the first, the conditions in which its first run differs from the first side's."""
    base = found[0]
    return [(side.name, [*_of_manifests(base, side), *_of_points(base, side)]) for side in found[1:]]


def _of_manifests(a: Side, b: Side) -> list[Mismatch]:
    one, two = (next(iter(side.points.values()))[0] for side in (a, b))
    if "published" in one.manifest or "published" in two.manifest:
        return origin(one.manifest, two.manifest)
    return mismatches(one.manifest, two.manifest) if one.path != two.path else []


def _other_lengths(a: Side, b: Side) -> list[Mismatch]:
    """Mean lengths of prompts and answers that differ by more than LENGTHS."""
    found = []
    for name in ("prompt_tokens", "completion_tokens"):
        one, two = (
            [
                p.metrics.get(name, "mean")
                for points in side.points.values()
                for p in points
                if p.metrics is not None
            ]
            for side in (a, b)
        )
        known = [(x, y) for x, y in zip(one, two, strict=False) if x and y]
        if known and abs(known[0][0] / known[0][1] - 1) > LENGTHS:
            found.append(Mismatch("workload", name.replace("_", " "), f"{known[0][0]:.0f}", f"{known[0][1]:.0f}"))
    return found


def _of_points(a: Side, b: Side) -> list[Mismatch]:
    """How tokens were counted, and what the instrument warns of; of published figures, the lengths."""
    found: list[Mismatch] = []
    if any("published" in p.manifest for side in (a, b) for points in side.points.values() for p in points):
        return _other_lengths(a, b)
    for name, of in (("token counts from", "token_sources"), ("warnings", "warnings")):
        one, two = (
            sorted({value for points in side.points.values() for p in points for value in getattr(p, of)})
            for side in (a, b)
        )
        if one != two:
            found.append(Mismatch("instrument", name, ", ".join(one) or "none", ", ".join(two) or "none"))
    return found
