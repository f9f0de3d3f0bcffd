"""Intervals of a load run's figures: against scipy where requests are independent, by simulation where not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as reference

from oss_eval.analysis.run_interval import enough_for_rate, mean_of_run, percentile_of_run, rate_of_run


def test_fewer_than_four_requests_a_slot_have_no_interval() -> None:
    values = np.arange(31.0)
    assert mean_of_run(values, 8) == (15.0, None, None)
    assert percentile_of_run(values, 50, 8) == (15.0, None, None)
    assert mean_of_run(np.append(values, 31.0), 8).low is not None
    assert not enough_for_rate(31, 8)
    assert enough_for_rate(32, 8)
    assert not enough_for_rate(19, 1)


def test_independent_requests_are_covered_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    hits = {"mean": 0, 50: 0, 90: 0}
    for _ in range(600):
        values = rng.standard_normal(200)
        found = mean_of_run(values, 1)
        hits["mean"] += found.low <= 0 <= found.high  # type: ignore[operator]
        for q in (50, 90):
            found = percentile_of_run(values, q, 1)
            hits[q] += found.low <= reference.norm.ppf(q / 100) <= found.high  # type: ignore[operator]
    assert all(0.92 <= count / 600 <= 1.0 for count in hits.values()), hits


def test_requests_that_share_a_wave_are_not_taken_for_independent() -> None:
    rng = np.random.default_rng(9)
    hits = naive = 0
    for _ in range(400):
        values = 100 + np.repeat(rng.normal(0, 5, 20), 16) + rng.normal(0, 1, 320)
        found = mean_of_run(values, 16)
        hits += found.low <= 100 <= found.high  # type: ignore[operator]
        half = 1.96 * values.std() / np.sqrt(320)
        naive += abs(values.mean() - 100) <= half
    assert hits / 400 >= 0.90
    assert naive / 400 < 0.60


def test_a_percentile_has_scipys_interval_where_batches_are_alike() -> None:
    values = np.concatenate([[200.5], np.arange(400).reshape(40, 10).T.ravel().astype(float)])
    for q in (50, 90):
        found = percentile_of_run(values, q, 1)
        theirs = reference.quantile_test(values, q=0, p=q / 100).confidence_interval(0.95)
        assert found.value == np.percentile(values, q)
        assert (found.low, found.high) == (theirs.low, theirs.high)


def test_what_the_first_wave_alone_decides_has_no_interval() -> None:
    values = np.concatenate([np.full(16, 900.0) + np.arange(16), np.random.default_rng(1).normal(30, 2, 144)])
    assert percentile_of_run(values, 99, 16)[1:] == (None, None)
    assert percentile_of_run(values, 50, 16).low is not None


def test_a_rate_is_students_t_over_slices() -> None:
    amounts = np.array([10.0, 12, 11, 9, 10, 13, 12, 11, 10, 12])
    found = rate_of_run(amounts, 5.0)
    low, high = reference.t.interval(0.95, 9, loc=22.0, scale=reference.sem(amounts / 0.5))
    assert found == pytest.approx((22.0, low, high))
