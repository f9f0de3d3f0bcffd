"""The search for the highest load: what it decides, where it goes, when it ends; on the service model in virtual time."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from oss_eval.analysis.gate import parse
from oss_eval.analysis.slo import objectives
from oss_eval.analysis.slo_search import (
    MOST_LEVELS,
    Level,
    Misses,
    Objective,
    Search,
    answer,
    enough,
    known,
    misses,
    next_level,
    objective,
)
from oss_eval.errors import UsageError

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from search import CASES, measure

P99 = Objective("ttft_p99<1s", "ttft", 1000, 0.01)


def independent(level: float, share: float, n: int, seed: int = 0, one: Objective = P99) -> Level:
    rng = np.random.default_rng(seed)
    values = np.where(rng.random(n) < share, 2 * one.limit_ms, rng.uniform(0.3, 0.9, n) * one.limit_ms)
    return Level(level, (misses(values.tolist(), one, 4),))


def test_what_can_be_searched_by() -> None:
    texts = ("ttft_p99<2s", "ttft_p50<500ms", "tpot_p95<50ms", "success>99%")
    asked = objectives(texts)
    found = [objective(condition) for condition in asked.conditions]
    assert [(o.duration, o.limit_ms, round(o.allowed, 6)) for o in found] == [
        ("ttft", 2000.0, 0.01), ("ttft", 500.0, 0.5), ("tpot", 50.0, 0.05), (None, math.inf, 0.01),
    ]  # fmt: skip
    for text in ("ttft_mean<2s", "ttft_p99>2s", "rps>3", "success<99%", "ttft_max<2s", "itl_p99<1s"):
        with pytest.raises(UsageError, match="can't search by"):
            objective(parse(text, "--slo"))


def test_a_level_is_known_when_the_bound_is_on_one_side() -> None:
    """With independent requests, exactly where Clopper and Pearson's bounds say so."""
    for missed in range(0, 60, 3):
        counts = Misses(2000, missed, 1, 1.0, 5, 0.5)
        upper = stats.beta.ppf(0.99, missed + 1, 2000 - missed)
        lower = stats.beta.ppf(0.01, missed, 2000 - missed + 1) if missed else 0.0
        expected = True if upper < 0.01 else False if lower > 0.01 else None
        assert known(counts, 0.01, 1.0) is expected, missed


def test_requests_that_miss_together_tell_less() -> None:
    rng = np.random.default_rng(1)
    alone = rng.random(4000) < 0.05
    bursts = np.repeat(rng.random(200) < 0.05, 20)
    one = Objective("x", "ttft", 1.0, 0.05)
    factors = [misses(np.where(some, 2.0, 0.5).tolist(), one, 40).factor for some in (alone, bursts)]
    assert factors[0] < 4
    assert factors[1] > 8


def test_a_level_ends_when_more_requests_would_tell_little() -> None:
    few, many = independent(10, 0.01, 1500), independent(10, 0.01, 12_000)
    assert not enough([], few, [P99], None)
    assert enough([], many, [P99], None)
    assert enough([], few, [P99], 1000), "--number limits a level"
    assert enough([], independent(10, 0.5, 200), [P99], None), "most miss: known at once"


def test_levels_go_up_until_one_fails_and_then_between() -> None:
    search = Search("max-rate", (P99,), 1.0, 1e4)
    levels: list[Level] = []
    for _ in range(20):
        level = next_level(search, levels)
        if level is None:
            break
        share = float(1 / (1 + np.exp(-(math.log(0.01 / 0.99) + 12 * math.log(level / 20)))))
        levels.append(independent(level, share, 8000, len(levels)))
    assert [one.level for one in levels[:6]] == [1, 2, 4, 8, 16, 32]
    found = answer(search, levels)
    assert len(levels) <= MOST_LEVELS
    assert found.value == pytest.approx(20, rel=0.05)
    assert found.low < 20 < found.high


def test_a_step_is_found_to_the_whole_number_and_named_a_cliff() -> None:
    search = Search("max-parallel", (P99,), 8.0, 4096.0)
    levels: list[Level] = []
    while (level := next_level(search, levels)) is not None:
        levels.append(independent(level, 0.0 if level <= 57 else 0.9, 2500, len(levels)))
    found = answer(search, levels)
    assert (found.value, found.low, found.high, found.finished, found.cliff) == (57, 57, 58, True, True)
    assert len(levels) <= MOST_LEVELS


def test_nothing_holds_and_everything_holds() -> None:
    search = Search("max-parallel", (P99,), 8.0, 64.0)
    none: list[Level] = []
    while (level := next_level(search, none)) is not None:
        none.append(independent(level, 0.9, 500, len(none)))
    assert (answer(search, none).value, [one.level for one in none]) == (0, [8, 4, 2, 1])
    every: list[Level] = []
    while (level := next_level(search, every)) is not None:
        every.append(independent(level, 0.0, 2500, len(every)))
    found = answer(search, every)
    assert (found.value, found.high, [one.level for one in every]) == (64, None, [8, 16, 32, 64])
    assert "highest level" in found.why


def test_levels_on_one_side_give_a_bound_and_no_value() -> None:
    search = Search("max-rate", (P99,), 1.0, 1e4)
    found = answer(search, [independent(24, 0.99, 1500), independent(12, 0.93, 700, 1)])
    assert (found.value, found.low, found.high, found.finished) == (None, None, 12, False)
    found = answer(search, [independent(2, 0.0, 2500), independent(4, 0.0, 2500, 1)])
    assert (found.value, found.low, found.high, found.finished) == (None, 4, None, False)


def test_an_overloaded_level_fails_whatever_it_measured() -> None:
    search = Search("max-rate", (P99,), 1.0, 1e4)
    levels = [independent(4, 0.0, 2500), Level(8, independent(8, 0.0, 2500).misses, overloaded=True)]
    assert 4 < next_level(search, levels) < 8


def test_the_capacity_of_the_service_model() -> None:
    """TPOT of a closed loop follows from the profile: step + cost of the sequences. A few searches; benchmarks/search.py
    has hundreds."""
    case = CASES[3]
    for seed in range(3):
        search = Search("max-parallel", (case.objective,), case.start, 4096)
        levels: list[Level] = []
        while (level := next_level(search, levels)) is not None:
            levels.append(measure(case, level, f"{seed}/{len(levels)}", levels))
        found = answer(search, levels)
        assert found.value == pytest.approx(37, rel=0.06)
        assert len(levels) <= MOST_LEVELS
