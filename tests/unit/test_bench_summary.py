"""Scores and their errors, against worked examples, exhaustive search and statsmodels."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from oss_eval.analysis import scores, stats
from oss_eval.analysis.bench_summary import OVERALL, Group, busy_seconds, comparisons, groups, summary_rows
from oss_eval.records import SampleRecord
from oss_eval.results.tables import samples_table

RIGHT_OF_EIGHT = [1, 4, 7, 7, 7, 7, *[8] * 24]
"""AIME 2025's size: 30 problems, 8 answers each."""


def sample(problem: int, epoch: int, score: float | None, **changes: object) -> SampleRecord:
    values: dict[str, object] = {
        "run_id": "r", "point_id": "00-t", "request_id": f"{problem}/{epoch}", "task": "t", "subset": "default",
        "sample_id": str(problem), "epoch": epoch, "reasoning_effort": None, "model": "m", "prompt": "[]",
        "target": "1", "answer": "1" if score else "0", "score": score,
        "correct": None if score is None else score == 1.0, "truncated": False, "attempts": 1, "turns": 1,
        "completion_tokens": 100 + problem, "reasoning_tokens": 60, "ttft_ms": 10.0, "latency_ms": 100.0,
        "start_ns": 10**9 * epoch, "end_ns": 10**9 * epoch + 5 * 10**8,
    }  # fmt: skip
    return SampleRecord(**{**values, **changes})  # type: ignore[arg-type]


def only(records: list[SampleRecord]) -> Group:
    [group] = groups(samples_table(records))
    return group


def test_the_worked_example() -> None:
    group = only([sample(p, e, float(e <= right)) for p, right in enumerate(RIGHT_OF_EIGHT) for e in range(1, 9)])
    assert group.score is not None
    assert group.score.value == 0.9375
    assert round(group.score.se or 0, 4) == 0.0332
    assert group.pass_at[8].value == 1.0
    assert group.pass_at[1].value == pytest.approx(0.9375)
    assert (group.problems, group.epochs, group.samples, group.scored) == (30, 8, 240, 240)
    assert group.subset == OVERALL
    assert (group.score.low, group.score.high) == pytest.approx((0.8246, 0.9784), abs=1e-3)
    assert (group.score.these_low, group.score.these_high) == pytest.approx((0.9114, 0.9604), abs=1e-3)
    assert group.pass_hat[8].value == pytest.approx(24 / 30)
    assert group.majority is not None
    assert group.majority_at[7].value == pytest.approx(28.5 / 30, abs=0.05)
    stored = {(r["metric"], r["stat"]): r for r in summary_rows({"run_id": "r", "model": "m"}, [group])}
    assert stored["score", "on_these"]["ci_low"] == group.score.these_low
    assert {("score", "pass^8"), ("score", "maj@7"), ("score", "maj@8")} <= set(stored)


def test_the_clustered_error_is_that_of_statsmodels() -> None:
    rng = np.random.default_rng(5)
    chances = rng.beta(0.5, 0.5, size=40)
    answers = (rng.random((40, 6)) < chances[:, None]).astype(float)
    found = scores.clustered(answers.mean(axis=1), answers.size)
    fit = sm.OLS(answers.ravel(), np.ones(answers.size)).fit(
        cov_type="cluster", cov_kwds={"groups": np.repeat(np.arange(40), 6), "use_correction": True}
    )
    assert found.value == pytest.approx(fit.params[0])
    assert found.se == pytest.approx(fit.bse[0], rel=1e-9)
    assert found.se == pytest.approx(scipy_stats.sem(answers.mean(axis=1)))


def test_intervals_at_the_ends() -> None:
    perfect = scores.clustered([1.0] * 30, 240)
    assert perfect.high == 1.0
    assert perfect.low is not None
    assert 0.85 < perfect.low < 0.9  # 30 problems, however often each was asked
    assert scores.clustered([0.0] * 30, 240).low == pytest.approx(0.0, abs=1e-12)
    alone = scores.clustered([0.5], 8)
    assert (alone.se, alone.low, alone.high) == (None, None, None)
    even = scores.clustered([0.5] * 30, 240)  # no spread, but 240 answers are not infinitely many
    assert even.low is not None
    assert 0.4 < even.low < 0.46


def test_points_get_a_t_interval() -> None:
    found = scores.clustered([3.0, 7.0, 8.0, 4.0])
    expected = scipy_stats.t.interval(0.95, 3, loc=5.5, scale=scipy_stats.sem([3, 7, 8, 4]))
    assert (found.low, found.high) == pytest.approx(expected)


@pytest.mark.parametrize(("right", "answers"), [(0, 5), (1, 5), (3, 7), (7, 7), (2, 8)])
def test_pass_at_k_by_exhaustive_search(right: int, answers: int) -> None:
    votes = [True] * right + [False] * (answers - right)
    for k in range(1, answers + 1):
        draws = list(combinations(votes, k))
        assert scores.pass_at_k(right, answers, k) == pytest.approx(sum(map(any, draws)) / len(draws))
    assert scores.pass_at_k(right, answers, answers + 1) is None


def test_majority() -> None:
    assert scores.majority([("70", True), ("70", True), ("71", False)]) == 1.0
    assert scores.majority([("70", True), ("71", False), ("71", False)]) == 0.0
    assert scores.majority([("70", True), ("71", False)]) == 0.5
    assert scores.majority([("70", True), ("71", False), ("72", False)]) == pytest.approx(1 / 3)
    assert scores.majority([(None, False), (None, False), ("70", True)]) == 1.0
    assert scores.majority([(None, False)]) == 0.0


def test_failed_and_unscored_samples_are_counted_not_dropped() -> None:
    records = [sample(p, 1, 1.0) for p in range(8)]
    records.append(sample(8, 1, None, status="error", error_kind="http_5xx", error_message="boom", truncated=None))
    records.append(sample(9, 1, None, unscored_reason="the grader raised"))
    group = only(records)
    assert group.score is not None
    assert group.of_all is not None
    assert (group.samples, group.scored, group.failed, group.unscored) == (10, 8, 1, 1)
    assert (group.score.value, group.of_all.value) == (1.0, 0.8)
    assert group.failures == {"http_5xx": (1, "boom")}
    assert group.unscored_reasons == {"the grader raised": 1}
    stored = {(r["metric"], r["stat"]): r["value"] for r in summary_rows({"run_id": "r", "model": "m"}, [group])}
    assert stored["score", "of_all"] == 0.8
    assert stored["failed", "value"] == 1


def test_problems_weigh_the_same_however_often_they_were_answered() -> None:
    records = [sample(0, e, 1.0) for e in range(1, 9)] + [sample(1, 1, 0.0)]
    group = only(records)
    assert group.score is not None
    assert group.score.value == 0.5
    assert group.pass_at[8].problems == 1


def test_subsets_and_disagreements() -> None:
    records = [sample(p, 1, 1.0, subset="I", second_score=1.0) for p in range(3)]
    records += [sample(p, 1, 0.0, subset="II", second_score=1.0) for p in range(3)]
    found = groups(samples_table(records))
    assert [(g.subset, g.score.value if g.score else None, g.disagreements) for g in found] == [
        ("I", 1.0, 0), ("II", 0.0, 3), (OVERALL, 0.5, 3),
    ]  # fmt: skip


def test_all_pairs_of_efforts_are_compared_on_the_same_problems() -> None:
    rng = np.random.default_rng(3)
    rates = {"low": 0.5, "medium": 0.7, "high": 0.9}
    answers = {effort: (rng.random(30) < rate).astype(float) for effort, rate in rates.items()}
    records = [
        sample(p, 1, float(v), point_id=f"{place:02d}-t-{effort}", reasoning_effort=effort)
        for place, (effort, values) in enumerate(answers.items())
        for p, v in enumerate(values)
    ]
    table = samples_table(records)
    found = comparisons(table, groups(table))
    assert [(c.less.effort, c.more.effort) for c in found] == [
        ("low", "medium"),
        ("low", "high"),
        ("medium", "high"),
    ]
    for c in found:
        less, more = answers[c.less.effort or ""], answers[c.more.effort or ""]
        assert c.difference.value == pytest.approx((more - less).mean())
        one_by_one = mcnemar([[0, sum(more > less)], [sum(more < less), 0]], exact=False, correction=False)
        assert c.difference.p == pytest.approx(one_by_one.pvalue)
    assert [c.p for c in found] == pytest.approx(multipletests([c.difference.p for c in found], method="holm")[1])


def test_busy_time_leaves_out_pauses() -> None:
    second = 10**9
    assert busy_seconds([(0, 2 * second), (1 * second, 3 * second), (10 * second, 11 * second)]) == 4.0
    assert busy_seconds([(None, 5), (5, None)]) is None


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=40))
def test_an_interval_holds_its_score_and_stays_in_bounds(means: list[float]) -> None:
    found = scores.clustered(means)
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.high <= 1


def test_the_price_of_an_answer() -> None:
    records = [sample(p, 1, 1.0, prompt_tokens=1000 * p, completion_tokens=100) for p in (1, 2, 3)]
    records.append(sample(4, 1, None, status="error", prompt_tokens=None, completion_tokens=None))
    [group] = groups(samples_table(records), {"endpoint": {"prices": {"input": 0.5, "output": 2.0}}})
    assert group.cost is not None
    assert group.cost.value == pytest.approx((2000 * 0.5 + 100 * 2.0) / 1e6)
    assert group.cost.low < group.cost.value < group.cost.high  # type: ignore[operator]
    rows = {row["metric"]: row["value"] for row in summary_rows({"run_id": "r", "model": "m"}, [group])}
    assert rows["cost"] == group.cost.value
    assert rows["prompt_tokens"] == 2000
    assert only(records).cost is None


def test_pairs() -> None:
    values = np.random.default_rng(5).normal(0.01, 1.0, 200)
    found, theirs = stats.paired(values), scipy_stats.ttest_1samp(values, 0)
    interval = theirs.confidence_interval(0.95)
    assert (found.p, found.low, found.high) == pytest.approx((theirs.pvalue, interval.low, interval.high))
    assert stats.paired([-0.9, 0.9], most=1.0)[1:3] == (-1.0, 1.0)
    assert stats.paired([-0.9, 0.9]).high == pytest.approx(0.9 * 12.7062, rel=1e-4)  # t of one degree of freedom
    assert stats.paired([0.25, 0.25])[1:4] == (None, None, None)
