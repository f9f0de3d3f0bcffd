"""Two intervals for the mean score of right and wrong answers, from one model of the problems."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from oss_eval.analysis.stats import Z, student, wilson

Floats = NDArray[np.float64]
Ends = NDArray[np.float64]
"""(runs, 2): low and high."""

MEANS, CONCENTRATIONS = 240, np.geomspace(0.02, 3000, 48)
"""Points of the grid: means, and how much alike problems are (small: most are always right or always wrong)."""
ROWS = 64
"""Runs computed at once: memory is bounded."""


class ScoreIntervals(NamedTuple):
    """95% intervals of a mean score, of one or of many runs."""

    like: Ends
    """Of the mean over all problems of the kind that these are a sample of: "on problems like these"."""
    these: Ends
    """Of the mean over these problems, if each were answered infinitely often: "on these problems"."""
    estimate: Floats
    """The model's estimate of that mean, shape (runs,). It does not depend on why problems have unequally many
    answers, as the mean of their shares does: where those that were right twice get no third answer, that mean is
    too high."""


def score_intervals(right: ArrayLike, answers: ArrayLike, adaptive: bool = False) -> ScoreIntervals:
    """Intervals of the mean over problems of each problem's share of right answers.

    `right`: right answers of each problem, shape (problems,) or (runs, problems); `answers`: how many answers it
    has, at least 1, of a shape that broadcasts to it. Ends have shape (runs, 2).

    The model is the beta-binomial: a problem is answered correctly with its own probability, drawn from a beta
    distribution with mean m and concentration c (Gelman et al., Bayesian Data Analysis, 3rd ed., section 5.3). m
    has Jeffreys' prior for a share; c has density c^-1.5 for `like`, which lets the problems be as different as
    the data allow, and is uniform for `these`, which lets answers be as random as the data allow: each the careful
    side. `like` takes m's quantiles, and reaches as far as `clustered_ends`, which does not know the shape: a few
    problems that are never solved are not beta-distributed. `these` takes those of the mean of the problems'
    probabilities, by a beta distribution with its mean and variance, at 2.2% and 97.8%.

    Both contain the score itself, or, where the numbers of answers depend on earlier ones (`adaptive`), the
    estimate: a posterior is the same whatever stopped the answers (Berger and Wolpert 1988, The Likelihood
    Principle, section 4.2). What they cover is in docs/statistics.md; benchmarks/coverage.py measures it.
    """
    found = np.atleast_2d(np.asarray(right, dtype=np.int64))
    asked = np.broadcast_to(np.asarray(answers, dtype=np.int64), found.shape)
    pairs, of = np.unique(np.stack([found.ravel(), asked.ravel()]), axis=1, return_inverse=True)
    counts = np.zeros((len(found), pairs.shape[1]))
    np.add.at(counts, (np.repeat(np.arange(len(found)), found.shape[1]), of.ravel()), 1)
    values = (found / asked).mean(axis=1)
    blocks = [
        _intervals(pairs, counts[i : i + ROWS], values[i : i + ROWS], found.shape[1], adaptive)
        for i in range(0, len(found), ROWS)
    ]
    like, these, estimate = (np.concatenate(ends) for ends in zip(*blocks, strict=True))
    if not adaptive and found.shape[1] > 1:
        wider = clustered_ends(found / asked, asked.sum(axis=1))
        like = np.stack([np.minimum(like[:, 0], wider[:, 0]), np.maximum(like[:, 1], wider[:, 1])], axis=1)
    return ScoreIntervals(like, these, estimate)


def clustered_ends(means: Floats, answers: NDArray[np.int64]) -> Ends:
    """Wilson's interval of the mean of scores within [0, 1] of each run, from problem means (runs, problems), at
    least two problems, and the number of answers of each run.

    The effective number of answers is p (1 - p) / SE^2, SE clustered by problem, at most as many as there are, the
    degrees of freedom accounted for as Korn and Graubard do (1998, Survey Methodology 24, 193-201). Where all is
    right, or all wrong, it counts each problem once.
    """
    groups = means.shape[1]
    value, error = means.mean(axis=1), means.std(axis=1, ddof=1) / np.sqrt(groups)
    spread = value * (1 - value)
    enough = np.minimum(np.maximum(answers, groups), spread / np.maximum(error, 1e-12) ** 2)
    n = np.where(spread < 1e-12, float(groups), enough) * (Z / student(groups - 1)) ** 2
    return np.stack(wilson(value, n), axis=1)


def error_reduction(right: ArrayLike, answers: ArrayLike) -> Floats:
    """By how much one more answer to each problem is expected to lower its variance in the model: (problems,)."""
    found, asked = (np.asarray(side, dtype=np.int64) for side in (right, answers))
    pairs, of, counts = np.unique(np.stack([found, asked]), axis=1, return_inverse=True, return_counts=True)
    grid = _grid(pairs, counts[None].astype(np.float64), np.array([(found / asked).mean()]), len(found))
    weights = _posterior(grid.likelihood + np.log(grid.c))[0]
    n = pairs[1][:, None]
    share = (grid.a + pairs[0][:, None]) / (grid.c + n)
    # A beta variance of p (1 - p) / (c + n + 1) has n + 1 after one more answer.
    lower = share * (1 - share) * (1 / (grid.c + n + 1) - 1 / (grid.c + n + 2))
    return np.asarray((lower @ weights)[of.ravel()])


class _Grid(NamedTuple):
    """Points of the grid, flat, the edges of the means, and the log likelihood of each run (runs, points)."""

    edges: Floats
    c: Floats
    a: Floats
    b: Floats
    likelihood: Floats


def _grid(pairs: NDArray[np.int64], counts: Floats, values: Floats, problems: int) -> _Grid:
    # In u = 2/pi asin(sqrt(m)) Jeffreys' prior is uniform, and a score of n answers has the same error everywhere:
    # 1 / (pi sqrt(n)). Problems count at least once each, so 8 such errors hold all that matters.
    u, reach = 2 / np.pi * np.arcsin(np.sqrt(values)), 8 / (np.pi * np.sqrt(problems))
    ends = np.linspace(max(0.0, u.min() - reach), min(1.0, u.max() + reach), MEANS + 1)
    edges, means = (np.sin(np.pi / 2 * x) ** 2 for x in (ends, (ends[1:] + ends[:-1]) / 2))
    m, c = (x.ravel() for x in np.meshgrid(means, CONCENTRATIONS, indexing="ij"))
    a, b = m * c, (1 - m) * c
    right, answers = pairs
    likelihood = counts @ (_rising(a, right) + _rising(b, answers - right) - _rising(c, answers))
    return _Grid(edges, c, a, b, likelihood)


def _intervals(
    pairs: NDArray[np.int64], counts: Floats, values: Floats, problems: int, adaptive: bool
) -> tuple[Ends, Ends, Floats]:
    """Of runs with `counts` problems (runs, pairs) for each pair of right answers and answers (2, pairs)."""
    grid = _grid(pairs, counts, values, problems)
    like = _posterior(grid.likelihood - 0.5 * np.log(grid.c)).reshape(len(counts), MEANS, -1).sum(axis=2)
    at_most = np.append(np.zeros((len(counts), 1)), like.cumsum(axis=1), axis=1)
    low_high = np.stack([np.interp([0.025, 0.975], row, grid.edges) for row in at_most])

    weights = _posterior(grid.likelihood + np.log(grid.c))
    right, answers = pairs
    share = (grid.a + right[:, None]) / (grid.c + answers[:, None])
    mean = counts @ share / problems
    variance = counts @ (share * (1 - share) / (grid.c + answers[:, None] + 1)) / problems**2
    centre = (weights * mean).sum(axis=1)
    spread = np.maximum((weights * (variance + mean**2)).sum(axis=1) - centre**2, 1e-15)
    size = np.maximum(centre * (1 - centre) / spread - 1, 1e-6)
    alpha, beta = (centre * size)[:, None], ((1 - centre) * size)[:, None]
    these = special.betaincinv(alpha, beta, [[0.022, 0.978]])
    held = centre if adaptive else values
    return _holding(held, low_high), _holding(held, these), centre


def _rising(x: Floats, steps: NDArray[np.int64]) -> Floats:
    """log of x (x + 1) ... (x + steps - 1), shape (steps, x)."""
    known, of = np.unique(steps, return_inverse=True)
    base = special.gammaln(x)
    return np.stack([special.gammaln(x + step) - base for step in known])[of]


def _posterior(log: Floats) -> Floats:
    """Weights (runs, grid) that add up to 1."""
    weights = np.exp(log - log.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _holding(values: Floats, ends: Ends) -> Ends:
    """Ends that contain the values."""
    return np.stack([np.minimum(ends[:, 0], values), np.maximum(ends[:, 1], values)], axis=1)
