"""Whether a series of values drifts: over batches, so that it does not matter how requests depend on each
other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from oss_eval.analysis.request_rows import Floats

BATCHES = 10
Z_OF_TREND = 2.6
"""Of Kendall's statistic over BATCHES batches: p below 0.01."""


class Trend(NamedTuple):
    """How a series changes from its begin to its end."""

    change: float
    """Last third less first third, by the mean of all."""
    z: float
    """Kendall's statistic over the batches, in standard deviations."""


def trend(values: Floats) -> Trend | None:
    """The trend of a series (Mann 1945, Econometrica 13, 245-259, over the means of BATCHES equal batches); None
    with fewer than two values a batch, or a mean of 0."""
    if len(values) < 2 * BATCHES or not values.mean():
        return None
    means = np.array([part.mean() for part in np.array_split(values, BATCHES)])
    above = np.sign(means[None, :] - means[:, None])
    score = float(np.triu(above, 1).sum())
    n = BATCHES
    deviation = float(np.sqrt(n * (n - 1) * (2 * n + 5) / 18))
    third = len(values) // 3
    change = float((values[-third:].mean() - values[:third].mean()) / values.mean())
    return Trend(change, (score - np.sign(score)) / deviation)


def drifts(values: Floats, least: float) -> float | None:
    """The relative change of a series, if it is a trend and at least `least` in size; None if not."""
    found = trend(values)
    return found.change if found is not None and abs(found.z) > Z_OF_TREND and abs(found.change) >= least else None


def truncation(values: Floats, batch: int, least: float) -> int:
    """How many of the first values, at most half, belong to a start that is unlike the rest: MSER over batches
    of `batch` values (White 1997, Simulation 69, 323-334), if their mean differs by the share `least` from that
    of the rest. Whether the rest is steady is for `drifts` to say."""
    count = len(values) // batch
    if count < 4:
        return 0
    means = values[: count * batch].reshape(count, batch).mean(axis=1)
    tail_sum, tail_squares = np.cumsum(means[::-1])[::-1], np.cumsum(means[::-1] ** 2)[::-1]
    left = np.arange(count, 0, -1)
    error = (tail_squares - tail_sum**2 / left) / left**2
    best = int(np.argmin(error[: count // 2 + 1]))
    if not best or abs(means[:best].mean() - means[best:].mean()) < least * abs(means[best:].mean()):
        return 0
    return best * batch
