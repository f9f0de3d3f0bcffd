"""The instrument doubting itself: calibration, worker processes, findings, limits."""

from __future__ import annotations

import resource

import pytest

from oss_eval.analysis.checks import ClockWatch, check_point
from oss_eval.analysis.figures import Metric, PointMetrics
from oss_eval.config.perf_task import PerfTask
from oss_eval.diagnose.calibrate import verdicts
from oss_eval.load.plan import auto_workers, grid
from oss_eval.probe import file_limits
from tests.helpers.instrument_helpers import client, level


def test_a_verdict_ends_at_the_first_level_that_fails() -> None:
    found = [level(1, 1, 0.001), level(1, 64, 0.04), level(1, 256, 0.002), level(2, 1, 0.0), level(2, 64, 0.005)]
    one, two = verdicts(found)
    assert one.startswith("1 worker: trust up to 1 streams (66 tokens/s): every percentile within 0.10%")
    assert one.endswith("at 64 off by up to 4.0%")
    assert two.startswith("2 workers: trust up to 64 streams")


def test_auto_workers() -> None:
    assert [auto_workers(p, 8) for p in (1, 128, 129, 512, 2048, 100_000)] == [1, 1, 2, 4, 7, 7]
    assert auto_workers(5000, 1) == 1
    assert [p.workers for p in grid(PerfTask(parallel=(2, 200), workers="auto"), 4)] == [1, 2]
    assert [p.workers for p in grid(PerfTask(parallel=(2, 600), workers=3), 2)] == [2, 3]


def metrics(**values: float) -> PointMetrics:
    named = {
        "lag": ("client_lag_ms", "p99"), "ttft": ("ttft_ms", "p99"), "gap": ("itl_ms", "mean"), "median_lag": ("client_lag_ms", "p50"),
        "shared": ("shared_reads", "value"), "requests": ("requests", "value"),
    }  # fmt: skip
    return PointMetrics({named[k]: Metric(*named[k], v, None, None, 200, "") for k, v in values.items()})


def kinds(found: list[object]) -> list[tuple[str, str]]:
    return [(f.kind, f.level) for f in found]  # type: ignore[attr-defined]


def test_a_quiet_client_is_clean() -> None:
    assert check_point(metrics(lag=2, ttft=500, gap=15, shared=0, requests=200), client(), False, {}) == []


def test_lag_is_a_note_where_the_kernel_stamps_and_a_warning_where_tokens_merge() -> None:
    [found] = check_point(metrics(lag=41, ttft=512, gap=15, shared=0.001), client(), False, {})
    assert (found.level, found.message.split(";")[0]) == ("note", "client lag p99 was 41 ms, 8% of the TTFT p99")
    found = check_point(metrics(lag=41, median_lag=9, ttft=512, gap=15, shared=0.05), client(), False, {})
    assert kinds(found) == [("client_lag", "warn"), ("shared_reads", "warn")]
    assert found[0].message == "client lag p99 was 41 ms, 8% of the TTFT p99: use --workers 4 or another machine"
    [found] = check_point(metrics(lag=20, median_lag=0.1, ttft=512, gap=15, shared=0.5), client(), False, {})
    assert (found.level, "the server sends several at once" in found.message) == ("note", True)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"waited_share": 0.4}, "starved", "waited for a core 40% of the time"),
        ({"longest_stall_seconds": 0.2}, "stall", "was blocked for 200 ms"),
        ({"held_back_seconds": 3.0}, "held_back", "slots were idle for 3.0 s"),
        ({"connections": 54, "reconnects": 50}, "reconnects", "50 of 200 needed a new one"),
        ({"connections": 200, "reconnects": 196}, "reconnects", "closes each connection after a request"),
    ],
)
def test_the_client_side_is_watched(changes: dict[str, float], kind: str, words: str) -> None:
    [found] = check_point(metrics(requests=200), client(**changes), False, {})
    assert found.kind == kind
    assert words in found.message


def test_user_clocks_ports_and_descriptors() -> None:
    assert kinds(check_point(metrics(), client(), True, {})) == [("user_clock", "warn")]
    failures = {"connect": (3, "Cannot assign requested address")}
    assert kinds(check_point(metrics(), client(), False, failures)) == [("ports", "warn")]
    failures = {"connect": (3, "Too many open files")}
    assert kinds(check_point(metrics(), client(), False, failures)) == [("descriptors", "warn")]


def test_a_clock_that_jumps_is_noticed_and_one_that_is_slewed_is_not() -> None:
    watch = ClockWatch()
    for tick in range(100):
        watch.look(tick * 0.1, 1e9 + tick * 0.1 * (1 + 500e-6), tick * 0.1)
    watch.look(9.95, 1e9 + 9.98, 9.99)  # this process was put aside between the two clocks
    assert watch.findings() == []
    watch.look(10.0, 1e9 + 10.05 + 0.8, 10.0)
    [found] = watch.findings()
    assert (found.kind, found.level) == ("clock_step", "warn")
    assert "+" in found.message
    assert len(watch.steps) == 1


def test_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (100, 500))
    calls = []
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: calls.append(limits))
    file_limits.allow(10)
    assert calls == []
    file_limits.allow(200)
    file_limits.allow(1000)
    assert calls == [(264, 500), (500, 500)]
    assert (file_limits.lacking(436), file_limits.lacking(437)) == (None, 500)
