"""Repeats of a point put together: by hand-made figures."""

from __future__ import annotations

import pytest
from scipy import stats

from oss_eval.analysis.figures import Metric, PointMetrics
from oss_eval.analysis.repeats import first_against_others, merged


def point(latency: float, n: int = 40, failures: int = 0, worst: float = 900.0) -> PointMetrics:
    figures = [
        Metric("latency_ms", "mean", latency, latency - 1, latency + 1, n, "ms"),
        Metric("latency_ms", "p99", 2 * latency, None, None, n, "ms"),
        Metric("latency_ms", "max", worst, None, None, n, "ms"),
        Metric("requests", "value", n, None, None, n, ""),
        Metric("success_rate", "value", 1 - failures / n, None, None, n, ""),
    ]
    return PointMetrics({(m.metric, m.stat): m for m in figures})


def test_figures_over_repeats() -> None:
    found = merged([point(100, failures=1), point(110, 60), point(120, worst=1200.0)])
    mean = found.figures["latency_ms", "mean"]
    low, high = stats.t.interval(0.95, 2, loc=110, scale=stats.sem([100, 110, 120]))
    assert (mean.value, mean.low, mean.high, mean.n) == (110, pytest.approx(low), pytest.approx(high), 140)
    assert found.figures["latency_ms", "p99"].n == 40  # of the repeat with the fewest
    assert found.figures["latency_ms", "max"].value == 1200
    assert found.get("requests") == 140
    share = found.figures["success_rate", "value"]
    expected = stats.binomtest(139, 140).proportion_ci(0.95, method="wilson")
    assert (share.value, share.low, share.high) == pytest.approx((139 / 140, expected.low, expected.high))
    alone = merged([point(100)]).figures["latency_ms", "mean"]
    assert (alone.low, alone.high) == (None, None)


def test_a_first_repeat_that_is_unlike_the_others_is_seen() -> None:
    assert first_against_others([point(100), point(105), point(95)]) is None
    assert first_against_others([point(172), point(100), point(100)]) == pytest.approx(1.72)
    assert first_against_others([point(60), point(100)]) == pytest.approx(0.6)
    assert first_against_others([point(100)]) is None
