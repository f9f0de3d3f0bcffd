"""Statistics against scipy, metrics against plain loops over the same rows."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep

from oss_eval.analysis import stats
from oss_eval.analysis.latency import earliest_ttft, gaps, request_durations, token_gaps
from oss_eval.analysis.metrics import point_metrics
from oss_eval.analysis.slo import Goodput, goodput
from oss_eval.analysis.steady_state import event_weights, plateau_span, slow_start
from oss_eval.records import RequestRecord
from oss_eval.results.tables import requests_table
from tests.helpers.exchanges import blank_record

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=200)
MS = 1_000_000


@given(st.integers(1, 300), st.data())
def test_proportion(total: int, data: st.DataObject) -> None:
    good = data.draw(st.integers(0, total))
    found = stats.proportion(good, total)
    theirs = reference.binomtest(good, total).proportion_ci(0.95, method="wilson")
    assert found == pytest.approx((good / total, theirs.low, theirs.high), abs=1e-12)
    assert (found.low == 0, found.high == 1) == (good == 0, good == total)


@given(st.integers(1, 10_000_000))
def test_quantiles(n: int) -> None:
    assert stats.student(n) == pytest.approx(reference.t.ppf(0.975, n), rel=1e-9)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm(p_values: list[float]) -> None:
    assert stats.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_welch() -> None:
    rng = np.random.default_rng(3)
    for n, m in ((5, 5), (3, 8), (80, 120)):
        a, b = rng.normal(10, 2, n), rng.normal(10.5, 3, m)
        found = stats.welch(a, b)
        theirs = reference.ttest_ind(b, a, equal_var=False)
        interval = theirs.confidence_interval(0.95)
        assert found is not None
        assert (found.value, found.low, found.high, found.p) == pytest.approx(
            (b.mean() - a.mean(), interval.low, interval.high, theirs.pvalue)
        )
    assert stats.welch([1.0], [2.0, 3.0]) is None
    assert stats.welch([1.0, 1.0], [2.0, 2.0]) is None


@settings(deadline=None)
@given(st.floats(0.1, 10), st.floats(0.1, 10), st.floats(0.01, 0.5), st.floats(0.01, 0.5))
def test_a_ratio_is_the_same_from_both_sides(a: float, b: float, spread_a: float, spread_b: float) -> None:
    one, two = (stats.Estimate(v, v * (1 - s), v * (1 + s)) for v, s in ((a, spread_a), (b, spread_b)))
    found, turned = stats.ratio(one, two), stats.ratio(two, one)
    assert found is not None
    assert turned is not None
    assert 1 + found.value == pytest.approx(b / a)
    assert 1 + found.low == pytest.approx(1 / (1 + turned.high))
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


def row(start: int, events: list[int], tokens: int | None = None, **changes: object) -> RequestRecord:
    """A successful stream: start in ms, events in ms after it."""
    record = blank_record(start * MS)
    record.event_ns = [e * MS for e in events] or None
    record.n_events = len(events)
    record.completion_tokens = len(events) if tokens is None else tokens
    if events:
        record.first_token_ns = record.first_answer_ns = (start + events[0]) * MS
        record.last_token_ns = (start + events[-1]) * MS
    record.end_ns = (start + (events[-1] if events else 100) + 1) * MS
    for name, value in changes.items():
        setattr(record, name, value)
    return record


def test_every_formula_on_a_small_example() -> None:
    rows = [
        row(0, [100, 110, 130], tokens=5, prompt_tokens=7),
        row(10, [200, 220], prompt_tokens=9, finish_reason="length"),
        row(20, [], status="error", error_kind="http_5xx", completion_tokens=None),
        row(0, [1, 2], warmup=True),
        row(30, [50], tokens=1),
    ]
    rows[1].first_answer_ns = (10 + 220) * MS
    found = point_metrics(requests_table(rows))
    assert found.get("requests") == 4
    assert found.get("failures") == 1
    assert found.get("success_rate") == 0.75
    assert found.get("ttft_ms", "mean") == pytest.approx((100 + 200 + 50) / 3)
    assert found.get("ttfa_ms", "mean") == pytest.approx((100 + 220 + 50) / 3)
    assert found.get("latency_ms", "mean") == pytest.approx((130 + 220 + 50) / 3)
    assert found.get("tpot_ms", "mean") == pytest.approx((30 / 4 + 20 / 1) / 2)
    assert found.metric("tpot_ms", "mean").n == 2
    assert found.get("itl_ms", "mean") == pytest.approx((10 + 20 + 20) / 3)
    assert found.metric("itl_ms", "p50").n == 3
    # From 0 ms to the last end at 231 ms, the failed request included.
    assert found.get("duration") == pytest.approx(0.231)
    assert found.get("rps") == pytest.approx(3 / 0.231)
    assert found.get("output_tps") == pytest.approx((5 + 2 + 1) / 0.231)
    assert found.get("prompt_tokens", "mean") == 8
    assert found.metric("prompt_tokens", "mean").n == 2
    assert found.get("tokens_per_chunk") == pytest.approx(8 / 6)
    assert found.get("truncated") == pytest.approx(1 / 3)


def test_a_reply_that_was_not_streamed_has_a_latency_and_no_ttft() -> None:
    found = point_metrics(requests_table([row(0, [], tokens=4), row(5, [], tokens=4)]))
    assert found.get("latency_ms", "mean") == pytest.approx(101)
    assert found.get("ttft_ms", "mean") is None
    assert found.get("tpot_ms", "mean") is None


def test_all_failed_means_no_times_at_all() -> None:
    found = point_metrics(requests_table([row(0, [], status="error", completion_tokens=None)] * 3))
    assert found.get("success_rate") == 0
    assert {metric for metric, _ in found.figures} == {"requests", "failures", "success_rate", "duration", "rps"}


ROWS = st.lists(st.lists(st.integers(0, 1000), max_size=12).map(sorted), min_size=1, max_size=20)


@given(ROWS)
def test_gaps_against_a_loop(lists: list[list[int]]) -> None:
    table = requests_table([row(0, events) for events in lists])
    expected = [b - a for events in lists for a, b in itertools.pairwise(events)]
    assert gaps(table["event_ns"]).tolist() == pytest.approx(expected)


def test_gaps_do_not_cross_chunks_or_nulls() -> None:
    import pyarrow as pa

    parts = [requests_table([row(0, [1, 3]), row(0, []), row(0, [7])]), requests_table([row(0, [2, 5, 9])])]
    assert gaps(pa.concat_tables(parts)["event_ns"]).tolist() == [2, 3, 4]
    assert len(gaps(parts[0].slice(1, 1)["event_ns"])) == 0


def test_plateau_leaves_out_the_ramp() -> None:
    """Two slots, each busy without a pause; one starts 500 ms late and the tail is half empty."""
    steady = list(range(10, 1001, 10))
    rows = [row(1000 * k, steady, parallel=2) for k in range(5)]
    rows += [row(500 + 1000 * k, steady, parallel=2) for k in range(4)]
    table = requests_table(rows)
    assert plateau_span(table) == (500 * MS, 4501 * MS)
    found = point_metrics(table)
    assert found.get("plateau_output_tps") == pytest.approx(200, rel=0.01)  # 2 slots x 100 tokens/s
    assert found.get("output_tps") < 185


def test_a_run_in_pieces_has_the_same_figures() -> None:
    rows = [row(10 * n, sorted(random.Random(n).sample(range(1, 900), 20)), parallel=3) for n in range(40)]
    rows[7].status = "error"
    rows[9].warmup = True
    table = requests_table(rows)
    whole = point_metrics(table)
    scalars = table.drop_columns(["event_ns", "event_tokens"])
    pieces = point_metrics(scalars, [table.slice(start, 9) for start in range(0, 40, 9)])
    assert whole.figures.keys() == pieces.figures.keys()
    for key, figure in whole.figures.items():
        assert pieces.figures[key].value == pytest.approx(figure.value), key


def test_more_values_than_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).lognormal(2.7, 0.5, 300_000)
    values[:1000] = 0.0
    exact, binned = stats.Distribution(), stats.Distribution()
    monkeypatch.setattr(binned, "EXACT", 10_000, raising=False)
    exact.add(values)
    for piece in np.array_split(values, 37):
        binned.add(piece)
    assert not binned._kept
    assert (binned.n, binned.max) == (exact.n, exact.max)
    assert binned.mean() == pytest.approx(exact.mean(), rel=1e-9)
    assert binned.percentile(0.1) == 0.0
    for q in (1, 50, 90, 99, 99.9):
        assert binned.percentile(q) == pytest.approx(exact.percentile(q), rel=1e-4)


def advice_of(*rates: float, failing: int | None = None, same: bool = False) -> str:
    from oss_eval.analysis.advice import advise
    from oss_eval.analysis.figures import Metric, PointMetrics
    from oss_eval.analysis.perf_summary import PointReport

    points = []
    for n, rate in enumerate(rates):
        values = {("output_tps", "value"): rate, ("rps", "value"): rate / 10, ("requests", "value"): 200.0}
        values["latency_ms", "mean"] = 1000.0 * (n + 1)
        values["success_rate", "value"] = 0.55 if n == failing else 1.0
        figures = {key: Metric(*key, value, None, None, 200, "") for key, value in values.items()}
        points.append(PointReport(f"p{n}", 8 if same else 10**n, 200, None, PointMetrics(figures), {}, (), (), ()))
    return " | ".join(advise(points))


def test_recommendations_follow_from_the_numbers() -> None:
    assert (
        "throughput still rises (+300% from concurrency 10 to 100): the limit is not reached, try --parallel 200"
        in (advice_of(10, 100, 400))
    )
    assert "throughput levels off at concurrency 100 (+8% from 10)" in advice_of(10, 100, 108)
    flat = advice_of(10, 100, 101, 99)
    assert "the knee is at concurrency 10: beyond it, up to 1000, throughput stays within 5% of its best" in flat
    assert "while mean latency grows 2.0 times" in flat
    assert "throughput falls by up to 60%" in advice_of(100, 1000, 400)
    assert "add levels around it, e.g. --parallel 1 2" in advice_of(100)
    assert "falls by up to 60%" in advice_of(100, 1000, 400, same=True)  # two points of one concurrency
    # A level at which half the requests fail is no reason to go higher.
    assert "rises (+900% from concurrency 1 to 10): the limit is not reached" in advice_of(10, 100, 400, failing=2)


# -- differences and service levels -----------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "n", "b", "m"), [(56, 70, 48, 80), (9, 10, 3, 10), (0, 20, 0, 30), (10, 10, 0, 20)])
def test_a_difference_of_shares_has_newcombes_interval(a: int, n: int, b: int, m: int) -> None:
    found = stats.between(stats.proportion(a, n), stats.proportion(b, m))
    assert found is not None
    low, high = confint_proportions_2indep(b, m, a, n, method="newcomb", compare="diff")
    assert found.value == pytest.approx(b / m - a / n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


def test_no_difference_without_intervals() -> None:
    assert stats.between(stats.Estimate(1, None, None), stats.Estimate(2, 1, 3)) is None
    same = stats.Estimate(2.0, 2.0, 2.0)
    assert stats.between(same, same)[:5] == (0.0, 0.0, 0.0, 1.0, 0)  # type: ignore[index]


def test_goodput_counts_what_met_every_limit_over_everything_asked() -> None:
    def request(number: int, ttft: float, tpot: float, tokens: int = 11, status: str = "ok") -> RequestRecord:
        found = blank_record(number * 100 * MS)
        found.first_token_ns = found.start_ns + int(ttft * MS)
        found.last_token_ns = found.first_token_ns + int(tpot * (tokens - 1) * MS)
        found.end_ns = (number + 1) * 1000 * MS
        found.completion_tokens = found.n_events = tokens
        found.status = status
        return found

    rows = [
        request(0, 50, 10), request(1, 150, 10), request(2, 50, 30), request(3, 50, 10, tokens=1),
        request(4, 50, 10, status="error"), request(5, 50, 10, status="cancelled"),
    ]  # fmt: skip
    table = requests_table(rows)
    found = goodput(table, {"ttft": 100.0, "tpot": 20.0})
    assert found is not None
    assert (found.attainment.value, found.n) == (2 / 5, 5)  # the cancelled one is in no denominator
    assert found.rate == pytest.approx(2 / 6.0)  # a second's worth of the time that RPS counts, too
    assert found.attainment[1:] == stats.proportion(2, 5)[1:]
    assert goodput(table, {}).attainment.value == 4 / 5  # type: ignore[union-attr]
    assert goodput(table.slice(5), {"ttft": 1.0}) is None
    whole = requests_table([request(0, 50, 10)])
    unstreamed = whole.set_column(whole.column_names.index("n_events"), "n_events", [[1]])
    assert goodput(whole, {"tpot": 20.0}).attainment.value == 1  # type: ignore[union-attr]
    assert goodput(unstreamed, {"tpot": 20.0}).attainment.value == 0  # type: ignore[union-attr]  # not measured, not met
    several = goodput(table, {"latency": 200.0})
    assert several is not None
    assert several.attainment.value == 2 / 5  # 50 + 100 ms and 50 ms; 250 and 350 ms miss


@pytest.mark.parametrize(
    ("good", "n", "meets"),
    [
        (4, 4, None),
        (99, 99, None),
        (100, 100, True),
        (198, 200, True),
        (196, 200, None),
        (190, 200, False),
        (1, 10, False),
    ],
)
def test_a_level_is_met_only_where_enough_was_asked(good: int, n: int, meets: bool | None) -> None:
    assert Goodput(stats.proportion(good, n), None, n).meets is meets


def test_durations_keep_nanoseconds_of_this_century() -> None:
    record = blank_record(1_795_000_000_123_456_789)
    record.first_token_ns = record.start_ns + 101
    record.last_token_ns, record.end_ns = record.start_ns + 303, record.start_ns + 404
    record.completion_tokens = record.n_events = 3
    found = request_durations(requests_table([record, blank_record(5)]))
    assert found["ttft"][0] == 101 / MS
    assert found["latency"][0] == 303 / MS
    assert found["tpot"][0] == 101 / MS
    assert np.isnan(found["ttft"][1])
    assert np.isnan(found["tpot"][1])


def wave(parallel: int, seconds: list[float], tokens: list[int] | None = None) -> pa.Table:
    """Successful requests that start one after the other and take these times."""
    starts = [1_700_000_000_000_000_000 + i for i in range(len(seconds))]
    ends = [start + round(s * 1e9) for start, s in zip(starts, seconds, strict=True)]
    n = len(seconds)
    return pa.table({
        "warmup": [False] * n, "status": ["ok"] * n, "parallel": [parallel] * n, "start_ns": starts, "end_ns": ends,
        "first_token_ns": starts, "first_answer_ns": starts, "last_token_ns": ends, "n_events": [9] * n,
        "completion_tokens": tokens or [100] * n,
    })  # fmt: skip


def test_a_slow_start_is_the_first_wave_against_the_second() -> None:
    cold = slow_start(wave(4, [5.0, 5.2, 4.9, 5.0, 1.0, 1.1, 1.0, 0.9, 20.0]))
    assert cold is not None
    assert (cold.first, cold.second) == (4, 4)
    assert (cold.first_ms, cold.second_ms) == (pytest.approx(5000), pytest.approx(1000))
    assert slow_start(wave(1, [5.0, 1.0, 1.0, 1.1])) is not None
    assert slow_start(wave(4, [1.4, 1.5, 1.4, 1.5, 1.0, 1.1, 1.0, 0.9])) is None
    assert slow_start(wave(1, [5.0, 1.0, 1.0])) is None, "too few to tell"


def test_long_answers_are_no_slow_start() -> None:
    assert slow_start(wave(1, [5.0, 1.0, 1.0, 1.1], [500, 100, 100, 100])) is None
    assert slow_start(wave(1, [1.0, 1.0, 1.0, 1.1], [10, 100, 100, 100])) is None, "a short one has its TTFT"


def test_a_ttft_that_is_an_upper_bound_has_a_lower_one() -> None:
    rows = wave(1, [1.0, 1.0, 1.0, 1.0])
    starts = rows["start_ns"].to_pylist()
    exact = rows.append_column("first_token_low_ns", pa.array([None] * 4, pa.int64()))
    assert earliest_ttft(exact) is None
    assert earliest_ttft(rows) is None, "a run of before"
    first = rows.column_names.index("first_token_ns")
    rows = rows.set_column(first, "first_token_ns", pa.array([start + 50_000_000 for start in starts]))
    rows = rows.append_column(
        "first_token_low_ns", pa.array([None, starts[1] + 20_000_000, None, None], pa.int64())
    )
    assert earliest_ttft(rows).tolist() == [50, 20, 50, 50]  # type: ignore[union-attr]


def test_a_token_gap_is_its_share_of_the_gap_between_chunks() -> None:
    rows = pa.table(
        {
            "event_ns": pa.array([[0, 10, 30, 34], [5, 11], None, [1, 7]], pa.list_(pa.int64())),
            "event_tokens": pa.array([[2, 1, 0, 4], None, None, [3, 3]], pa.list_(pa.int32())),
        }
    )
    # The third chunk holds no token, so the fourth's four took 24 ns together.
    expected = [6.0, 10.0, 6.0, 6.0, 6.0, 6.0, 2.0, 2.0, 2.0]
    assert (token_gaps(rows) * 1e6).tolist() == pytest.approx(expected)


def test_event_weights_are_the_tokens_of_events_as_far_as_they_are_known() -> None:
    rows = pa.table(
        {
            "event_ns": pa.array([[0, 1], [2, 3], None, [4, 5]], pa.list_(pa.int64())),
            "event_tokens": pa.array([[5, 1], None, None, None], pa.list_(pa.int32())),
            "completion_tokens": pa.array([6, 8, 3, None], pa.int32()),
        }
    )
    assert event_weights(rows).tolist() == [5, 1, 4, 4, 3.5, 3.5]
