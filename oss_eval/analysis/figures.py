"""A point's figures: each metric and statistic with its interval and the number of values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from oss_eval.analysis import stats
from oss_eval.analysis.request_rows import Floats
from oss_eval.analysis.run_interval import mean_of_run, percentile_of_run

STEADY = "steady_"
"""Begin of the names of the steady state's figures."""
ONLY_STEADY = ("ms", "rps", "tps", "success_rate", "completion_tokens", "attainment", "goodput")
"""Ends of the names of figures that are shown of the steady state, where there is one, or not at all."""
PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric and statistic of a point, with its interval and the number of values."""

    metric: str
    stat: str
    value: float
    low: float | None
    high: float | None
    n: int
    unit: str


@dataclass(frozen=True, slots=True)
class PointMetrics:
    """All metrics of a point, by (metric, stat)."""

    figures: dict[tuple[str, str], Metric]
    in_steady_state: bool = False
    """Whether these are figures of the steady state, see `shown`."""

    def get(self, metric: str, stat: str = "value") -> float | None:
        """The value; None without one."""
        found = self.figures.get((metric, stat))
        return None if found is None else found.value

    @property
    def finished(self) -> float:
        """Requests that ended by themselves."""
        return (self.get("requests") or 0.0) - (self.get("cancelled") or 0.0)

    def metric(self, metric: str, stat: str = "value") -> Metric | None:
        """The value with its interval; None without one."""
        return self.figures.get((metric, stat))

    def tail(self, metric: str) -> tuple[Metric | None, bool]:
        """The P99 of a metric, and False; with too few values for one, the largest value, and True."""
        p99 = self.figures.get((metric, "p99"))
        if p99 is None or p99.n >= stats.P99_NEEDS:
            return p99, False
        return self.figures.get((metric, "max")), True

    def named(self, prefix: str) -> PointMetrics:
        """The figures whose metric begins with `prefix`, without it."""
        return PointMetrics(
            {
                (name.removeprefix(prefix), stat): replace(figure, metric=name.removeprefix(prefix))
                for (name, stat), figure in self.figures.items()
                if name.startswith(prefix)
            }
        )

    @property
    def steady(self) -> PointMetrics | None:
        """The figures of the steady state; None if there is none."""
        found = self.named(STEADY)
        return found if found.figures else None

    @property
    def shown(self) -> PointMetrics:
        """Figures for tables: of the steady state where there is one, else of the whole point."""
        steady = self.steady
        if steady is None:
            return self
        kept = {
            key: figure
            for key, figure in self.figures.items()
            if not key[0].startswith(STEADY) and not key[0].endswith(ONLY_STEADY)
        }
        counts = ("requests", "duration")
        return PointMetrics(kept | {k: f for k, f in steady.figures.items() if k[0] not in counts}, True)

    def without(self, prefix: str) -> PointMetrics:
        """The other figures."""
        return PointMetrics({key: figure for key, figure in self.figures.items() if not key[0].startswith(prefix)})

    def as_json(self) -> dict[str, dict[str, Any]]:
        """By metric: unit, n, each statistic by its name, and `ci95` with the intervals."""
        document: dict[str, dict[str, Any]] = {}
        for figure in self.figures.values():
            entry = document.setdefault(figure.metric, {"unit": figure.unit})
            entry[figure.stat] = figure.value
            entry["n"] = figure.n
            if figure.low is not None or figure.high is not None:
                entry.setdefault("ci95", {})[figure.stat] = [figure.low, figure.high]
        return document

    def summary_rows(self, point: dict[str, Any]) -> list[dict[str, Any]]:
        """Rows of summary.parquet; `point` holds the columns that say which point it is."""
        return [
            {**point, "metric": m.metric, "stat": m.stat, "value": m.value, "ci_low": m.low, "ci_high": m.high,
             "n": m.n, "unit": m.unit}
            for m in self.figures.values()
        ]  # fmt: skip


class Figures:
    """Figures by (metric, stat), while they are computed."""

    def __init__(self, parallel: int, first: int | None = None) -> None:
        """`parallel`: requests in flight together, which are not independent; `first`: how many of the first
        values are of the start, and unlike the others; None: one for each in flight."""
        self.parallel = parallel
        self.first = parallel if first is None else first
        self.by_stat: dict[tuple[str, str], Metric] = {}

    def put(self, metric: str, stat: str, estimate: stats.Estimate | float | None, n: int, unit: str) -> None:
        """Add a figure; None adds nothing."""
        if estimate is None:
            return
        if not isinstance(estimate, stats.Estimate):
            estimate = stats.Estimate(float(estimate), None, None)
        self.by_stat[metric, stat] = Metric(metric, stat, estimate.value, estimate.low, estimate.high, n, unit)

    def mean(self, values: Floats) -> stats.Estimate:
        """The mean of values of requests in order of start."""
        return mean_of_run(values, self.parallel, self.first)

    def put_requests(self, metric: str, values: Floats) -> None:
        """Add mean, percentiles and maximum of durations of requests in order of start, with intervals."""
        if len(values):
            self.put(metric, "mean", self.mean(values), len(values), "ms")
            for q in PERCENTILES:
                self.put(
                    metric, f"p{q}", percentile_of_run(values, q, self.parallel, self.first), len(values), "ms"
                )
            self.put(metric, "max", float(values.max()), len(values), "ms")

    def put_events(self, metric: str, values: stats.Distribution, unit: str = "ms") -> None:
        """The same of events, without intervals: events of a request, and of requests in the same batch of the
        server, are far from independent."""
        if values.n:
            self.put(metric, "mean", values.mean(), values.n, unit)
            for q in PERCENTILES:
                self.put(metric, f"p{q}", values.percentile(q), values.n, unit)
            self.put(metric, "max", values.max, values.n, unit)
