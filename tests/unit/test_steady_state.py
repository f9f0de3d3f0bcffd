"""The steady state is found where there is one, has the stationary figures, and is not claimed where there is none."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import numpy as np
import pyarrow as pa
import pytest

from oss_eval.analysis.arrivals import queue_growth
from oss_eval.analysis.figures import PointMetrics
from oss_eval.analysis.steady_metrics import steady_metrics
from oss_eval.analysis.steady_state import SteadyWindow, steady_window
from oss_eval.analysis.trend import drifts, truncation
from oss_eval.simulator.profiles import PROFILES, Profile
from oss_eval.simulator.virtual_time import closed_loop, open_loop
from tests.helpers.virtual_time import stored

SERVER = replace(PROFILES["gpt-oss-20b-h20"], prefill_ms=0.02)


def burst(
    seed: int, parallel: int, number: int | None, slower: Callable[[float], float] = lambda now: 1.0
) -> pa.Table:
    """A closed loop that starts all at once, with prompts and answers of varied lengths."""
    rng = random.Random(seed)

    def lengths(_: int) -> tuple[int, int]:
        return rng.randint(500, 3500), round(100 * rng.lognormvariate(0, 0.4))

    return stored(closed_loop(SERVER, parallel, lengths, number, slower), parallel)


def figures(rows: pa.Table) -> PointMetrics:
    window = steady_window(rows)
    assert isinstance(window, SteadyWindow), window
    return steady_metrics(rows, window, [rows])


def stationary(parallel: int) -> tuple[float, float, float]:
    """TTFT P50 and P99 in ms, and tokens/s, of a long run without its first tenth."""
    rows = burst(99, parallel, 80 * parallel).slice(8 * parallel, 64 * parallel)
    starts = rows["start_ns"].to_numpy()
    waits = (rows["first_token_ns"].to_numpy() - starts) / 1e6
    times = np.concatenate([np.array(e) + s for e, s in zip(rows["event_ns"].to_pylist(), starts, strict=True)])
    begin, end = np.percentile(starts, [10, 90])
    rate = ((times >= begin) & (times < end)).sum() / ((end - begin) / 1e9)
    return float(np.percentile(waits, 50)), float(np.percentile(waits, 99)), float(rate)


def test_a_burst_at_the_start_is_left_out() -> None:
    """At four requests a slot: the whole run's P99 is that of the burst, the steady state's is the stationary one."""
    parallel = 100
    p50, p99, rate = stationary(parallel)
    kept: list[float] = []
    rates: list[float] = []
    for seed in range(20):
        rows = burst(seed, parallel, 4 * parallel)
        starts = rows["start_ns"].to_numpy()
        waits = (rows["first_token_ns"].to_numpy() - starts) / 1e6
        assert np.percentile(waits, 99) > 4 * p99, "the burst is long"
        window = steady_window(rows)
        if isinstance(window, SteadyWindow):
            found = steady_metrics(rows, window, [rows])
            rates.append(found.get("output_tps") or 0.0)
            some = waits[(starts >= window.start_ns) & (starts < window.until_ns["ttft"])]
            assert found.get("ttft_ms", "p99") == pytest.approx(np.percentile(some, 99))
            kept += some.tolist()
    assert len(kept) > 19 * 100, "nearly all runs have a steady state"
    assert np.mean(rates) == pytest.approx(rate, rel=0.02)
    assert rates == pytest.approx([rate] * len(rates), rel=0.08)
    # A P99 of a single run has an error of its own: it is that of some 200 values.
    assert np.percentile(kept, 50) == pytest.approx(p50, rel=0.05)
    assert np.percentile(kept, 99) == pytest.approx(p99, rel=0.06)


def test_a_cold_server_is_cut() -> None:
    """Steps take three times as long for the first two waves of ten."""
    cold = burst(1, 20, 200, lambda now: 3.0 if now < 4 else 1.0)
    warm = figures(burst(2, 20, 200))
    found = figures(cold)
    assert found.get("tpot_ms", "mean") == pytest.approx(warm.get("tpot_ms", "mean"), rel=0.05)
    begin = steady_window(cold).start_ns - cold["start_ns"].to_numpy().min()
    assert 3.0e9 < begin < 7e9


@pytest.mark.parametrize("growth", [0.05, -0.02])
def test_a_run_that_only_drifts_has_none(growth: float) -> None:
    """Each second steps take 5% longer, or 2% less, than at the start."""
    rows = burst(1, 20, 240, lambda now: max(0.2, 1 + growth * now))
    window = steady_window(rows)
    assert isinstance(window, str)
    assert "changes by" in window


def test_a_steady_run_is_seldom_refused() -> None:
    """A run without any drift: at most 5% of them."""
    refused = [isinstance(steady_window(burst(seed, 10, 100)), str) for seed in range(60)]
    assert sum(refused) <= 3


def test_few_requests_have_none() -> None:
    assert "requests" in str(steady_window(burst(1, 8, 16)))
    assert "one request for each slot" in str(steady_window(burst(1, 8, 8)))


def test_warm_slots_lose_nothing() -> None:
    """With a warm-up, and load kept up to the end, all measured requests are in the window."""
    rng = random.Random(4)
    some = list(islice(closed_loop(SERVER, 20, lambda _: (200, rng.randint(80, 120))), 160))
    rows = stored([one for one in some if one.number < 140], 20, warmup=20)
    rows = rows.set_column(1, "warmup", pa.array([n < 20 or n >= 120 for n in range(rows.num_rows)]))
    assert figures(rows).get("requests") >= 95


def test_goodput_counts_a_failure_once() -> None:
    """Half of the requests fail at once, the others meet the limit: goodput is the rate of successes."""
    rows = burst(1, 20, 400)
    failed = [number % 2 == 1 for number in range(rows.num_rows)]
    status = pa.array(["error" if one else "ok" for one in failed])
    rows = rows.set_column(rows.column_names.index("status"), "status", status)
    window = steady_window(rows)
    assert isinstance(window, SteadyWindow), window
    found = steady_metrics(rows, window, [rows], {"latency": 1e9})
    assert found.get("attainment") == pytest.approx(0.5, abs=0.02)
    assert found.get("goodput") == pytest.approx(found.get("rps"), rel=0.02)


def test_an_open_loop_that_can_not_keep_up() -> None:
    """At a rate below the server's limit nothing grows, above it the queue does."""
    rng = random.Random(5)

    def arriving(rate: float, count: int) -> pa.Table:
        times = np.cumsum([rng.expovariate(rate) for _ in range(20 * count)])
        served: Profile = replace(SERVER, max_sequences=16)
        return stored(islice(open_loop(served, iter(times), lambda _: (200, 100)), count), None, rate)

    assert queue_growth(arriving(8.0, 400)) is None
    window = steady_window(arriving(8.0, 400))
    assert isinstance(window, SteadyWindow)
    assert window.in_flight == pytest.approx(8 * 1.0, rel=0.5)
    growth = queue_growth(arriving(40.0, 400))
    assert growth is not None
    assert growth > 10


def test_drift_is_a_trend_and_not_noise() -> None:
    rng = np.random.default_rng(1)
    assert drifts(10 + rng.normal(size=400), 0.1) is None
    assert drifts(np.linspace(10, 13, 400) + rng.normal(size=400), 0.1) == pytest.approx(0.17, abs=0.05)
    found = [drifts(10 + rng.normal(size=200), 0.0) is not None for _ in range(1000)]
    assert np.mean(found) < 0.02, "p below 0.01"


def test_truncation_finds_the_start() -> None:
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.normal(30, 1, 40), rng.normal(10, 1, 200)])
    assert 40 <= truncation(values, 5, 0.05) <= 50
    assert truncation(rng.normal(10, 1, 200), 5, 0.05) == 0, "no difference, nothing cut"
