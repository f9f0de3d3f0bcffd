"""The instrument doubting itself: calibration, worker processes, findings, limits."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from oss_eval.analysis.checks import ClockWatch, check_point
from oss_eval.analysis.metrics import Metric, PointMetrics
from oss_eval.config.task import PerfTask
from oss_eval.diagnose.calibrate import CalibrationPoint, compare, verdicts
from oss_eval.load.client_stats import ClientStats
from oss_eval.load.plan import Point, auto_workers, grid
from oss_eval.probe import file_limits
from oss_eval.probe.poller import FLOOD, Poller
from oss_eval.results.reader import read_manifest, read_requests
from tests.conftest import ROOT, Command, ask, worker_of
from tests.scripted import CLOSE, DONE, LAST_CHUNK, SSE_HEAD, STOP, ScriptedServer, answering, chunk, delta, usage

GOOD = SSE_HEAD + chunk(delta("Hi") + delta("!") + STOP + usage(5, 2) + DONE) + LAST_CHUNK


# -- calibration ------------------------------------------------------------------------------------------------


def test_calibrate(oss_eval: Command, tmp_path: Path) -> None:
    done = oss_eval("calibrate", "--parallel", "2", "32", "--token-rate", "200", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    cores = {1, len(__import__("os").sched_getaffinity(0))}
    levels = {(c["workers"], c["parallel"]) for c in document["calibration"]}
    assert levels == {(w, p) for w in cores for p in (2, 32) if w == 1 or p >= w}
    for level in document["calibration"]:
        assert level["missing"] == 0
        assert level["cpu_us_per_token"] > 0
        for metric in ("ttft", "tpot", "itl", "latency"):
            for q in ("p50", "p90"):
                pair = level["ms"][metric][q]
                assert pair["reported"] == pytest.approx(pair["true"], rel=0.01), (level["parallel"], metric, q)
        assert level["ms"]["ttft"]["p50"]["true"] == pytest.approx(100, rel=0.1)
        assert level["ms"]["tpot"]["p50"]["true"] == pytest.approx(5, rel=0.1)
    assert "Verdict" in done.stderr
    assert "1 worker: trust up to 32 streams" in done.stderr
    run = tmp_path / document["path"]
    assert read_manifest(run)["kind"] == "calibrate"
    summary = pd.read_parquet(run / "summary.parquet")
    assert {"ttft_ms", "true_ttft_ms", "cpu_us_per_token"} <= set(summary.metric)
    shown = oss_eval("show", "last")
    assert shown.stdout == done.stderr[done.stderr.index("Calibration on") : done.stderr.index("stored in")]


def test_a_wrong_report_would_be_noticed(oss_eval: Command, tmp_path: Path) -> None:
    """Move all true times by 3%: the comparison has to say so."""
    done = oss_eval("calibrate", "--parallel", "4", "--token-rate", "400", "--json")
    run = tmp_path / json.loads(done.stdout)["path"]
    truth = run / "truth.jsonl"
    lines = [json.loads(line) for line in truth.read_text().splitlines()]
    for line in lines:
        first = line["received_ns"]
        line["token_ns"] = [first + round((t - first) * 0.97) for t in line["token_ns"]]
    truth.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for found in compare(run):
        assert 0.025 < found.worst < 0.5
        assert "not to be trusted" in verdicts([found])[0]


@pytest.mark.parametrize(
    ("words", "cause"), [(["--parallel", "0"], "--parallel 0"), (["--token-rate", "0"], "--token-rate 0")]
)
def test_calibrate_explains_mistakes(oss_eval: Command, words: list[str], cause: str) -> None:
    done = oss_eval("calibrate", *words)
    assert done.returncode == 2
    assert cause in done.stderr


def level(workers: int, parallel: int, error: float) -> CalibrationPoint:
    import numpy as np

    true = {m: np.array([1.0, 2.0, 3.0]) for m in ("ttft", "tpot", "itl", "latency")}
    point = Point(point_id="p", index=0, parallel=parallel, number=4, workers=workers)
    return CalibrationPoint(
        point, true, {m: v * (1 + error) for m, v in true.items()}, 4, 0, 100, 66.0 * parallel, 0.0, 1.0, 9.0, 1.0
    )


def test_a_verdict_ends_at_the_first_level_that_fails() -> None:
    found = [level(1, 1, 0.001), level(1, 64, 0.04), level(1, 256, 0.002), level(2, 1, 0.0), level(2, 64, 0.005)]
    one, two = verdicts(found)
    assert one.startswith("1 worker: trust up to 1 streams (66 tokens/s): every percentile within 0.10%")
    assert one.endswith("at 64 off by up to 4.0%")
    assert two.startswith("2 workers: trust up to 64 streams")


# -- worker processes -------------------------------------------------------------------------------------------


def test_auto_workers() -> None:
    assert [auto_workers(p, 8) for p in (1, 512, 513, 2048, 100_000)] == [1, 1, 2, 4, 7]
    assert auto_workers(5000, 1) == 1
    assert [p.workers for p in grid(PerfTask(parallel=(2, 600), workers="auto"), 4)] == [1, 2]
    assert [p.workers for p in grid(PerfTask(parallel=(2, 600), workers=3), 2)] == [2, 3]


def bodies_by_tag(server: ScriptedServer) -> dict[bytes, bytes]:
    found = {}
    for request in server.requests:
        head, _, body = request.partition(b"\r\n\r\n")
        if b"/00-c7/" in head:
            found[head.partition(b"/00-c7/")[2].split(b"\r\n")[0]] = body
    return found


def test_requests_do_not_depend_on_the_number_of_workers(oss_eval: Command, tmp_path: Path) -> None:
    sent = []
    for workers in ("1", "3"):
        with ScriptedServer(answering(0.01, GOOD)) as server:
            done = oss_eval("perf", "--url", server.url, "--parallel", "7", "--number", "50", "--seed", "4",
                            "--workers", workers, "--out", workers)  # fmt: skip
            assert done.returncode == 0, done.stderr
            sent.append(bodies_by_tag(server))
        [run] = (tmp_path / workers).iterdir()
        rows = read_requests(run, "00-c7").to_pylist()
        assert {row["worker"] for row in rows} == set(range(int(workers)))
        assert sorted(row["request_id"] for row in rows) == sorted(f"00-c7/{n}" for n in range(50))
        assert read_manifest(run)["client"]["00-c7"]["connections"] == 7
    assert len(sent[0]) == 50
    assert sent[0] == sent[1]


def test_no_worker_idles_while_another_has_work(oss_eval: Command, tmp_path: Path) -> None:
    """One slot's first request takes 2 s: the other worker has to take over the whole budget meanwhile."""

    def script(number: int, request: bytes) -> list[object]:
        slow = b"/00-c2/0\r\n" in request
        return answering(*([2.0, GOOD] if slow else [0.02, GOOD]))(number, request)

    with ScriptedServer(script) as server:
        done = oss_eval("perf", "--url", server.url, "--parallel", "2", "--number", "40", "--prompt", "Hi",
                        "--workers", "2")  # fmt: skip
    assert done.returncode == 0, done.stderr
    [run] = (tmp_path / "results").iterdir()
    counts = pd.Series(read_requests(run, "00-c2")["worker"].to_pylist()).value_counts().to_dict()
    assert sorted(counts.values()) == [1, 39]


def test_points_are_barriers(oss_eval: Command, tmp_path: Path) -> None:
    with ScriptedServer(answering(0.05, GOOD)) as server:
        oss_eval(
            "perf",
            "--url",
            server.url,
            "--parallel",
            "4",
            "6",
            "--number",
            "20",
            "--prompt",
            "Hi",
            "--workers",
            "2",
        )
    [run] = (tmp_path / "results").iterdir()
    first, second = (read_requests(run, p).to_pandas() for p in ("00-c4", "01-c6"))
    assert first.end_ns.max() < second.start_ns.min()


def test_workers_must_make_sense(oss_eval: Command) -> None:
    for given in ("0", "some"):
        done = oss_eval("perf", "--workers", given)
        assert done.returncode == 2
        assert (
            f"--workers {given!r}" in done.stderr
            or f"--workers {given}" in done.stderr
            or "--workers" in done.stderr
        )


# -- waiting for many sockets -----------------------------------------------------------------------------------


def test_a_patient_poller_reads_the_same() -> None:
    wire = SSE_HEAD + chunk(delta("Hel")) + chunk(delta("lo") + STOP + DONE) + LAST_CHUNK
    pieces: list[bytes | float] = []
    for start in range(0, len(wire), 9):
        pieces += [wire[start : start + 9], 0.0005]
    with ScriptedServer(answering(*pieces)) as server:
        for asked in ask(server, times=3, patient=True):
            assert (asked.record.status, asked.reply.text) == ("ok", "Hello")
    with ScriptedServer(answering(SSE_HEAD + chunk(delta("Hi")), CLOSE)) as server:
        [asked] = ask(server, patient=True)
    assert asked.record.error_kind == "stream_broken"


class SteppedLoop:
    """An event loop whose time is set by the test: real epoll readiness, no dependence on this machine's load."""

    def __init__(self) -> None:
        self.now = 0.0
        self._readers: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[float, Callable[[], None]]] = []

    def add_reader(self, descriptor: int, callback: Callable[[], None]) -> None:
        self._readers[descriptor] = callback

    def remove_reader(self, descriptor: int) -> None:
        del self._readers[descriptor]

    def call_later(self, seconds: float, callback: Callable[[], None]) -> SimpleNamespace:
        timer = self.now + seconds, callback
        self._timers.append(timer)
        return SimpleNamespace(cancel=lambda: self._timers.remove(timer))

    def step(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self._timers if timer[0] <= self.now]
        self._timers = [timer for timer in self._timers if timer not in due]
        for _, callback in due:
            callback()
        for descriptor, callback in list(self._readers.items()):
            if select.select([descriptor], [], [], 0)[0]:
                callback()


def trickle(sockets: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """(wake-ups, reads) of 3,000 sockets made readable one after the other, 0.1 ms apart."""
    loop = SteppedLoop()
    monkeypatch.setattr("oss_eval.probe.poller.time", SimpleNamespace(monotonic=lambda: loop.now))
    poller = Poller(loop, patient=True)  # type: ignore[arg-type]
    looks = reads = 0
    look = poller._look

    def counting() -> int:
        nonlocal looks
        looks += 1
        return look()

    monkeypatch.setattr(poller, "_look", counting)

    def reader(end: socket.socket) -> None:
        nonlocal reads
        end.recv(100)
        reads += 1

    with contextlib.ExitStack() as stack:
        pairs = [tuple(map(stack.enter_context, socket.socketpair())) for _ in range(sockets)]
        for ours, _ in pairs:
            ours.setblocking(False)
            poller.watch(ours.fileno(), lambda ours=ours: reader(ours))
        for number in range(3000):
            pairs[number % sockets][1].send(b"x")
            loop.step(1e-4)
        loop.step(0.05)
        poller.close()
    return looks, reads


def test_a_trickle_is_looked_at_once_a_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, reads = trickle(4 * FLOOD, monkeypatch)
    assert reads == 3000
    assert 270 < looks < 330


def test_two_fast_streams_are_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trickle(2, monkeypatch) == (3000, 3000)


# -- findings ---------------------------------------------------------------------------------------------------


def metrics(**values: float) -> PointMetrics:
    named = {
        "lag": ("client_lag_ms", "p99"), "ttft": ("ttft_ms", "p99"), "gap": ("itl_ms", "mean"), "median_lag": ("client_lag_ms", "p50"),
        "shared": ("shared_reads", "value"), "requests": ("requests", "value"),
    }  # fmt: skip
    return PointMetrics({named[k]: Metric(*named[k], v, None, None, 200, "") for k, v in values.items()})


def client(**changes: float) -> ClientStats:
    base = {
        "workers": 2, "cores": 8, "slots": 64, "connections": 64, "reconnects": 0, "wall_seconds": 10.0, "cpu_seconds": 5.0, "main_cpu_seconds": 1.0,
        "waited_share": 0.01, "longest_stall_seconds": 0.004, "longest_flush_seconds": 0.0003, "held_back_seconds": 0.0,
    }  # fmt: skip
    return ClientStats(**{**base, **changes})  # type: ignore[arg-type]


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
        ({"longest_stall_seconds": 0.2}, "stall", "stood still for 200 ms"),
        ({"held_back_seconds": 3.0}, "held_back", "slots stood empty for 3.0 s"),
        ({"reconnects": 200}, "reconnects", "200 of 200 needed a new one"),
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


def test_a_busy_worker_reports_its_stall(oss_eval: Command, tmp_path: Path) -> None:
    """A worker that is stopped for 0.4 s in the middle of a point."""
    command = [
        sys.executable,
        "-m",
        "oss_eval",
        "perf",
        "--url",
        "sim://gpt-oss-20b-h20?speed=4",
        "--parallel",
        "8",
    ]
    command += ["--number", "64", "--out", str(tmp_path / "out")]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        time.sleep(2.5)
        worker = worker_of(process)
        os.kill(worker, signal.SIGSTOP)
        time.sleep(0.4)
        os.kill(worker, signal.SIGCONT)
        out, _ = process.communicate(timeout=60)
    assert "a worker stood still for" in out
    [run] = (tmp_path / "out").iterdir()
    checks = read_manifest(run)["checks"]["00-c8"]
    assert "stall" in [check["kind"] for check in checks]


# -- limits -----------------------------------------------------------------------------------------------------


def test_the_soft_limit_of_files_is_raised_and_a_hard_one_is_an_error(oss_eval: Command, tmp_path: Path) -> None:
    def limited(soft: int, hard: int) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "oss_eval",
            "perf",
            "--url",
            "sim://gpt-oss-20b-h20?speed=40",
            "--parallel",
        ]
        command += [
            "300",
            "--number",
            "300",
            "--max-tokens",
            "4",
            "--workers",
            "1",
            "--out",
            str(tmp_path / "out"),
        ]
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=60,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)),
        )  # fmt: skip

    done = limited(128, 2048)
    assert done.returncode == 0, done.stderr
    assert "100%" in done.stdout
    done = limited(128, 256)
    assert done.returncode == 2
    assert (
        "300 connections a worker process are needed, and this system lets a process open 256 files" in done.stderr
    )
    assert "--workers 2" in done.stderr
    assert done.stderr.startswith("oss-eval: "), "known before the server is asked"


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
