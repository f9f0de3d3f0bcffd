"""Searches for the highest load under service level objectives, against the capacity that follows from the model.

In virtual time: `perf --find`'s own decisions, from requests of the simulator's service model. The true capacity is
that of one long run a level. Prints how often the interval holds, the error, the levels and requests that it took, and
what a fixed grid of the same resolution takes.
"""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing
import multiprocessing.pool
import random
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from oss_eval.analysis.slo_search import (
    PRECISION,
    Level,
    Objective,
    Search,
    answer,
    enough,
    misses,
    next_level,
)
from oss_eval.simulator.profiles import PROFILES, Profile
from oss_eval.simulator.virtual_time import Replayed, closed_loop, open_loop

LOOK = 10
"""Requests between two looks at a level."""


class Case(NamedTuple):
    """A deployment, its answers, and an objective."""

    name: str
    what: str
    profile: Profile
    prompt: int
    tokens: int
    sigma: float
    objective: Objective
    start: float


SERVER = PROFILES["gpt-oss-20b-h20"]
CASES = [
    Case("rate, TTFT P95", "max-rate", SERVER, 512, 64, 0.5, Objective("ttft_p95<0.2s", "ttft", 200, 0.05), 2.0),
    Case("rate, TPOT P95", "max-rate", SERVER, 256, 64, 0.5, Objective("tpot_p95<20ms", "tpot", 20, 0.05), 2.0),
    Case(
        "parallel, TTFT P95",
        "max-parallel",
        SERVER,
        512,
        64,
        0.5,
        Objective("ttft_p95<0.3s", "ttft", 300, 0.05),
        8,
    ),
    Case(
        "parallel, TPOT P95", "max-parallel", SERVER, 128, 64, 0.5, Objective("tpot_p95<20ms", "tpot", 20, 0.05), 8
    ),
]


def requests(case: Case, level: float, seed: str) -> Iterator[Replayed]:
    """The requests of a level, in the order in which they end."""
    rng = random.Random(seed)

    def lengths(number: int) -> tuple[int, int]:
        return case.prompt, max(2, round(case.tokens * rng.lognormvariate(0, case.sigma)))

    if case.what == "max-parallel":
        return closed_loop(case.profile, int(level), lengths)
    return open_loop(case.profile, itertools.accumulate(iter(lambda: rng.expovariate(level), None)), lengths)


def duration(case: Case, one: Replayed) -> float:
    """What the objective limits, in ms."""
    if case.objective.duration == "ttft":
        return (one.first - one.start) * 1e3
    return (one.last - one.first) / (len(one.tokens) - 1) * 1e3


def measure(case: Case, level: float, seed: str, before: list[Level], warmup: float = 10.0) -> Level:
    """A level as `perf --find` measures it, after the levels `before`."""
    found: list[tuple[float, float]] = []
    slots = int(level) if case.what == "max-parallel" else 1
    busy = 0.0
    for one in requests(case, level, seed):
        if case.what == "max-rate" and one.start < warmup:
            continue
        if case.what == "max-parallel" and one.number < slots:
            continue
        found.append((one.start, duration(case, one)))
        busy += one.last - one.start
        if len(found) % LOOK == 0:
            found.sort()
            flight = slots if case.what == "max-parallel" else max(1, round(level * busy / len(found)))
            now = Level(level, (misses([value for _, value in found], case.objective, flight),))
            if enough(before, now, [case.objective], None):
                return now
    raise AssertionError("endless")


def share(case: Case, level: float, number: int) -> float:
    """The share of requests that miss the objective, in one long run."""
    slots = int(level) if case.what == "max-parallel" else int(30 * level)
    some = itertools.islice(requests(case, level, f"truth/{level}"), slots, slots + number)
    return float(np.mean([duration(case, one) > case.objective.limit_ms for one in some]))


def long_run(arguments: tuple[int, float, int]) -> float:
    """`share` of a case by its number."""
    number, level, count = arguments
    return share(CASES[number], level, count)


def truth(number: int, count: int, pool: multiprocessing.pool.Pool) -> float:
    """The capacity: where a smooth curve through the shares of misses of long runs is the allowed one; of a
    concurrency the highest whole number below it."""
    case = CASES[number]
    low, high = case.start, 2 * case.start
    while share(case, high, count // 10) < case.objective.allowed:
        low, high = high, high * 2
    for _ in range(5):
        middle = math.sqrt(low * high)
        if share(case, middle, count // 10) <= case.objective.allowed:
            low = middle
        else:
            high = middle
    levels = math.sqrt(low * high) * np.linspace(0.85, 1.15, 13)
    if case.what == "max-parallel":
        levels = np.unique(np.round(levels))
    shares = np.array(pool.map(long_run, [(number, float(level), count) for level in levels], chunksize=1))
    there = (shares > 0) & (shares < 1)
    if there.sum() < 5:  # a step
        return float(levels[shares <= case.objective.allowed].max())
    logits = np.log(shares[there] / (1 - shares[there]))
    curve = np.polyfit(logits, np.log(levels[there]), 2)
    allowed = math.log(case.objective.allowed / (1 - case.objective.allowed))
    found = math.exp(float(np.polyval(curve, allowed)))
    return math.floor(found) if case.what == "max-parallel" else found


def one_search(arguments: tuple[int, int]) -> tuple[float, float | None, float | None, int, int, bool, int]:
    """(value, low, high, levels, requests, finished, requests of the longest level) of a search."""
    number, seed = arguments
    case = CASES[number]
    search = Search(case.what, (case.objective,), case.start, 4096)  # type: ignore[arg-type]
    levels: list[Level] = []
    while (level := next_level(search, levels)) is not None:
        levels.append(measure(case, level, f"{seed}/{len(levels)}", levels))
    found = answer(search, levels)
    total = sum(level.misses[0].n for level in levels)
    longest = max(level.misses[0].n for level in levels)
    return found.value or 0.0, found.low, found.high, len(levels), total, found.finished, longest


def main() -> None:
    """Print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=200)
    parser.add_argument("--truth", type=int, default=40_000, help="requests in each of 13 long runs")
    parser.add_argument("--cases", type=int, nargs="+", default=list(range(len(CASES))))
    options = parser.parse_args()
    print(
        f"{'case':22}{'truth':>8}{'covered':>9}{'within 5%':>10}{'error':>8}{'levels':>8}{'requests':>10}{'grid':>8}"
    )
    with multiprocessing.Pool() as pool:
        for number in options.cases:
            case = CASES[number]
            true = truth(number, options.truth, pool)
            found = pool.map(one_search, [(number, seed) for seed in range(options.searches)], chunksize=5)
            values = np.array([value for value, *_ in found])
            held = np.mean([(low or 0) <= true <= (high or math.inf) for _, low, high, *_ in found])
            # A grid from half to twice the truth, its steps twice the precision apart, each level as long as the
            # longest of the search.
            grid = math.log(4) / math.log(1 + 2 * PRECISION)
            most = max(f[6] for f in found)
            print(
                f"{case.name:22}{true:8.2f}{held:9.1%}{np.mean(np.abs(values / true - 1) <= 0.05):10.1%}"
                f"{np.std(values / true):8.1%}{np.mean([f[3] for f in found]):8.1f}{np.mean([f[4] for f in found]):10.0f}"
                f"{grid * most:8.0f}   bias {np.mean(values / true) - 1:+.1%} finished "
                f"{np.mean([f[5] for f in found]):.0%} most levels {max(f[3] for f in found)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
