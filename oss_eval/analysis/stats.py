"""Percentiles and intervals. Pure functions of numbers; the source of each formula is in its docstring."""

from __future__ import annotations

from collections.abc import Iterable
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special  # not scipy.stats: half a second at the end of every command

CONFIDENCE = 0.95
Z = float(special.ndtri((1 + CONFIDENCE) / 2))
"""The normal distribution's quantile of a two-sided interval."""
P99_NEEDS = 100
"""With fewer values, the 99th percentile is hardly different from the largest value."""


class Estimate(NamedTuple):
    """A value with its 95% interval; the ends are None where the sample is too small to have one."""

    value: float
    low: float | None
    high: float | None


def student(freedom: int) -> float:
    """Student's t quantile of a two-sided interval, by degrees of freedom (at least 1)."""
    return float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2))


def _binomial_quantile(q: float, n: int, p: float) -> int:
    """Smallest k with P(B <= k) >= q for B ~ Binomial(n, p)."""
    k = max(0, int(np.ceil(special.bdtrik(q, n, p))))  # its inverse in real numbers may be off by a hair
    while k > 0 and special.bdtr(k - 1, n, p) >= q:
        k -= 1
    while special.bdtr(k, n, p) < q:
        k += 1
    return k


def mean(values: ArrayLike) -> Estimate:
    """Mean with Student's t interval.

    It treats values as independent. Requests of one burst are not, so for those the interval is the narrowest
    that can be defended.
    """
    distribution = Distribution()
    distribution.add(np.asarray(values, dtype=np.float64))
    return distribution.mean()


def percentile(values: ArrayLike, q: float) -> Estimate:
    """The q-th percentile (0-100, numpy's linear method) with a distribution-free interval.

    The interval runs between two order statistics whose ranks are binomial quantiles (Conover, Practical
    Nonparametric Statistics, 3rd ed., section 3.2). An end beyond the sample is None: with few values the
    data can't bound a high percentile from above.
    """
    distribution = Distribution()
    distribution.add(np.asarray(values, dtype=np.float64))
    return distribution.percentile(q)


class Distribution:
    """Values of any number in bounded memory: exact up to EXACT of them, then in bins of 0.01% width.

    Values are counted in logarithmic bins once there are too many to keep; a percentile is then the middle of
    its bin, at most 0.005% off. Mean and maximum stay exact. For values >= 0.
    """

    EXACT = 1 << 20
    _STEP = float(np.log1p(1e-4))
    _SMALLEST = 1e-6
    _BINS = 1 << 19
    """Up to 1e-6 * 1.0001 ** 2**19 = 6e16 of the values' unit: 1.9 million years in ms."""

    def __init__(self) -> None:
        self.n = 0
        self.max = float("-inf")
        self._sum = self._squares = 0.0
        self._shift = 0.0
        self._kept: list[NDArray[np.float64]] = []
        self._sorted: NDArray[np.float64] | None = None
        self._bins: NDArray[np.int64] | None = None

    def add(self, values: NDArray[np.float64]) -> None:
        """Take in more values."""
        if not len(values):
            return
        if not self.n:
            self._shift = float(values[0])  # sums of squares around a typical value lose no digits
        self.n += len(values)
        self.max = max(self.max, float(values.max()))
        around = values - self._shift
        self._sum += float(around.sum())
        self._squares += float(around @ around)
        self._sorted = None
        self._kept.append(values)
        if self._bins is not None or self.n > self.EXACT:
            self._count()

    def _count(self) -> None:
        """Move kept values into the bins; bin 0 holds everything up to _SMALLEST."""
        if self._bins is None:
            self._bins = np.zeros(self._BINS, dtype=np.int64)
        for values in self._kept:
            for start in range(0, len(values), 1 << 16):  # the logarithms need memory of their own
                places = np.maximum(values[start : start + (1 << 16)], self._SMALLEST) / self._SMALLEST
                counts = np.bincount(np.ceil(np.log(places) / self._STEP).astype(np.int64).clip(0, self._BINS - 1))
                self._bins[: len(counts)] += counts
        self._kept = []

    def mean(self) -> Estimate:
        """Mean with Student's t interval; n must be at least 1."""
        offset = self._sum / self.n
        centre = self._shift + offset
        if self.n < 2:
            return Estimate(centre, None, None)
        variance = max(0.0, self._squares - self.n * offset * offset) / (self.n - 1)
        half = student(self.n - 1) * float(np.sqrt(variance / self.n))
        return Estimate(centre, centre - half, centre + half)

    def percentile(self, q: float) -> Estimate:
        """A percentile as `percentile` defines it; n must be at least 1."""
        n, p = self.n, q / 100
        tail = (1 - CONFIDENCE) / 2
        # Largest r with P(B <= r-1) <= tail, smallest s with P(B >= s) <= tail, for B ~ Binomial(n, p).
        r = _binomial_quantile(tail, n, p)
        if r > 0 and special.bdtr(r - 1, n, p) > tail:
            r -= 1
        s = _binomial_quantile(1 - tail, n, p) + 1
        low = self._ranked(r - 1) if r >= 1 else None
        high = self._ranked(s - 1) if s <= n else None
        if self._bins is None:
            return Estimate(float(np.percentile(self._exact(), q)), low, high)
        return Estimate(self._ranked(round(p * (n - 1))), low, high)

    def _exact(self) -> NDArray[np.float64]:
        if self._sorted is None:
            self._sorted = np.sort(np.concatenate(self._kept))
            self._kept = [self._sorted]
        return self._sorted

    def _ranked(self, rank: int) -> float:
        """The value at this rank."""
        if self._bins is None:
            return float(self._exact()[rank])
        place = int(np.searchsorted(np.cumsum(self._bins), rank, side="right"))
        return self._SMALLEST * float(np.exp((place - 0.5) * self._STEP)) if place else 0.0


def proportion(successes: int, total: int) -> Estimate:
    """Share of successes with Wilson's score interval (Wilson 1927)."""
    low, high = _wilson(successes / total, total)
    return Estimate(successes / total, 0.0 if successes == 0 else low, 1.0 if successes == total else high)


# -- scores of samples asked several times ----------------------------------------------------------------------


class ScoreEstimate(NamedTuple):
    """A mean score over problems with its clustered standard error and 95% interval."""

    value: float
    se: float | None
    low: float | None
    high: float | None
    problems: int


def clustered(means: ArrayLike, answers: int | None = None) -> ScoreEstimate:
    """Mean over problems of each problem's mean score, with a standard error clustered by problem. `answers` is
    how many there are in all (default: one a problem).

    Epochs of one problem are not independent, so problems are what is counted: SE = sd(problem means) / sqrt(G)
    with G - 1 in the standard deviation. With equal epochs that is the cluster-robust error with the G / (G - 1)
    correction (Miller 2024, Adding Error Bars to Evals, arXiv:2411.00640, section 2.2).

    The interval of scores within [0, 1] is Wilson's with the effective number of answers p (1 - p) / SE^2, at most
    as many as there are, the degrees of freedom accounted for as Korn and Graubard do (1998, Survey Methodology
    24, 193-201). It stays within [0, 1], and where all is right, or all wrong, it counts each problem once. Other
    scores get Student's t with G - 1 degrees of freedom. Needs at least one problem; one alone has no error.
    """
    values = np.asarray(means, dtype=np.float64)
    groups = len(values)
    value = float(values.mean())
    if groups < 2:
        return ScoreEstimate(value, None, None, None, groups)
    se = float(values.std(ddof=1) / np.sqrt(groups))
    quantile = student(groups - 1)
    if values.min() < 0 or values.max() > 1:
        return ScoreEstimate(value, se, value - quantile * se, value + quantile * se, groups)
    spread, total = value * (1 - value), max(groups, answers or 0)
    effective = float(groups) if spread < 1e-12 else min(float(total), spread / max(se, 1e-12) ** 2)
    low, high = _wilson(value, effective * (Z / quantile) ** 2)
    return ScoreEstimate(value, se, low, high, groups)


def _wilson(p: float, n: float) -> tuple[float, float]:
    """Wilson's score interval for a share p of n answers, n not necessarily whole."""
    centre = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * float(np.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n)))
    return max(0.0, centre - half), min(1.0, centre + half)


def pass_at_k(right: int, answers: int, k: int) -> float | None:
    """Chance that one of k answers drawn without replacement is right: 1 - C(n-c, k) / C(n, k).

    The unbiased estimator of Chen et al. 2021, Evaluating Large Language Models Trained on Code,
    arXiv:2107.03374, section 2.1. None when there are fewer than k answers.
    """
    if answers < k:
        return None
    return 1.0 - comb(answers - right, k) / comb(answers, k)


def majority(votes: Iterable[tuple[str | None, bool]]) -> float:
    """maj@k of one problem: whether the most frequent answer is right; ties share. (answer, right) for each vote.

    Answers that hold none (None) do not vote; without any vote the majority is wrong. (Wang et al. 2023,
    Self-Consistency, arXiv:2203.11171.)
    """
    counts: dict[str, int] = {}
    verdicts: dict[str, bool] = {}
    for answer, right in votes:
        if answer is not None:
            counts[answer] = counts.get(answer, 0) + 1
            verdicts[answer] = verdicts.get(answer, False) or right
    if not counts:
        return 0.0
    most = max(counts.values())
    leaders = [answer for answer, count in counts.items() if count == most]
    return sum(verdicts[answer] for answer in leaders) / len(leaders)


class Difference(NamedTuple):
    """A mean difference of pairs with its 95% interval and the chance of one as large if there were none."""

    value: float
    low: float | None
    high: float | None
    p: float | None
    pairs: int


def between(a: Estimate, b: Estimate) -> Difference | None:
    """b - a of two independent estimates, with an interval out of theirs; None where one has none.

    Each end takes from each estimate the distance to the end of its interval that lies on that side (MOVER: Zou
    and Donner 2008, Statistics in Medicine 27, 1693-1702); of two shares with Wilson's intervals that is
    Newcombe's (1998, Statistics in Medicine 17, 873-890, method 10). The p-value (two-sided, normal) is that of
    the standard error which the side towards no difference implies: p < 0.05 where the interval excludes 0.
    """
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return None
    value = b.value - a.value
    below = float(np.hypot(b.value - b.low, a.high - a.value))
    above = float(np.hypot(b.high - b.value, a.value - a.low))
    side = below if value > 0 else above
    p = float(2 * special.ndtr(-abs(value) * Z / side)) if side > 0 else float(value == 0)
    return Difference(value, value - below, value + above, p, 0)


PERMUTATIONS = 10_000


def paired(differences: ArrayLike, most: float = float("inf")) -> Difference:
    """Mean of one difference a problem: Student's t interval, and a sign-flip permutation p-value (two-sided).

    `most` is the largest difference that can be: 1 for shares.

    Pairing takes the problems' difficulty out of the comparison (Miller 2024, arXiv:2411.00640, section 4.2). All
    2^n flips of up to 13 pairs, else PERMUTATIONS random ones from a fixed seed, counted with the observed one
    (Phipson and Smyth 2010, Statistical Applications in Genetics and Molecular Biology 9, article 39).
    """
    values = np.asarray(differences, dtype=np.float64)
    n, value = len(values), float(values.mean())
    if n < 2:
        return Difference(value, None, None, None, n)
    half = float(student(n - 1) * values.std(ddof=1) / np.sqrt(n))
    observed = abs(values.sum()) - 1e-9
    if n <= 13:
        signs = 1 - 2 * ((np.arange(1 << n)[:, None] >> np.arange(n)) & 1)
        p = float(np.mean(np.abs(signs @ values) >= observed))
    else:
        rng, block, beyond = np.random.default_rng(0), max(1, (1 << 21) // n), 0
        for begin in range(0, PERMUTATIONS, block):  # memory does not grow with the number of pairs
            flips = rng.integers(0, 2, size=(min(block, PERMUTATIONS - begin), n), dtype=np.int8) * 2 - 1
            beyond += int(np.sum(np.abs(flips @ values) >= observed))
        p = (1 + beyond) / (PERMUTATIONS + 1)
    return Difference(value, max(-most, value - half), min(most, value + half), p, n)
