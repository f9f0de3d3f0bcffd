"""Comparison of two runs: differences with intervals and p-values, and conditions that differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from oss_eval.analysis import stats
from oss_eval.analysis.metrics import Metric, PointMetrics
from oss_eval.analysis.stats import Difference, Estimate

LOWER, HIGHER = "lower", "higher"
PERF_METRICS = (
    ("plateau_output_tps", "value", HIGHER),
    ("output_tps", "value", HIGHER),
    ("rps", "value", HIGHER),
    ("ttft_ms", "mean", LOWER),
    ("ttft_ms", "p50", LOWER),
    ("ttft_ms", "p99", LOWER),
    ("ttfa_ms", "mean", LOWER),
    ("tpot_ms", "mean", LOWER),
    ("tpot_ms", "p99", LOWER),
    ("latency_ms", "mean", LOWER),
    ("latency_ms", "p50", LOWER),
    ("latency_ms", "p99", LOWER),
    ("success_rate", "value", HIGHER),
    ("completion_tokens", "mean", ""),
)
"""(metric, statistic, which is better)."""
PAIRED = (
    ("score", HIGHER),
    ("truncated", LOWER),
    ("completion_tokens", LOWER),
    ("ttft_ms", LOWER),
    ("latency_ms", LOWER),
)
"""(sample column, which is better)."""


@dataclass(frozen=True, slots=True)
class MetricDifference:
    """The difference of one metric, B minus A."""

    where: str
    metric: str
    stat: str
    a: float
    b: float
    difference: Difference
    better: str
    """`higher`, `lower`, or empty for a metric that is neither good nor bad."""
    paired: bool
    unit: str = ""

    @property
    def verdict(self) -> str:
        """`better`, `worse`, `different` or `can't tell`, for B, at the 5% level; `no interval` without one."""
        if self.difference.p is None:
            return "no interval"
        if self.difference.p >= 1 - stats.CONFIDENCE or self.difference.value == 0:
            return "can't tell"
        if not self.better:
            return "different"
        return "better" if (self.difference.value > 0) == (self.better == HIGHER) else "worse"


def sweeps(where: str, a: PointMetrics, b: PointMetrics) -> list[MetricDifference]:
    """Figures of one point of two load sweeps, as independent samples (see `stats.between`)."""
    found = []
    for metric, stat, better in PERF_METRICS:
        one, two = a.metric(metric, stat), b.metric(metric, stat)
        if one is None or two is None or (stat == "p99" and (a.tail(metric)[1] or b.tail(metric)[1])):
            continue
        difference = stats.between(_estimate(one), _estimate(two)) or _bare(one.value, two.value)
        found.append(
            MetricDifference(where, metric, stat, one.value, two.value, difference, better, False, one.unit)
        )
    return found


def _estimate(metric: Metric) -> Estimate:
    return Estimate(metric.value, metric.low, metric.high)


def _bare(a: float, b: float) -> Difference:
    return Difference(b - a, None, None, None, 0)


def benchmarks(where: str, a: pa.Table, b: pa.Table, same_order: bool = True) -> list[MetricDifference]:
    """Figures of one task and effort in two benchmark runs, paired by problem (see `stats.paired`).

    Tables of samples of one point each, with the columns of PAIRED. Problems are told by their place in the
    benchmark; where that is not the same in both (not `same_order`), by their prompts.
    """
    found = []
    for column, better in PAIRED:
        one, two = _by_problem(a, column, same_order), _by_problem(b, column, same_order)
        common = [key for key in one if key in two]
        if not common:
            continue
        before, after = [one[key] for key in common], [two[key] for key in common]
        shares = column == "truncated" or (
            column == "score" and 0 <= min(*before, *after, 0) <= max(*before, *after) <= 1
        )
        difference = stats.paired(
            [y - x for x, y in zip(before, after, strict=True)], 1.0 if shares else float("inf")
        )
        unit = "ms" if column.endswith("_ms") else "tokens" if column.endswith("tokens") else ""
        mean_a, mean_b = sum(before) / len(before), sum(after) / len(after)
        found.append(MetricDifference(where, column, "mean", mean_a, mean_b, difference, better, True, unit))
    return found


def _by_problem(samples: pa.Table, column: str, by_place: bool) -> dict[tuple[str, str], float]:
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    name = "sample_id" if by_place else "prompt"
    for row in samples.select(["subset", name, column]).to_pylist():
        if row[column] is not None:
            values[row["subset"], row[name]].append(float(row[column]))
    return {key: sum(found) / len(found) for key, found in values.items()}


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A condition in which two runs differ."""

    kind: str
    """`host`, `workload` or `instrument`."""
    name: str
    a: str
    b: str


_HOST = ("host", "cpu", "cores", "system", "python")
_WORKLOAD = (
    "max_tokens",
    "min_tokens",
    "temperature",
    "top_p",
    "stream",
    "dataset",
    "prompt",
    "min_prompt_length",
    "max_prompt_length",
    "prefix_length",
    "extra_args",
    "effort_style",
    "split_think",
)
_BENCH = (
    "samples_hash",
    "repeats",
    "limit",
    "prompt",
    "system_prompt",
    "scorer",
    "max_tokens",
    "temperature",
    "top_p",
)


def mismatches(a: dict[str, Any], b: dict[str, Any]) -> list[Mismatch]:
    """Conditions that differ between two manifests, apart from model and endpoint."""
    found: list[Mismatch] = []

    def look(kind: str, name: str, one: Any, two: Any) -> None:
        if one != two:
            found.append(Mismatch(kind, name, _said(one), _said(two)))

    for name in _HOST:
        look("host", name, *(m.get("environment", {}).get(name) for m in (a, b)))
    packages = [m.get("environment", {}).get("packages", {}) for m in (a, b)]
    look("instrument", "oss-eval", *(found.get("oss-eval") for found in packages))
    look("instrument", "clock", *(m.get("clock_source") for m in (a, b)))
    look("instrument", "workers", *(sorted({p.get("workers") or 0 for p in m.get("points", [])}) for m in (a, b)))
    look("instrument", "simulated", *(bool((m.get("endpoint") or {}).get("simulated")) for m in (a, b)))
    if "tasks" in a and "tasks" in b:
        for task in [name for name in a["tasks"] if name in b["tasks"]]:
            for name in _BENCH:
                look("workload", f"{task} {name}", a["tasks"][task].get(name), b["tasks"][task].get(name))
        look("workload", "in flight", *((m.get("parallel") or {}).get("asked") for m in (a, b)))
    else:
        tasks = [m.get("task") or {} for m in (a, b)]
        for name in _WORKLOAD:
            look("workload", name, *(task.get(name) for task in tasks))
    return found


def _said(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(str, value))
    return str(value)[:80]
