"""The difference of two scores on the same problems: estimate, interval and p-value from one test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from oss_eval.analysis.scores import ScoreEstimate, mean_score
from oss_eval.analysis.stats import Difference, Estimate, Z, between, paired

Floats = NDArray[np.float64]


class Strata(NamedTuple):
    """Right answers and answers of each problem to A and to B, each of shape (problems,), answers at least 1."""

    right_a: Floats
    answers_a: Floats
    right_b: Floats
    answers_b: Floats

    @property
    def difference(self) -> float:
        """Mean over problems of B's share of right answers minus A's."""
        return float(np.mean(self.right_b / self.answers_b - self.right_a / self.answers_a))


def strata(right_a: ArrayLike, answers_a: ArrayLike, right_b: ArrayLike, answers_b: ArrayLike) -> Strata:
    """Arrays of the same shape out of counts."""
    counts = np.broadcast_arrays(right_a, answers_a, right_b, answers_b)
    return Strata(*(np.asarray(count, dtype=np.float64) for count in counts))


_SIDE = np.geomspace(1e-5, 1.0, 24)
DIFFERENCES = np.concatenate([-_SIDE[::-1], [0.0], _SIDE])
"""Where the statistic is looked at: close to 0, where it can turn, and up to the largest differences."""


def score_statistic(data: Strata, differences: ArrayLike) -> Floats:
    """How many standard errors the observed difference lies above each of the `differences`, if that were B minus
    A at every problem.

    The score statistic of a risk difference stratified by problem, each problem with the same weight (Miettinen
    and Nurminen 1985, Statistics in Medicine 4, 213-226, sections 3 and 4): the variance of each problem is that
    of the most likely probabilities which differ by that much, with their factor N / (N - 1). At 0 its square is
    that of Cochran, Mantel and Haenszel where problems have equally many answers; with one answer each, McNemar's.
    """
    apart = np.atleast_1d(np.asarray(differences, dtype=np.float64))[:, None]
    p_a, p_b = _restricted(data, apart)
    total = data.answers_a + data.answers_b
    variance = (p_a * (1 - p_a) / data.answers_a + p_b * (1 - p_b) / data.answers_b) * total / (total - 1)
    error = np.sqrt(np.maximum(variance, 0.0).sum(axis=1)) / len(total)
    above = data.difference - apart[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.abs(above) < 1e-12, 0.0, above / error)


def _restricted(data: Strata, apart: Floats) -> tuple[Floats, Floats]:
    """The most likely (p_a, p_b) of each problem with p_b = p_a + apart, for `apart` of shape (differences, 1): a
    root of the likelihood equation, a cubic (Miettinen and Nurminen 1985, appendix 1, whose group 1 is B)."""
    total, right = data.answers_a + data.answers_b, data.right_a + data.right_b
    l2 = (data.answers_b + 2 * data.answers_a) * apart - total - right
    l1 = (data.answers_a * apart - total - 2 * data.right_a) * apart + right
    l0 = data.right_a * apart * (1 - apart)
    third = l2 / (3 * total)
    q = third**3 - l1 * l2 / (6 * total**2) + l0 / (2 * total)
    size = np.sqrt(np.maximum(third**2 - l1 / (3 * total), 0.0))
    p = np.where(q < 0, -size, size)
    cosine = np.divide(q, p**3, out=np.ones_like(q), where=np.abs(p) > 1e-9)
    root = 2 * p * np.cos((np.pi + np.arccos(np.clip(cosine, -1, 1))) / 3) - third
    p_a = np.clip(root, np.maximum(0.0, -apart), np.minimum(1.0, 1 - apart))
    return p_a, p_a + apart


def p_value(data: Strata) -> float:
    """Two-sided p-value (normal) of no difference, or one the other way round: the largest of these. With few
    answers a small difference the other way round can be more likely than none, as it has more variance."""
    value = data.difference
    opposite = DIFFERENCES[DIFFERENCES <= 0] if value > 0 else DIFFERENCES[DIFFERENCES >= 0]
    return float(2 * special.ndtr(-np.abs(score_statistic(data, opposite)).min()))


def interval(data: Strata, z: float = Z) -> tuple[float, float]:
    """From the lowest to the highest difference within `z` standard errors: 0 lies in the 95% interval exactly
    where p >= 0.05. It has a width also where no problem differs: A and B being right at every problem does not
    show that they are equal."""
    held = np.abs(score_statistic(data, DIFFERENCES)) <= z
    return _bound(data, DIFFERENCES, held, z), _bound(data, DIFFERENCES[::-1], held[::-1], z)


def _bound(data: Strata, differences: Floats, held: NDArray[np.bool_], z: float) -> float:
    """The first difference within `z`, of those from one end to the other."""
    first = int(np.argmax(held)) if held.any() else len(held)
    beyond = (differences > data.difference) == (differences[0] < data.difference)
    if first == len(held) or beyond[first]:  # the observed difference itself comes before
        first = int(np.argmax(beyond)) if beyond.any() else len(held)
        inside = data.difference
    else:
        inside = float(differences[first])
    if first == 0:
        return float(differences[0])
    outside = float(differences[first - 1])
    for _ in range(40):
        middle = (inside + outside) / 2
        if abs(score_statistic(data, middle)[0]) <= z:
            inside = middle
        else:
            outside = middle
    return (inside + outside) / 2


Scores = Sequence[Sequence[float]]
"""Of each problem, the scores of its answers (at least one)."""


def score_difference(a: Scores, b: Scores, adaptive: tuple[bool, bool] = (False, False)) -> Difference:
    """B's score minus A's over the same problems (at least one), in the same order.

    Right and wrong answers: the stratified score test, on these problems. On problems like these: Student's t over
    the problems' differences, and never narrower than the first. Other scores have the latter for both. Where a
    side's answers were asked for as earlier ones called for it (`adaptive`, of A and B), a test that pairs answers
    would be biased: the difference is that of the two scores' own intervals on these problems (`stats.between`).
    """
    if any(adaptive):
        return _of_estimates(*(mean_score(side, flag) for side, flag in zip((a, b), adaptive, strict=True)))
    means = [[sum(values) / len(values) for values in side] for side in (a, b)]
    shares = all(0 <= value <= 1 for side in means for value in side)
    apart = [round(two - one, 12) for one, two in zip(*means, strict=True)]  # 2/3 - 1/3 and 1/3 - 2/3 are equal
    like = paired(apart, 1.0 if shares else float("inf"))
    if any(value not in (0, 1) for side in (a, b) for values in side for value in values):
        return like._replace(like_low=like.low, like_high=like.high)
    data = strata(*(f for side in (a, b) for f in ([sum(v) for v in side], [len(v) for v in side])))
    low, high = interval(data)
    found = Difference(like.value, low, high, p_value(data), like.pairs)
    if like.pairs < 2:
        return found
    return found._replace(
        like_low=min(low, low if like.low is None else like.low),
        like_high=max(high, high if like.high is None else like.high),
    )


def _of_estimates(a: ScoreEstimate, b: ScoreEstimate) -> Difference:
    found = between(*(Estimate(score.value, score.these_low, score.these_high) for score in (a, b)))
    return (found or Difference(b.value - a.value, None, None, None, 0))._replace(pairs=a.problems)
