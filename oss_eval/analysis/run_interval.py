"""Intervals of a load run's figures that hold for repeats of the run.

Requests that are in flight together share the server, so they are not independent, and the first ones, which
start together, are like no others. Requests in order of their start are split into the first wave (one for each
slot) and up to BATCHES batches of the rest, none smaller than a wave, whose means are nearly independent (batch
means: Law, Simulation Modeling and Analysis, 5th ed., section 9.5.3). benchmarks/coverage_load.py measures what
that covers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special

from oss_eval.analysis.request_rows import Floats
from oss_eval.analysis.stats import CONFIDENCE, Estimate, Z, student

BATCHES = 10
FEWEST = 3
"""With fewer batches there is no interval."""
FEWEST_FOR_RATE = 20
"""With fewer requests the slices of a rate are too much alike."""
TAIL = (1 - CONFIDENCE) / 2


class Waves(NamedTuple):
    """Values of the first wave and the batches of the others, in order of start."""

    first: Floats
    rest: Floats
    sizes: Floats
    means: Floats
    """Of each batch of the rest."""

    @property
    def variance(self) -> float:
        """Of the mean of the rest."""
        b, n = len(self.sizes), self.sizes.sum()
        return float((self.sizes**2 * (self.means - self.rest.mean()) ** 2).sum() / n**2 * b / (b - 1))


def waves(values: Floats, parallel: int, first: int) -> Waves | None:
    """The `first` values and batches of the others, of at least `parallel` values each. None with fewer than
    FEWEST batches: with less than four requests for each slot."""
    batches = min(BATCHES, (len(values) - first) // parallel)
    if batches < FEWEST:
        return None
    parts = np.array_split(values[first:], batches)
    sizes, means = np.array([float(len(p)) for p in parts]), np.array([p.mean() for p in parts])
    return Waves(values[:first], values[first:], sizes, means)


def mean_of_run(values: Floats, parallel: int, first: int | None = None) -> Estimate:
    """Mean of values of requests in order of start (at least one), with Student's t over batches.

    `first` values, by default one for each slot, are those of the start. They are one group: its variance is
    that within it, times the rest's excess of the variance between batches over that between requests, or, where
    that is larger, 1.5 times the rest's relative variance of a wave."""
    value, n = float(values.mean()), len(values)
    split = waves(values, parallel, parallel if first is None else first)
    if split is None:
        return Estimate(value, None, None)
    start, rest, of_rest = split.first, split.rest, split.variance
    scatter = float(rest.var(ddof=1)) / len(rest)
    excess = max(1.0, of_rest / scatter) if scatter > 0 else 1.0
    of_first = 0.0
    if len(start):
        within = float(start.var(ddof=1)) / len(start) * excess if len(start) > 1 else 0.0
        centre = float(rest.mean())
        relative = of_rest * len(rest) / len(start) / centre**2 if centre else 0.0
        of_first = max(within, 1.5 * float(start.mean()) ** 2 * relative)
    variance = (len(start) / n) ** 2 * of_first + (len(rest) / n) ** 2 * of_rest
    half = student(len(split.sizes) - 1) * float(np.sqrt(variance))
    return Estimate(value, value - half, value + half)


def percentile_of_run(values: Floats, q: float, parallel: int, first: int | None = None) -> Estimate:
    """The q-th percentile (0-100, numpy's linear method) of values of requests in order of start (at least one);
    `first` as in `mean_of_run`.

    The interval runs between two order statistics whose ranks are binomial quantiles (Conover, Practical
    Nonparametric Statistics, 3rd ed., section 3.2) of as many independent requests as have the same variance of
    the share above the percentile, less what few batches do not tell of it (Korn and Graubard 1998, Survey
    Methodology 24, 193-201). An end beyond the sample is None: with few values the data can't bound a high
    percentile from above. Both are None where most values between the ends are of the first wave, of which a run
    has one.
    """
    value, n, p = float(np.percentile(values, q)), len(values), q / 100
    split = waves((values > value).astype(np.float64), parallel, parallel if first is None else first)
    if split is None:
        return Estimate(value, None, None)
    start = len(split.first)
    of_rest, share = split.variance, float(split.rest.mean())
    scatter = share * (1 - share) / len(split.rest)
    of_first = 0.0
    if start:
        above = float(split.first.mean())
        of_first = above * (1 - above) / start * (max(1.0, of_rest / scatter) if scatter > 0 else 1.0)
    variance = (start / n) ** 2 * of_first + (len(split.rest) / n) ** 2 * of_rest
    excess = variance / (p * (1 - p) / n)
    few = (Z / student(len(split.sizes) - 1)) ** 2
    independent = n if excess <= 1 else max(1, int(n / excess * few))
    at_most = special.bdtr(np.arange(independent + 1), independent, p)
    low = int(np.searchsorted(at_most, TAIL, side="right"))
    high = int(np.searchsorted(at_most, 1 - TAIL)) + 1
    order = np.argsort(values, kind="stable")
    below, beyond = low * n // independent - 1, -(-high * n // independent) - 1
    begin, end = max(below, 0), min(beyond, n - 1)
    if 2 * int((order[begin : end + 1] < start).sum()) > end + 1 - begin:
        return Estimate(value, None, None)
    return Estimate(
        value,
        float(values[order[below]]) if below >= 0 else None,
        float(values[order[beyond]]) if high <= independent and beyond < n else None,
    )


def enough_for_rate(requests: int, parallel: int) -> bool:
    """Whether a rate's interval can be trusted: with at least FEWEST_FOR_RATE requests and four for each slot."""
    return requests >= FEWEST_FOR_RATE and requests // parallel > FEWEST


def rate_of_run(amounts: Floats, seconds: float) -> Estimate:
    """A rate from the amounts in equal slices of the time, which is `seconds` long: Student's t over slices."""
    rates = amounts / (seconds / len(amounts))
    value = float(rates.mean())
    half = student(len(rates) - 1) * float(rates.std(ddof=1) / np.sqrt(len(rates)))
    return Estimate(value, max(0.0, value - half), value + half)
