"""The highest load at which service level objectives hold: which level to measure next, and what is known so far.

Of each objective on a percentile, requests miss its limit or not. The share that misses is taken to grow with
the load x as a logistic curve in log(x), around the load at which it is the allowed one: logit(share) =
logit(allowed) + slope * (log(x) - log(capacity)). The interval of the capacity is that of the profile likelihood
(Venzon and Moolgavkar 1988, Applied Statistics 37, 87-94), whose deviance is divided by the dispersion: requests
that run together miss together. With several objectives the capacity is the lowest of theirs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from scipy import special

from oss_eval.analysis import gate
from oss_eval.analysis.gate import Condition
from oss_eval.analysis.request_rows import Floats
from oss_eval.errors import UsageError

What = Literal["max-parallel", "max-rate"]
MOST_LEVELS = 12
PRECISION = 0.03
"""Half the width of the interval at which a search ends, relative to its value."""
DECIDED = 0.01
"""Error of the decision that a level meets or misses an objective."""
PER_ALLOWED, MOST_PER_ALLOWED = 20, 100
"""A level ends undecided when so many independent misses were to be expected at the limit, or so many in all:
after 2,000 to 10,000 requests for a P99."""
FEWEST = 20
"""Requests before a level is judged."""
WAVES, FAR_WAVES, CLIFF_WAVES, FAR = 30, 10, 2, 1.5
"""The same in times the requests in flight: where the percentile is within the factor FAR of its limit, where it
is not, and where most requests miss."""
BATCHES = 6
STOPPING = 1.6
"""Levels and searches end when an interval happens to be narrow. The deviance that it allows is widened by this
factor, which benchmarks/search.py shows to make up for that."""
STEP = 2.0
"""Factor from level to level while the limit is not enclosed."""
CLIFF = 0.5
"""A share of misses that is no longer close to the limit."""
CLIFF_STEP = 1.10
"""From a level that meets the objectives to one where more than CLIFF miss: within this factor it is a cliff."""
NEAR, FAR_WEIGHT = 0.3, 0.01
"""Distance in log(load) at which a level counts for 1/e, and what the farthest ones count (local likelihood:
Loader 1999, Local Regression and Likelihood, chapter 4)."""
SLOPES = np.geomspace(1.0, 2000.0, 120)
"""Slopes that are considered: from one that hardly depends on the load to a step."""


class Objective(NamedTuple):
    """A condition as a share of requests that may miss it."""

    text: str
    duration: str | None
    """Which duration of a request it limits; None: whether it succeeds."""
    limit_ms: float
    allowed: float


def objective(condition: Condition) -> Objective:
    """A condition such as `ttft_p99<2s` or `success>99%`. Raises UsageError for one that is no share of
    requests."""
    name = condition.metric.removesuffix("_ms")
    if name in ("success", "success_rate") and condition.operator[0] == ">":
        share = condition.value / 100 if condition.unit == "%" else condition.value
        if 0 < share < 1:
            return Objective(condition.text, None, math.inf, 1 - share)
    elif condition.stat in ("p50", "p90", "p95", "p99") and condition.operator[0] == "<" and name in gate.LIMITED:
        return Objective(condition.text, name, gate.in_ms(condition), 1 - int(condition.stat[1:]) / 100)
    raise UsageError(
        f"--find can't search by {condition.text!r}",
        f"it needs limits of percentiles of {', '.join(gate.LIMITED)}, or a success rate: "
        "--slo 'ttft_p99<2s' 'success>99%'",
    )


class Misses(NamedTuple):
    """How a level's requests met one objective."""

    n: int
    missed: int
    together: int
    """Requests in flight together: they are not independent."""
    factor: float
    """How much more the share that misses varies than that of independent requests."""
    freedom: int
    """Degrees of freedom of `factor`; 0: it is not known."""
    ratio: float
    """The percentile by its limit."""


def misses(values_ms: Sequence[float], objective: Objective, together: int) -> Misses:
    """From the durations of requests in order of start, infinite of one that failed; `together`: requests in
    flight.

    How much the share varies is told by batches, of `together` requests at least, and at the limit, or where fewer
    miss it than may, at the sample's own percentile: where none has missed, nothing else tells how they would.
    """
    values = np.asarray(values_ms, dtype=np.float64)
    limit, n = objective.limit_ms, len(values)
    if objective.duration is None:
        values, limit, together = np.where(np.isinf(values), 2.0, 0.0), 1.0, 1
    missed = int((values > limit).sum())
    if not n:
        return Misses(0, 0, together, 1.0, 0, 1.0)
    at = float(np.quantile(values, 1 - objective.allowed, method="lower"))
    batches = min(BATCHES, n // together)
    above = (values > min(at, limit)).astype(np.float64)
    share = above.mean()
    if batches < 2 or not 0 < share < 1:
        return Misses(n, missed, together, 1.0, max(0, batches - 1), at / limit)
    scatter = sum(len(part) * (part.mean() - share) ** 2 for part in np.array_split(above, batches))
    factor = float(scatter) / (batches - 1) / (share * (1 - share))
    return Misses(n, missed, together, factor, batches - 1, at / limit)


@dataclass(frozen=True, slots=True)
class Level:
    """A level that was measured."""

    level: float
    misses: tuple[Misses, ...]
    """For each objective."""
    overloaded: bool = False
    """Whether more requests arrived than ended: what it measured depends on how long it ran."""


def dispersion(counts: Sequence[Misses]) -> tuple[float, int]:
    """(`Misses.factor` over several levels, at least 1, its degrees of freedom): of those whose percentile is
    close to the limit, if there are any."""
    told = [c for c in counts if c.freedom]
    near = [c for c in told if _is_near(c)] or told
    freedom = sum(c.freedom for c in near)
    return (max(1.0, sum(c.factor * c.freedom for c in near) / freedom), freedom) if freedom else (1.0, 1)


def _is_near(counts: Misses) -> bool:
    """Whether the percentile of a level is close to its limit."""
    return 1 / FAR < counts.ratio < FAR


def known(counts: Misses, allowed: float, factor: float) -> bool | None:
    """Whether a level meets (True) or misses (False) an objective, with an error of DECIDED; None: not known yet.
    `factor`: see `dispersion`.

    By Clopper and Pearson's bounds, of as many independent requests as have the same variance.
    """
    waves = WAVES if _is_near(counts) else FAR_WAVES
    if counts.missed > CLIFF * counts.n and counts.ratio > FAR:
        waves = CLIFF_WAVES
    if counts.n < max(FEWEST, waves * counts.together):
        return None  # few that are independent: how much they vary can't be told
    if waves == WAVES and counts.n * allowed < min(PER_ALLOWED * factor, MOST_PER_ALLOWED) / 2:
        return None  # close to the limit an early decision would often be chance
    n, missed = counts.n / factor, counts.missed / factor
    if missed and special.betainc(missed, n - missed + 1, allowed) < DECIDED:
        return False
    if missed < n and special.betainc(missed + 1, n - missed, allowed) > 1 - DECIDED:
        return True
    return None


def states(levels: Sequence[Level], objectives: Sequence[Objective]) -> list[list[bool | None]]:
    """For each level, whether it meets each objective; None: not known."""
    factors = [dispersion([level.misses[n] for level in levels])[0] for n in range(len(objectives))]
    return [
        [
            False if level.overloaded else known(c, o.allowed, factor if _is_near(c) else max(1.0, c.factor))
            for c, o, factor in zip(level.misses, objectives, factors, strict=True)
        ]
        for level in levels
    ]


def meets(levels: Sequence[Level], objectives: Sequence[Objective]) -> list[bool | None]:
    """Whether each level meets all objectives; None: not known."""
    return [False if False in some else None if None in some else True for some in states(levels, objectives)]


def enough(before: Sequence[Level], level: Level, objectives: Sequence[Objective], most: int | None) -> bool:
    """Whether a level has been measured for long enough, after the levels `before`: all objectives are met or
    one is missed, or further requests would tell little. `most`: requests at which it ends in any case."""
    levels = [*before, level]
    found = states(levels, objectives)[-1]
    if False in found or None not in found or (most is not None and level.misses[0].n >= most):
        return True
    for number, (c, o, state) in enumerate(zip(level.misses, objectives, found, strict=True)):
        factor, _ = dispersion([one.misses[number] for one in levels])
        wanted = min(PER_ALLOWED * factor, MOST_PER_ALLOWED) / o.allowed
        if state is None and (c.n < wanted or c.n < WAVES * c.together):
            return False
    return True


class Capacity(NamedTuple):
    """What is known of the highest load: an estimate, and its 95% interval; an end is None where no level
    tells."""

    value: float | None
    low: float | None
    high: float | None


def capacity(levels: Sequence[Level], objectives: Sequence[Objective]) -> Capacity:
    """The highest load that meets all objectives."""
    found = [_of_one(levels, number, o.allowed) for number, o in enumerate(objectives)]
    return Capacity(*(min((v for v in ends if v is not None), default=None) for ends in zip(*found, strict=True)))


def _of_one(levels: Sequence[Level], number: int, allowed: float) -> Capacity:
    """By one objective."""
    x = np.log([level.level for level in levels])
    counts = [level.misses[number] for level in levels]
    over = np.array([level.overloaded for level in levels])
    n = np.array([max(c.n, 1) for c in counts], dtype=np.float64)
    missed = np.array([float(c.missed) for c in counts])
    missed[over] = n[over]  # they would all have missed, in time
    factor, freedom = dispersion([c for c, o in zip(counts, over, strict=True) if not o])
    low, high = x.min() - math.log(STEP), x.max() + math.log(STEP)
    at = np.linspace(low, high, 1201)
    score = math.log(allowed / (1 - allowed)) + SLOPES[None, :, None] * (x[None, None, :] - at[:, None, None])
    # What misses by far says that the capacity is below, and not how the curve goes near it.
    most = max(1.5 * allowed, min(0.5, 5 * allowed))
    capped = missed > most * n
    missed = np.minimum(missed, most * n)
    score = np.where(capped, np.minimum(score, math.log(most / (1 - most))), score)
    each = (missed * special.log_expit(score) + (n - missed) * special.log_expit(-score)) / factor
    likelihood = each.sum(axis=2).max(axis=1)
    # Once more with what is near it: far away the curve is another one.
    weights = np.maximum(np.exp(-(((x - at[int(likelihood.argmax())]) / NEAR) ** 2)), FAR_WEIGHT)
    local = (each * weights).sum(axis=2)
    likelihood = local.max(axis=1)
    best = int(likelihood.argmax())
    share = special.expit(score[best, int(local[best].argmax())])
    limit = STOPPING * float(special.fdtri(1, freedom, 0.95)) * _lack_of_fit(n, missed, share, factor, weights)
    inside = np.flatnonzero(2 * (likelihood[best] - likelihood) <= limit)
    middle = np.flatnonzero(likelihood >= likelihood[best] - 1e-6)  # a flat top is a step somewhere in it
    value = math.exp(float(at[middle].mean()))
    first, last = int(inside[0]), int(inside[-1])
    return Capacity(
        value if first > 0 or last < len(at) - 1 else None,
        math.exp(at[first]) if first > 0 else None,
        math.exp(at[last]) if last < len(at) - 1 else None,
    )


def _lack_of_fit(n: Floats, missed: Floats, share: Floats, factor: float, weights: Floats) -> float:
    """How much more levels differ from the curve than requests within them tell, at least 1: Pearson's statistic
    by its degrees of freedom (McCullagh and Nelder 1989, Generalized Linear Models, section 4.5)."""
    expected = n * share * (1 - share) * factor
    told = expected > 1
    freedom = float(weights[told].sum()) - 2
    if freedom < 1:
        return 1.0
    residuals = weights[told] * (missed[told] - n[told] * share[told]) ** 2 / expected[told]
    return max(1.0, float(residuals.sum()) / freedom)


class Search(NamedTuple):
    """What a search looks for, and where it begins."""

    what: What
    objectives: tuple[Objective, ...]
    start: float
    highest: float
    """No level above this is tried."""


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """The result of a search. `value` is None where no level told; an end of the interval likewise."""

    what: What
    value: float | None
    low: float | None
    high: float | None
    cliff: bool
    """Whether the objectives are missed by far right above it."""
    finished: bool
    """Whether the interval is as narrow as asked for."""
    why: str


def next_level(search: Search, levels: Sequence[Level]) -> float | None:
    """The level to measure next; None when the search is over."""
    if not levels:
        return _allowed(search, search.start)
    if len(levels) >= MOST_LEVELS or answer(search, levels).finished:
        return None
    tried = sorted(level.level for level in levels)
    met = meets(levels, search.objectives)
    passed = [level.level for level, state in zip(levels, met, strict=True) if state is True]
    failed = [level.level for level, state in zip(levels, met, strict=True) if state is False]
    if not failed and (not passed or max(passed) == tried[-1]):
        return _new(search, tried[-1] * STEP, tried)
    if not passed and min(failed) == tried[0]:
        return _new(search, tried[0] / STEP, tried)
    found = capacity(levels, search.objectives)
    low = found.low or max([t for t in passed if not failed or t < min(failed)], default=tried[0] / STEP)
    high = found.high or min(failed, default=tried[-1] * STEP)
    middle = found.value or math.sqrt(low * high)
    below, above = math.sqrt(low * middle), math.sqrt(middle * high)
    # One side after the other: what lies on both tells how steep the curve is.
    near = [middle, *((below, above) if sum(t <= middle for t in tried) < len(tried) / 2 else (above, below))]
    for wish in near:
        new = _new(search, wish, tried)
        if new is not None:
            return new
    # All are tried: the one that says least of the capacity once more.
    counts = {level: sum(one.misses[0].n for one in levels if one.level == level) for level in tried}
    between = [level for level in counts if low <= level <= high]
    return min(between, key=counts.__getitem__) if between else None


def _new(search: Search, wish: float, tried: Sequence[float]) -> float | None:
    """The level nearest to a wish that can be tried and has not been; None if there is none."""
    level = _allowed(search, wish)
    gap = 0.25 if search.what == "max-parallel" else level * PRECISION / 10
    return None if any(abs(level - other) < gap for other in tried) else level


def _allowed(search: Search, level: float) -> float:
    if search.what == "max-parallel":
        return float(min(max(1, round(level)), int(search.highest)))
    return float(f"{min(level, search.highest):.4g}")


def answer(search: Search, levels: Sequence[Level]) -> SearchAnswer:
    """What the levels tell."""
    value, low, high = capacity(levels, search.objectives)
    tried = sorted(levels, key=lambda level: level.level)
    met = meets(tried, search.objectives)
    if met[-1] and tried[-1].level >= search.highest:
        return SearchAnswer(
            search.what, search.highest, search.highest, None, False, True, "the highest level meets it"
        )
    if search.what == "max-parallel":
        if met[0] is False and tried[0].level <= 1:
            return SearchAnswer(search.what, 0.0, 0.0, 0.0, False, True, "one request at a time misses it")
        value, low, high = (None if end is None else math.floor(end + 1e-9) for end in (value, low, high))
        passed = [level.level for level, state in zip(tried, met, strict=True) if state]
        failed = [level.level for level, state in zip(tried, met, strict=True) if state is False]
        if passed and failed and max(passed) + 1 == min(failed):
            value, low, high = max(passed), max(passed), max(passed)
        elif low is not None and high is not None:
            # One that is known to meet them is a better answer than one between levels.
            value = max((level for level in passed if low <= level <= high), default=value)
    passed = [level.level for level, state in zip(tried, met, strict=True) if state]
    failed = [level.level for level, state in zip(tried, met, strict=True) if state is False]
    if failed and not passed:  # the curve says nothing below the lowest level
        why = f"{len(levels)} levels, none of which meets it"
        return SearchAnswer(search.what, None, None, min(failed), False, False, why)
    if passed and not failed and value is not None and value > tried[-1].level:
        return SearchAnswer(
            search.what, None, max(passed), None, False, False, f"{len(levels)} levels, none misses it"
        )
    narrow = value is not None and low is not None and high is not None
    width = max(1.0 if search.what == "max-parallel" else 0.0, 2 * PRECISION * (value or 0.0))
    finished = narrow and (high or 0.0) - (low or 0.0) <= width
    why = "the interval is narrow enough" if finished else f"{len(levels)} levels"
    return SearchAnswer(search.what, value, low, high, _is_cliff(tried, met), bool(finished), why)


def _is_cliff(tried: Sequence[Level], met: Sequence[bool | None]) -> bool:
    """Whether neighbouring levels go from meeting the objectives to missing them by far."""
    for (before, state), (after, _) in pairwise(zip(tried, met, strict=True)):
        near = after.level <= max(before.level * CLIFF_STEP, before.level + 1)
        far = after.overloaded or max(c.missed / max(c.n, 1) for c in after.misses) > CLIFF
        if near and far and state is not False:
            return True
    return False
