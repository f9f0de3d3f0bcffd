"""Conditions on figures and on differences, for CI: established, refuted, or undecided."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from oss_eval.analysis.compare import MetricDifference
from oss_eval.analysis.figures import Metric, PointMetrics
from oss_eval.errors import UsageError

HOLDS, REFUTED, UNDECIDED = "established", "refuted", "undecided"
UNDECIDED_EXIT = 3
_FORM = re.compile(
    r"\s*([a-z][a-z0-9_]*?)(?:_(mean|p50|p90|p95|p99|max))?\s*(<=|>=|<|>)\s*([+-]?[0-9.]+)\s*(%|ms|s)?\s*"
)
NAMES = {
    "success": "success_rate", "tps": "output_tps", "price": "price_per_mtok", "tokens": "completion_tokens",
}  # fmt: skip
"""Short names of metrics."""
SEARCHED = ("max_parallel", "max_rate")
"""Answers of `perf --find`."""
FIGURES = {
    "perf": (
        "ttft_ms", "ttfa_ms", "tpot_ms", "itl_ms", "latency_ms", "reasoning_ms", "rps", "output_tps",
        "plateau_output_tps", "success_rate", "failures", "truncated", "completion_tokens", "prompt_tokens",
        "reasoning_tokens", "price_per_mtok", "energy_per_token_j", "scheduled_latency_ms", "dispatch_delay_ms",
        "achieved_rate", "goodput", "attainment", *SEARCHED,
    ),
    "bench": (
        "score", "truncated", "failed", "unscored", "tokens", "reasoning_tokens", "answer_tokens", "cost",
        "ttft_ms", "ttfa_ms", "tpot_ms", "latency_ms", "output_tps",
    ),
}  # fmt: skip
"""Metrics that `--assert` knows."""
COUNTS = ("failures", "failed", "unscored")
"""Figures that are known exactly."""
LIMITED = ("ttft", "ttfa", "tpot", "latency")
"""Durations that a service level limits."""
SHARES = ("score", "success_rate", "attainment", "truncated")
"""Here % means percentage points."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A figure, or a difference, and what it has to be."""

    text: str
    metric: str
    """As it was typed, without the statistic."""
    stat: str | None
    operator: str
    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class ConditionResult:
    """What became of a condition at one point."""

    condition: Condition
    where: str
    state: str
    """`established`, `refuted` or `undecided`, at 95%."""
    value: float
    low: float | None
    high: float | None
    unit: str


def parse(text: str, flag: str) -> Condition:
    """A condition such as `score < -0.02`, `ttft_p99 > +10%`, `ttft_p99<2s`, `success>99%`. Raises UsageError."""
    found = _FORM.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        metric, stat, operator, value, unit = found.groups()
        return Condition(text.strip(), metric, stat, operator, float(value), unit or "")
    except ValueError:
        raise UsageError(
            f"{flag} {text!r} is no condition",
            f"METRIC < VALUE or METRIC > VALUE, for example: {flag} 'ttft_p99 < 2s'",
        ) from None


def limit(text: str) -> tuple[str, float]:
    """A limit of a request's duration such as `ttft<2s`: its name and ms. Raises UsageError."""
    condition = parse(text, "--slo")
    if condition.metric not in LIMITED or condition.operator[0] != "<" or condition.unit not in ("s", "ms"):
        raise UsageError(
            f"--slo {text!r} is no limit", f"one of {', '.join(LIMITED)}, for example: --slo 'ttft<2s'"
        )
    return condition.metric, in_ms(condition)


def in_ms(condition: Condition) -> float:
    """The value of a condition on a duration, in ms. Raises UsageError."""
    return condition.value * _factor(condition, condition.metric, "ms")


def known(condition: Condition, kind: str, flag: str = "--assert") -> Condition:
    """The condition, if a run of this kind (`perf` or `bench`) can have such a figure. Raises UsageError."""
    if not any(_is(condition, metric) for metric in FIGURES[kind]):
        listed = ", ".join(_short(metric) for metric in FIGURES[kind])
        raise UsageError(
            f"{flag} {condition.text!r}: there is no figure {condition.metric!r}", f"there are: {listed}"
        )
    return condition


def on_points(condition: Condition, points: Iterable[tuple[str, PointMetrics]]) -> list[ConditionResult]:
    """The condition at each point, given with its title, by the figure's own interval. Raises UsageError where no
    point has the figure."""
    points = list(points)
    outcomes = []
    for where, metrics in points:
        found = figure(condition, metrics)
        if found is None:
            continue
        value = condition.value * _factor(condition, found.metric, found.unit)
        low, high = (found.value,) * 2 if found.metric in COUNTS else (found.low, found.high)
        state = _state(condition, value, low, high)
        outcomes.append(ConditionResult(condition, where, state, found.value, low, high, found.unit))
    if not outcomes:
        names = sorted({_short(name) for _, metrics in points for name, _ in metrics.figures})
        raise UsageError(f"no point has a figure {condition.metric!r}", f"there are: {', '.join(names)}")
    return outcomes


def on_search(condition: Condition, search: dict[str, Any] | None) -> list[ConditionResult] | None:
    """A condition on the answer of `perf --find`, whose manifest entry is `search`; None for one on other figures.
    Raises UsageError where the run has no such answer."""
    if condition.metric not in SEARCHED:
        return None
    if search is None or search.get("what", "").replace("-", "_") != condition.metric or not search.get("levels"):
        raise UsageError(
            f"--assert {condition.text!r}: the run has searched for no {condition.metric}",
            f"add --find {condition.metric.replace('_', '-')} and --slo",
        )
    low, high, value = search.get("low"), search.get("high"), search.get("value")
    state = _state(condition, condition.value, low, high)
    return [ConditionResult(condition, "search", state, value or 0.0, low, high, "")]


def on_differences(
    condition: Condition, differences: Iterable[tuple[str, MetricDifference]]
) -> list[ConditionResult]:
    """The condition on B minus A, in the figure's unit, or with % of A (shares: percentage points). Raises
    UsageError where nothing compared has the figure."""
    differences = list(differences)
    outcomes = []
    for where, found in differences:
        if not _named(condition, found.metric, found.stat, ("score", "truncated")):
            continue
        difference, unit, scale = found.difference, found.unit, 1.0
        if condition.unit == "%" and found.metric not in SHARES:
            if found.ratio is not None:
                difference = found.ratio
            elif found.a:
                scale = 1 / abs(found.a)
            unit, value = "%", condition.value / 100
        else:
            value = condition.value * _factor(condition, found.metric, found.unit)
        low, high = (None if end is None else end * scale for end in (difference.low, difference.high))
        outcomes.append(
            ConditionResult(
                condition, where, _state(condition, value, low, high), difference.value * scale, low, high, unit
            )
        )
    if not outcomes:
        names = sorted(
            {f"{_short(d.metric)}_{d.stat}" if d.stat[0] == "p" else _short(d.metric) for _, d in differences}
        )
        raise UsageError(f"nothing compared has a figure {condition.metric!r}", f"there are: {', '.join(names)}")
    return outcomes


def exit_code(failing: Iterable[ConditionResult], required: Iterable[ConditionResult]) -> int:
    """0: nothing that fails is established and all that is required is; 1: otherwise; 3: something required is
    undecided."""
    required = list(required)
    if any(o.state == HOLDS for o in failing) or any(o.state == REFUTED for o in required):
        return 1
    return UNDECIDED_EXIT if any(o.state == UNDECIDED for o in required) else 0


def _state(condition: Condition, value: float, low: float | None, high: float | None) -> str:
    """Established where the whole interval fulfils the condition, refuted where none of it does."""
    upward = condition.operator[0] == ">"
    if low is not None and (low >= value if condition.operator == ">=" else low > value):
        return HOLDS if upward else REFUTED
    if high is not None and (high <= value if condition.operator == "<=" else high < value):
        return REFUTED if upward else HOLDS
    # An interval that ends at the value fulfils >= and <=; what lies on the other side refutes them.
    return UNDECIDED


def _short(metric: str) -> str:
    return metric.removesuffix("_ms")


def _is(condition: Condition, metric: str) -> bool:
    """Whether the condition's name is this metric's, its short one, or without `_ms`."""
    return condition.metric in (metric, _short(metric)) or NAMES.get(condition.metric) == metric


def _named(condition: Condition, metric: str, stat: str, plain: tuple[str, ...]) -> bool:
    if not _is(condition, metric):
        return False
    if condition.stat is None:
        return stat in ("mean", "value") or metric in plain
    return stat == condition.stat


def figure(condition: Condition, metrics: PointMetrics) -> Metric | None:
    """The figure that a condition is about; None where a point has none."""
    for (metric, stat), found in metrics.figures.items():
        if metric == "score" and condition.metric == "score" and condition.stat is None:
            on_these = metrics.metric("score", "on_these")
            if stat.startswith("avg@"):
                return on_these or found
        elif _named(condition, metric, stat, ()):
            return metrics.tail(metric)[0] if stat == "p99" and metrics.tail(metric)[1] else found
    return None


def _factor(condition: Condition, metric: str, unit: str) -> float:
    """From the condition's unit to the figure's. Raises UsageError for one that does not fit."""
    if unit == "ms":
        if condition.unit not in ("s", "ms"):
            raise UsageError(f"{condition.text!r} has no unit of time", "write for example 2s or 2000ms")
        return 1000.0 if condition.unit == "s" else 1.0
    if condition.unit == "%":
        if metric not in SHARES:
            raise UsageError(f"{condition.text!r}: {condition.metric} is no share", "leave the % out")
        return 0.01
    if condition.unit and condition.unit != unit:
        raise UsageError(
            f"{condition.text!r}: {condition.metric} is not in {condition.unit}", "leave the unit out"
        )
    return 1.0
