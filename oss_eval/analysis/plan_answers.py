"""How many answers it takes to see a difference of scores, or to know a score, before they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import special

from oss_eval.analysis.stats import Z

Counts = NDArray[np.int64]
REPEATS = (1, 2, 4, 8, 16, 32, 64)
SIMULATED = 400
"""Benchmarks that are simulated to check a number of answers."""
MOST = 4096
"""Answers to a problem beyond which no plan is made."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The mean of scores, and how they vary: `within` a problem, from answer to answer, and `between` problems, as
    variances."""

    score: float
    within: float
    between: float

    @property
    def concentration(self) -> float:
        """Of the beta distribution with these variances: small where problems are always right or always wrong."""
        return self.within / self.between if self.between > 0 else 1e6


def stated(score: float, concentration: float) -> Spread:
    """The spread of problems whose probabilities have a beta distribution of this mean and concentration."""
    whole = score * (1 - score)
    return Spread(score, whole * concentration / (concentration + 1), whole / (concentration + 1))


def observed(scores: Sequence[Sequence[float]]) -> Spread | None:
    """The spread in a stored run: the mean variance within problems, and that of problem means less what the
    answers' own variance adds. None without two problems, or without one that has several answers."""
    answers = np.array([len(values) for values in scores])
    freedom = int((answers - 1).sum())
    if len(scores) < 2 or not freedom:
        return None
    means = np.array([sum(values) / len(values) for values in scores])
    several = [values for values in scores if len(values) > 1]
    within = float(np.mean([np.var(values, ddof=1) for values in several]))
    between = float(means.var(ddof=1)) - within * float(np.mean(1 / answers))
    return Spread(float(means.mean()), within, max(0.0, between))


@dataclass(frozen=True, slots=True)
class Alternative:
    """What a number of answers to each problem gives."""

    repeats: int
    answers: int
    detectable: float | None
    """Drop of the score of B against A, each with these answers, that is found with the power asked for; None if
    none is."""
    on_these: float
    """Half the width of the interval on these problems."""
    like_these: float
    """Half the width of the interval on problems like these."""


def alternative(spread: Spread, problems: int, repeats: int, power: float) -> Alternative:
    """`detectable` by simulation, the intervals by the normal approximation with the variances of the spread."""
    error = sqrt(max(spread.within, 1e-12) / (problems * repeats))
    like = Z * sqrt(spread.between / problems + error**2)
    simulation = _Simulation(spread, problems, repeats)
    low, high = 0.0, spread.score
    detectable = None
    if simulation.power(high) >= power:
        for _ in range(12):
            middle = (low + high) / 2
            low, high = (low, middle) if simulation.power(middle) >= power else (middle, high)
        detectable = high
    return Alternative(repeats, problems * repeats, detectable, Z * error, like)


def needed(spread: Spread, problems: int, detect: float, power: float) -> int | None:
    """Answers to each problem, on each side, so that a drop by `detect` is found with this power; None if it takes
    more than MOST."""
    if detect >= spread.score:
        return None
    repeats = 1
    while repeats <= MOST:
        if _Simulation(spread, problems, repeats).power(detect) >= power:
            return repeats
        repeats = max(repeats + 1, ceil(1.1 * repeats))
    return None


class _Simulation:
    """Benchmarks A with problems from the beta distribution of a spread, and B whose log odds are lower by the
    same shift at each problem, compared as `oss-eval compare` does."""

    def __init__(self, spread: Spread, problems: int, repeats: int) -> None:
        mean, concentration = min(max(spread.score, 1e-3), 1 - 1e-3), spread.concentration
        size = (SIMULATED, problems)
        rng = np.random.default_rng(0)
        self.chances = rng.beta(mean * concentration, (1 - mean) * concentration, size)
        self.logits = special.logit(np.clip(self.chances, 1e-9, 1 - 1e-9))
        self.right = rng.binomial(repeats, self.chances)
        self.repeats = repeats

    def power(self, drop: float) -> float:
        """Share of the benchmarks in which p < 0.05, if B's mean is lower by `drop`."""
        lower = special.expit(self.logits - self._shift(drop))
        right = np.random.default_rng(1).binomial(self.repeats, lower)
        return float(np.mean(null_p_values(self.right, right, self.repeats) < 0.05))

    def _shift(self, drop: float) -> float:
        target, low, high = float(self.chances.mean()) - drop, 0.0, 40.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if special.expit(self.logits - middle).mean() > target else (low, middle)
        return (low + high) / 2


def null_p_values(right_a: Counts, right_b: Counts, answers: int) -> NDArray[np.float64]:
    """p-values of no difference, as `stratified.p_value` has them, of many benchmarks at once: counts of right
    answers of shape (benchmarks, problems), with `answers` to each problem on both sides."""
    share = (right_a + right_b) / (2 * answers)
    variance = np.sum(share * (1 - share), axis=1) * 2 / answers * (2 * answers) / (2 * answers - 1)
    apart = np.sum(right_b - right_a, axis=1) / answers
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(apart == 0, 0.0, apart / np.sqrt(variance))
    return np.asarray(2 * special.ndtr(-np.abs(z)))
