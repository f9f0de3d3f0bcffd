"""Scores' intervals and differences against brute force, exhaustive search and statsmodels."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference
from scipy.optimize import minimize_scalar
from scipy.special import xlog1py, xlogy
from statsmodels.stats.contingency_tables import StratifiedTable, mcnemar

from oss_eval.analysis import scores
from oss_eval.analysis.score_interval import score_intervals
from oss_eval.analysis.stratified import interval, p_value, score_difference, strata

EASY = [8] * 24 + [7, 7, 7, 7, 4, 1]
HARD = [0] * 10 + [1, 2, 0, 8, 3, 0]


@pytest.mark.parametrize("right", [EASY, HARD, [4, 5, 3, 4, 6]])
def test_both_intervals_are_those_of_the_model(right: list[int]) -> None:
    found = score_intervals(right, 8)
    u, c = np.meshgrid((np.arange(1500) + 0.5) / 1500, np.geomspace(0.02, 3000, 200), indexing="ij")
    m = np.sin(np.pi / 2 * u) ** 2  # Jeffreys' prior is uniform in u
    log = sum(reference.betabinom.logpmf(k, 8, m * c, (1 - m) * c) for k in right)
    like = np.exp(log - log.max()) * c**-0.5  # points are even in log c
    order, weights = m[:, 0], like.sum(axis=1).cumsum() / like.sum()
    model = [order[np.searchsorted(weights, q)] for q in (0.025, 0.975)]
    wider = scores.clustered(np.array(right) / 8, 8 * len(right))
    expected = (min(model[0], wider.low or 0), max(model[1], wider.high or 1))
    assert found.like[0] == pytest.approx(expected, abs=4e-3)

    rng = np.random.default_rng(1)
    these = (np.exp(log - log.max()) * c).ravel()
    drawn = rng.choice(these.size, 20_000, p=these / these.sum())
    a, b = (m * c).ravel()[drawn, None], ((1 - m) * c).ravel()[drawn, None]
    means = rng.beta(a + np.array(right), b + 8 - np.array(right)).mean(axis=1)
    assert found.these[0] == pytest.approx(np.quantile(means, [0.022, 0.978]), abs=6e-3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=40))
def test_intervals_hold_the_score_and_stay_in_bounds(problems: list[tuple[int, int]]) -> None:
    right, answers = (np.array(side) for side in zip(*[(min(k, n), n) for k, n in problems], strict=True))
    found = score_intervals(right, answers)
    value = (right / answers).mean()
    for low, high in (found.like[0], found.these[0]):
        assert 0 <= low <= value <= high <= 1
        assert low < high
    turned = score_intervals(answers - right, answers)
    assert 1 - turned.like[0][::-1] == pytest.approx(found.like[0], abs=1e-6)
    assert 1 - turned.these[0][::-1] == pytest.approx(found.these[0], abs=1e-6)


def test_many_runs_at_once_are_as_one_by_one() -> None:
    runs = np.random.default_rng(2).binomial(8, 0.8, (70, 30))
    together = score_intervals(runs, 8)
    for place in (0, 69):
        alone = score_intervals(runs[place], 8)
        assert together.like[place] == pytest.approx(alone.like[0], abs=1e-3)
        assert together.these[place] == pytest.approx(alone.these[0], abs=1e-3)


def test_the_more_problems_or_answers_the_narrower() -> None:
    def widths(problems: int, answers: int) -> tuple[float, float]:
        right = np.random.default_rng(4).binomial(answers, np.linspace(0.5, 1, problems))
        return tuple(float(ends[0, 1] - ends[0, 0]) for ends in score_intervals(right, answers)[:2])  # type: ignore

    like, these = widths(30, 4)
    assert all(wider > narrower for wider, narrower in zip((like, these), widths(120, 4), strict=True))
    more_like, more_these = widths(30, 64)
    assert more_these < these / 2
    assert more_like > 0.6 * like  # other problems are as unknown as before


def test_scores_in_part_and_points() -> None:
    found = scores.mean_score([[0.5, 0.7], [0.2, 0.4], [0.9, 0.9]])
    pooled = (2 * 0.02 + 0) / 3
    half = reference.t.ppf(0.975, 3) * np.sqrt(pooled * 3 / 2) / 3
    assert found.these_high == pytest.approx(0.6 + half)
    assert scores.mean_score([[0.5], [0.25]])[-2:] == (None, None)
    assert scores.mean_score([[3.0, 7.0], [8.0, 8.0]]).these_high > 8
    alone = scores.mean_score([[1.0, 0.0]])
    assert (alone.low, alone.high) == (None, None)
    assert alone.these_low < 0.5 < alone.these_high  # type: ignore[operator]


@pytest.mark.parametrize(("right", "answers"), [(0, 5), (1, 5), (3, 7), (7, 7)])
def test_pass_hat_k_by_exhaustive_search(right: int, answers: int) -> None:
    votes = [True] * right + [False] * (answers - right)
    for k in range(1, answers + 1):
        draws = list(combinations(votes, k))
        assert scores.pass_hat_k(right, answers, k) == pytest.approx(sum(map(all, draws)) / len(draws))
    assert scores.pass_hat_k(right, answers, answers + 1) is None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["right", "right too", "wrong", "other", None]), min_size=1, max_size=8))
def test_majorities_by_exhaustive_search(answers: list[str | None]) -> None:
    votes = [(answer, (answer or "").startswith("right")) for answer in answers]
    found = scores.majority_at(votes)
    for j in range(1, len(votes) + 1):
        draws = [scores.majority(draw) for draw in combinations(votes, j)]
        assert found[j - 1] == pytest.approx(sum(draws) / len(draws))


def test_a_mean_of_answers_has_the_clustered_error_of_statsmodels() -> None:
    rng = np.random.default_rng(6)
    values = [list(rng.normal(rng.normal(0, 2), 1, rng.integers(1, 6))) for _ in range(25)]
    found = scores.mean_of_answers(values)
    assert found is not None
    flat = np.concatenate(values)
    groups = np.repeat(np.arange(25), [len(v) for v in values])
    fit = sm.OLS(flat, np.ones(len(flat))).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": True}
    )
    # statsmodels corrects for the number of parameters too: (n - 1) / (n - 1) with one.
    assert found.high - found.value == pytest.approx(reference.t.ppf(0.975, 24) * fit.bse[0])  # type: ignore[operator]


# -- differences ------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=2, max_size=30))
def test_the_p_value_is_cochran_mantel_haenszels(problems: list[tuple[int, int]]) -> None:
    a, b = zip(*problems, strict=True)
    found = p_value(strata(a, 8, b, 8))
    tables = [[[x, 8 - x], [y, 8 - y]] for x, y in problems if 0 < x + y < 16]
    if not tables or sum(a) == sum(b):
        assert found == pytest.approx(1.0)
        return
    theirs = StratifiedTable([np.array(table) for table in tables]).test_null_odds(correction=False)
    assert found == pytest.approx(theirs.pvalue, rel=1e-6)


def test_with_one_answer_each_it_is_mcnemars() -> None:
    a, b = [1] * 12 + [0] * 5 + [1] * 9 + [0] * 2, [1] * 12 + [0] * 5 + [0] * 9 + [1] * 2
    theirs = mcnemar([[12, 9], [2, 5]], exact=False, correction=False)
    assert p_value(strata(a, 1, b, 1)) == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize(("a", "n", "b", "m"), [(56, 70, 48, 80), (9, 10, 3, 10), (0, 20, 0, 30), (10, 10, 0, 20)])
def test_of_one_problem_it_is_miettinen_and_nurminens_interval(a: int, n: int, b: int, m: int) -> None:
    def excess(difference: float) -> float:
        """|Z| - 1.96 with the most likely probabilities found by search."""
        low, high = max(0.0, -difference), min(1.0, 1 - difference)

        def unlikely(p: float) -> float:
            return -float(
                xlogy(a, p) + xlog1py(n - a, -p) + xlogy(b, p + difference) + xlog1py(m - b, -p - difference)
            )

        p = minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
        p = min((p, low, high), key=unlikely)
        q = p + difference
        variance = (p * (1 - p) / n + q * (1 - q) / m) * (n + m) / (n + m - 1)
        return abs(b / m - a / n - difference) / np.sqrt(max(variance, 1e-15)) - 1.959963984540054

    found = interval(strata([a], n, [b], m))
    for end in found:
        if -1 < end < 1:
            assert excess(end) == pytest.approx(0, abs=2e-4)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 5), st.integers(1, 5)] * 2), min_size=1, max_size=25))
def test_interval_and_p_value_never_disagree(problems: list[tuple[int, int, int, int]]) -> None:
    data = strata(*zip(*[(min(a, n), n, min(b, m), m) for a, n, b, m in problems], strict=True))
    low, high = interval(data)
    assert -1 <= low <= data.difference + 1e-9
    assert data.difference - 1e-9 <= high <= 1
    assert high - low > 0.01
    p = p_value(data)
    if abs(p - 0.05) > 1e-6:
        assert (p < 0.05) == (low > 0 or high < 0)
    turned = strata(data.right_b, data.answers_b, data.right_a, data.answers_a)
    assert interval(turned) == pytest.approx((-high, -low), abs=1e-6)


def test_a_model_against_itself_has_an_interval() -> None:
    low, high = interval(strata([8] * 30, 8, [8] * 30, 8))
    assert (low, high) == pytest.approx((-0.0168, 0.0168), abs=1e-4)
    found = score_difference([[1.0, 1.0]] * 5, [[1.0, 1.0]] * 5)
    assert found.p == 1
    assert found.like_low == found.low < 0 < found.high == found.like_high  # type: ignore[operator]


def test_few_false_alarms_and_the_power_to_see_a_drop() -> None:
    rng = np.random.default_rng(8)
    alarms = seen = 0
    for _ in range(400):
        chances = rng.beta(0.9375, 0.0625, 30)
        odds = chances / (1 - np.minimum(chances, 1 - 1e-12))
        lower = odds * np.exp(-1.94) / (1 + odds * np.exp(-1.94))  # 0.073 lower in the mean
        a, b, c = (rng.binomial(8, p) for p in (chances, chances, lower))
        alarms += p_value(strata(a, 8, b, 8)) < 0.05
        seen += p_value(strata(a, 8, c, 8)) < 0.05
    assert alarms / 400 < 0.075
    assert seen / 400 > 0.88


def test_points_are_compared_by_students_t() -> None:
    a, b = [[3.0, 4.0], [7.0], [8.0], [4.0]], [[5.0], [7.5], [9.0], [4.0, 5.0]]
    theirs = reference.ttest_rel([5.0, 7.5, 9.0, 4.5], [3.5, 7.0, 8.0, 4.0])
    found = score_difference(a, b)
    assert found.p == pytest.approx(theirs.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))
