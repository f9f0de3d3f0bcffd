"""Scores of problems that were answered one or several times, each with its intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import comb
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from oss_eval.analysis.score_interval import clustered_ends, score_intervals
from oss_eval.analysis.stats import Estimate, student


class ScoreEstimate(NamedTuple):
    """A mean score over problems with its clustered standard error and two 95% intervals."""

    value: float
    se: float | None
    low: float | None
    high: float | None
    """`low` to `high`: on problems like these."""
    problems: int
    these_low: float | None = None
    these_high: float | None = None
    """On these problems, if each were answered infinitely often."""


Problem = tuple[str, str]
"""Subset, and sample id or prompt."""


def by_problem(
    rows: Iterable[Mapping[str, Any]], column: str = "score", name: str = "sample_id"
) -> dict[Problem, list[float]]:
    """The known values of a column of sample rows, by problem."""
    found: dict[Problem, list[float]] = defaultdict(list)
    for row in rows:
        if row[column] is not None:
            found[row["subset"], row[name]].append(float(row[column]))
    return found


def by_point(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[Problem, list[float]]]:
    """The scores of sample rows, by point and problem."""
    of: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        of[row["point_id"]].append(row)
    return {point_id: by_problem(some) for point_id, some in of.items()}


SCORED = ["point_id", "subset", "sample_id", "score"]
"""Columns that `by_point` needs."""


def mean_score(scores: Sequence[Sequence[float]], adaptive: bool = False) -> ScoreEstimate:
    """Mean over problems of each problem's mean score, from the scores of each problem's answers (at least one).

    Of right and wrong answers (1 and 0) both intervals come from one model, see `score_intervals`. Other scores:
    on problems like these, see `clustered`; on these problems, Student's t with the variance of a problem's
    answers pooled over problems, None without a problem of several answers or without any variance. One problem
    alone says nothing about others.

    `adaptive`: where answers were asked for as earlier ones called for it (`bench --until`), the score is the
    model's estimate, as the mean would be biased.
    """
    right = np.array([sum(values) for values in scores], dtype=np.float64)
    answers = np.array([len(values) for values in scores])
    whole = clustered(right / answers, int(answers.sum()))
    if all(value in (0, 1) for values in scores for value in values):
        found = score_intervals(right, answers, adaptive)
        value = float(found.estimate[0]) if adaptive else whole.value
        low, high = found.like[0].tolist() if whole.problems > 1 else (None, None)
        these = found.these[0].tolist()
        return whole._replace(value=value, low=low, high=high, these_low=these[0], these_high=these[1])
    freedom = int((answers - 1).sum())
    if not freedom:
        return whole
    pooled = sum(float(np.var(values)) * len(values) for values in scores) / freedom
    half = student(freedom) * float(np.sqrt(pooled * np.sum(1 / answers))) / len(scores)
    if half <= 1e-12:
        return whole
    low, high = whole.value - half, whole.value + half
    if min(map(min, scores)) >= 0 and max(map(max, scores)) <= 1:
        low, high = max(0.0, low), min(1.0, high)
    return whole._replace(these_low=low, these_high=high)


def clustered(means: ArrayLike, answers: int | None = None) -> ScoreEstimate:
    """Mean over problems of each problem's mean score, with a standard error clustered by problem. `answers` is
    how many there are in all (default: one a problem).

    Epochs of one problem are not independent, so problems are what is counted: SE = sd(problem means) / sqrt(G)
    with G - 1 in the standard deviation. With equal epochs that is the cluster-robust error with the G / (G - 1)
    correction (Miller 2024, Adding Error Bars to Evals, arXiv:2411.00640, section 2.2).

    The interval of scores within [0, 1] is that of `clustered_ends`; other scores get Student's t with G - 1
    degrees of freedom. Needs at least one problem; one alone has no error.
    """
    values = np.asarray(means, dtype=np.float64)
    groups = len(values)
    value = float(values.mean())
    if groups < 2:
        return ScoreEstimate(value, None, None, None, groups)
    se = float(values.std(ddof=1) / np.sqrt(groups))
    if values.min() < 0 or values.max() > 1:
        half = student(groups - 1) * se
        return ScoreEstimate(value, se, value - half, value + half, groups)
    low, high = clustered_ends(values[None], np.array([answers or groups]))[0].tolist()
    return ScoreEstimate(value, se, low, high, groups)


def mean_of_answers(values: Sequence[Sequence[float]]) -> Estimate | None:
    """Mean over all answers of a figure such as tokens, from those of each problem; None without any.

    Student's t with a standard error clustered by problem (Miller 2024, section 2.2, with the G / (G - 1) of
    `clustered`): sqrt(G / (G - 1) * sum over problems of (sum of its deviations from the mean)^2) / n.
    """
    some = [np.asarray(of, dtype=np.float64) for of in values if len(of)]
    if not some:
        return None
    n, problems = sum(map(len, some)), len(some)
    value = float(sum(of.sum() for of in some) / n)
    if problems < 2:
        return Estimate(value, None, None)
    apart = sum(float((of - value).sum()) ** 2 for of in some)
    half = student(problems - 1) * float(np.sqrt(problems / (problems - 1) * apart)) / n
    return Estimate(value, value - half, value + half)


def pass_at_k(right: int, answers: int, k: int) -> float | None:
    """Chance that one of k answers drawn without replacement is right: 1 - C(n-c, k) / C(n, k).

    The unbiased estimator of Chen et al. 2021, Evaluating Large Language Models Trained on Code,
    arXiv:2107.03374, section 2.1. None when there are fewer than k answers.
    """
    if answers < k:
        return None
    return 1.0 - comb(answers - right, k) / comb(answers, k)


def pass_hat_k(right: int, answers: int, k: int) -> float | None:
    """Chance that all of k answers drawn without replacement are right: C(c, k) / C(n, k).

    pass^k of Yao et al. 2024, tau-bench, arXiv:2406.12045, section 3. None when there are fewer than k answers.
    """
    return None if answers < k else comb(right, k) / comb(answers, k)


Votes = Sequence[tuple[str | None, bool]]
"""(answer, right) of each answer to one problem. Answers that hold none (None) do not vote."""
MOST_VOTES = 200
"""maj@j of more answers takes too long, and their binomial coefficients do not fit a float."""


def majority(votes: Votes) -> float:
    """maj@k of one problem: whether the most frequent answer is right; ties share. Without any vote the majority
    is wrong. (Wang et al. 2023, Self-Consistency, arXiv:2203.11171.)"""
    counts, verdicts = _counted(votes)
    if not counts:
        return 0.0
    most = max(counts.values())
    leaders = [answer for answer, count in counts.items() if count == most]
    return sum(verdicts[answer] for answer in leaders) / len(leaders)


def majority_at(votes: Votes) -> list[float]:
    """maj@j of one problem for j = 1 up to the number of answers, at most MOST_VOTES: the mean of `majority` over
    all j answers drawn without replacement.

    Draws are counted, not tried: for each right answer and each number x of times that it is drawn, a generating
    function counts the draws in which no other answer comes more often.
    """
    counts, verdicts = _counted(votes)
    total, silent = len(votes), len(votes) - sum(counts.values())
    draws = np.zeros(total + 1)
    for answer in (answer for answer, right in verdicts.items() if right):
        others = [count for name, count in counts.items() if name != answer]
        for x in range(1, counts[answer] + 1):
            # ways[t][z]: draws of z answers from the others, t of which come x times as well.
            free = silent + sum(count for count in others if count < x)
            ways = np.array([[float(comb(free, z)) for z in range(free + 1)]])
            for count in (count for count in others if count >= x):
                below = np.array([float(comb(count, y)) for y in range(x)])
                grown = np.zeros((len(ways) + 1, ways.shape[1] + x))
                for tied, row in enumerate(ways):
                    grown[tied, : len(row) + x - 1] += np.convolve(row, below)
                    grown[tied + 1, x:] += row * float(comb(count, x))
                ways = grown
            shared = (ways / np.arange(1, len(ways) + 1)[:, None]).sum(axis=0)
            end = min(total + 1 - x, len(shared))
            draws[x : x + end] += shared[:end] * float(comb(counts[answer], x))
    return [float(draws[j] / comb(total, j)) for j in range(1, total + 1)]


def _counted(votes: Votes) -> tuple[dict[str, int], dict[str, bool]]:
    """How often each answer was given, and whether it is right."""
    counts: dict[str, int] = {}
    verdicts: dict[str, bool] = {}
    for answer, right in votes:
        if answer is not None:
            counts[answer] = counts.get(answer, 0) + 1
            verdicts[answer] = verdicts.get(answer, False) or right
    return counts, verdicts
