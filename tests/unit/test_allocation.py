"""Which answers are asked for next: by simulated answers with known probabilities."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from oss_eval.analysis.score_interval import error_reduction, score_intervals
from oss_eval.analysis.scores import mean_score
from oss_eval.bench.allocation import Allocation, Budget, Goal
from oss_eval.records import RequestRecord

Problem = tuple[str, str]


def asked(
    chances: list[float], goal: Goal, seed: int = 1, most: int = 64, slots: int = 8
) -> tuple[Allocation, Any]:
    """An allocation that was followed to its end, and the scores of each problem."""
    rng = np.random.default_rng(seed)
    samples = [SimpleNamespace(subset="s", sample_id=str(place)) for place in range(len(chances))]
    jobs: list[Any] = [SimpleNamespace(sample=sample) for _ in range(most) for sample in samples]
    allocation = Allocation(jobs, {}, goal)
    scores: list[list[float]] = [[] for _ in chances]
    while batch := allocation.next(slots):
        assert len(batch) <= slots
        for job in batch:
            place = int(job.sample.sample_id)
            scores[place].append(float(rng.random() < chances[place]))
            allocation.add(SimpleNamespace(subset="s", sample_id=str(place), score=scores[place][-1]))  # type: ignore
    return allocation, scores


def test_answers_go_where_the_error_is() -> None:
    chances = [1.0] * 20 + [0.5] * 10
    allocation, scores = asked(chances, Goal(error=0.03))
    answers = [len(values) for values in scores]
    assert min(answers) >= 2
    assert np.mean(answers[20:]) > 3 * np.mean(answers[:20])
    assert allocation.reached is not None
    found = mean_score(scores, adaptive=True)
    assert found.these_low is not None
    assert found.these_high is not None
    assert (found.these_high - found.these_low) / 2 <= 0.03
    assert found.these_low <= np.mean(chances) <= found.these_high
    repeats = sum(answers) // 30
    evenly = score_intervals([repeats] * 20 + [repeats // 2] * 10, repeats).these[0]
    assert (evenly[1] - evenly[0]) / 2 > 0.03  # as many answers in even shares


def test_the_estimate_is_not_biased_where_the_mean_is() -> None:
    estimates, means = [], []
    for seed in range(30):
        _, scores = asked([0.9] * 30, Goal(error=0.03), seed, slots=16)
        estimates.append(mean_score(scores, adaptive=True).value)
        means.append(np.mean([np.mean(values) for values in scores]))
    assert np.mean(means) - 0.9 > 0.01
    assert abs(np.mean(estimates) - 0.9) < 0.008


def test_the_reduction_is_that_of_the_model() -> None:
    right, answers = np.array([2, 2, 1, 0, 2]), np.array([2, 2, 2, 2, 3])
    gain = error_reduction(right, answers)
    assert gain[2] == max(gain)
    assert gain[0] == gain[1]
    assert gain[4] > gain[0]  # 2 of 3 tells less than 2 of 2 that it will be right again

    def variance(counts: np.ndarray) -> float:
        low, high = score_intervals(right, counts).these[0]
        return float((high - low) ** 2)

    assert variance(answers) > variance(answers + np.array([0, 0, 0, 0, 1])) * 0.9


def test_told_from_a_reference_at_few_looks() -> None:
    reference: dict[Problem, list[float]] = {("s", str(p)): [1.0] * 8 for p in range(20)}
    allocation, scores = asked([0.5] * 20, Goal(against=reference))
    assert allocation.reached is not None
    assert allocation.reached.startswith("worse than the reference by ")
    answers = [len(values) for values in scores]
    assert max(answers) - min(answers) <= 1
    assert sum(answers) <= 4 * 20 + 8
    same, scores = asked([1.0] * 20, Goal(against=reference), most=8)
    assert same.reached is None
    assert [len(values) for values in scores] == [8] * 20


def test_stored_answers_count() -> None:
    sample = SimpleNamespace(subset="s", sample_id="1")
    jobs: list[Any] = [SimpleNamespace(sample=sample)] * 62
    stored = {("s", str(p)): [1.0] * 40 for p in range(30)}
    allocation = Allocation(jobs, stored, Goal(error=0.02))
    assert allocation.next(8) == []
    assert allocation.reached is not None


def test_answers_in_part_are_asked_for_evenly() -> None:
    sample = [SimpleNamespace(subset="s", sample_id=str(p)) for p in range(4)]
    jobs: list[Any] = [SimpleNamespace(sample=one) for _ in range(6) for one in sample]
    allocation = Allocation(jobs, {}, Goal(error=0.001))
    rng = np.random.default_rng(2)
    total = 0
    while batch := allocation.next(3):
        total += len(batch)
        for job in batch:
            name = job.sample.sample_id
            allocation.add(SimpleNamespace(subset="s", sample_id=name, score=float(rng.random())))  # type: ignore
    assert total == 24
    assert allocation.reached is None


def ended(**values: Any) -> RequestRecord:
    return RequestRecord("r", "p", "q", 0, False, 1, "m", None, 1, **values)


def test_a_budget_reserves_what_is_in_flight() -> None:
    budget = Budget(1000, 100, lambda record: record.completion_tokens or 0)
    budget.begin(2)
    assert budget.room(0) == 5
    assert budget.room(3) == 2
    budget.add(ended(completion_tokens=60))
    assert budget.room(0) == 4
    budget.begin(1)
    assert budget.room(0) == 9
    assert budget.room(9) == 0
    budget.add(ended(status="error", error_kind="timeout_connect"))
    assert budget.spent == pytest.approx(60)
    budget.add(ended(status="error", error_kind="client"))
    assert budget.spent == pytest.approx(160), "lost with its node: it may have been answered in full"
