"""Open loops, warm-ups, service level objectives and searches, as commands against real servers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import orjson
import pandas as pd
import pytest
from scipy import stats

from oss_eval.simulator.truth_log import read_truth
from tests.conftest import Command
from tests.helpers.commands import only_run
from tests.helpers.scripted_server import GOOD, MODELS, SSE_HEAD, ScriptedServer, answering, chunk, delta

pytestmark = pytest.mark.alone
FAST = "sim://instant"


def rows_of(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "requests").sort_values("start_ns")


def test_arrivals_follow_their_law_in_the_servers_log(oss_eval: Command, tmp_path: Path) -> None:
    """Three laws, by Kolmogorov and Smirnov, from when the server received each request."""
    expected = {
        "poisson": stats.expon(scale=1 / 200),
        "gamma:0.5": stats.gamma(4, scale=0.25 / 200),
        "constant": None,
    }
    for text, law in expected.items():
        done = oss_eval(
            "perf", "--url", FAST, "--rate", "200", "--number", "1000", "--prompt", "Hi", "--max-tokens", "2",
            "--arrival", text, "--seed", "11", "--json", "--name", text,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        run = tmp_path / "results" / document["run_id"]
        truth = read_truth(run / "truth.jsonl")
        rows = rows_of(run).query("not warmup")
        assert len(rows) == 1000
        received = np.sort([truth[f"{run.name}/{name}"].received_ns for name in rows.request_id])
        planned = np.sort(rows.scheduled_ns.to_numpy())
        assert np.percentile(received - planned, 99) < 10e6, "each starts when it is planned"
        gaps = np.diff(received) / 1e9
        if law is None:
            assert np.std(np.diff(planned)) < 1e3
        else:
            assert stats.kstest(gaps, law.cdf).pvalue > 0.001, text
        [point] = document["points"]
        metrics = point["metrics"]
        assert (point["parallel"], point["rate"], point["number"]) == (None, 200, 1000)
        assert metrics["achieved_rate"]["value"] == pytest.approx(metrics["planned_rate"]["value"], rel=0.005)
        assert metrics["scheduled_latency_ms"]["mean"] == pytest.approx(
            metrics["latency_ms"]["mean"] + metrics["dispatch_delay_ms"]["mean"], abs=0.01
        )


def test_arrivals_do_not_depend_on_the_workers(oss_eval: Command, tmp_path: Path) -> None:
    planned = []
    for workers in ("1", "3"):
        done = oss_eval(
            "perf", "--url", FAST, "--rate", "100", "--number", "60", "--prompt", "Hi", "--max-tokens", "2",
            "--seed", "5", "--json", "--workers", workers,
        )  # fmt: skip
        rows = rows_of(tmp_path / "results" / json.loads(done.stdout)["run_id"]).query("not warmup")
        assert rows.worker.nunique() == int(workers)
        order = rows.sort_values("scheduled_ns")
        planned.append((order.scheduled_ns - order.scheduled_ns.iloc[0]).to_numpy())
        numbers = [int(name.rpartition("/")[2]) for name in order.request_id]
        assert numbers == sorted(numbers)
    assert planned[0] == pytest.approx(planned[1], abs=1000), "pandas holds these in floats, 256 ns apart"


def test_a_stall_is_seen_by_every_request_that_should_have_started_in_it(oss_eval: Command) -> None:
    """The server stops for 1.5 s: the open loop's latency shows it, the closed loop's P90 does not."""
    stall = threading.Event()

    def script(number: int, request: bytes) -> Iterator[bytes | float]:
        if request.startswith(b"GET"):
            yield MODELS
            return
        if number == 30:
            stall.clear()
            threading.Timer(1.5, stall.set).start()
        stall.wait(5)
        yield GOOD

    stall.set()
    found = {}
    for name, load in {"open": ("--rate", "40"), "closed": ("--parallel", "1")}.items():
        with ScriptedServer(script) as server:
            done = oss_eval(
                "perf", "--url", server.url, *load, "--number", "120", "--prompt", "Hi", "--json", "--arrival",
                "constant",
            ) if name == "open" else oss_eval(
                "perf", "--url", server.url, *load, "--number", "120", "--prompt", "Hi", "--json",
            )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found[name] = json.loads(done.stdout)["points"][0]["metrics"]
    late = found["open"]["scheduled_latency_ms"]
    assert late["mean"] == pytest.approx(375, abs=80), "60 of 120 requests should have started in the stall"
    assert late["p90"] > 1000
    assert late["max"] == pytest.approx(1500, abs=150)
    assert found["closed"]["latency_ms"]["p90"] < 50, (
        "one request saw the stall, those that did not start do not count"
    )


def test_warm_points_are_stored_whole_and_counted_without_their_warm_up(oss_eval: Command, tmp_path: Path) -> None:
    done = oss_eval(
        "perf", "--url", "sim://paced?rate=200&ttft=50", "--parallel", "4", "8", "--number", "60", "80",
        "--warmup", "auto", "--max-tokens", "16", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    rows = rows_of(only_run(tmp_path))
    for point, parallel, number in zip(document["points"], (4, 8), (60, 80), strict=True):
        own = rows[rows.point_id == point["point_id"]]
        assert (~own.warmup).sum() == number == point["metrics"]["requests"]["value"]
        assert own.warmup.iloc[:parallel].all(), "one request in each slot"
        steady = point["steady"]["metrics"]
        assert steady["output_tps"]["value"] > 0
        assert set(steady) <= set(point["metrics"]) | {"duration"}
    first, second = (rows[rows.point_id == p["point_id"]] for p in document["points"])
    gap = second.start_ns.min() - first[first.status == "ok"].end_ns.max()
    assert gap < 0.3e9, "the load does not pause between points"
    assert set(rows[rows.status == "cancelled"].warmup) <= {True}
    assert "steady state" in done.stderr
    assert "Whole points" in done.stderr
    assert oss_eval("fsck", "last").returncode == 0


def test_objectives_are_in_the_tables(oss_eval: Command) -> None:
    done = oss_eval(
        "perf", "--url", "sim://gpt-oss-20b-h20?speed=20", "--parallel", "2", "32", "--number", "120", "320",
        "--max-tokens", "16", "--json", "--slo", "ttft_p50<10s", "latency_p50<0.0001ms", "success>90%",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for point in json.loads(done.stdout)["points"]:
        assert point["metrics"]["attainment"]["value"] == 0.0, "no request meets the limit on latency"
        assert point["metrics"]["goodput"]["value"] == 0.0
    assert "SLO ttft_p50<10s: met at c2, c32" in done.stderr
    # A busy machine can leave too few waves of requests to tell at one of the points, and no more than that.
    [latency] = [line for line in done.stderr.splitlines() if "SLO latency_p50<0.0001ms:" in line]
    assert "missed at c" in latency
    assert " met at" not in latency
    assert "SLO success>90%: met at c2, c32" in done.stderr


def test_the_queue_that_only_grows_ends_the_sweep(oss_eval: Command) -> None:
    """The server answers 20 requests a second."""
    turn = threading.Lock()

    def script(number: int, request: bytes) -> Iterator[bytes | float]:
        if request.startswith(b"GET"):
            yield MODELS
            return
        with turn:
            time.sleep(0.05)
        yield GOOD

    with ScriptedServer(script) as server:
        done = oss_eval(
            "perf", "--url", server.url, "--rate", "5", "60", "90", "--number", "30", "180", "180", "--prompt", "Hi",
            "--json", "--stop-when", "saturated",
        )  # fmt: skip
    document = json.loads(done.stdout)
    assert [point["rate"] for point in document["points"]] == [5, 60]
    assert document["stopped"] == "saturated: at 60 requests/s the queue only grows"
    assert document["points"][1]["metrics"]["queue_growth"]["value"] == pytest.approx(40, rel=0.3)
    assert "the queue only grows" in done.stderr
    assert "↑" in done.stderr


def test_no_more_throughput_ends_the_sweep(oss_eval: Command) -> None:
    turn = threading.Lock()

    def script(number: int, request: bytes) -> Iterator[bytes | float]:
        if request.startswith(b"GET"):
            yield MODELS
            return
        with turn:
            time.sleep(0.1)
        yield GOOD

    with ScriptedServer(script) as server:
        done = oss_eval(
            "perf", "--url", server.url, "--parallel", "1", "2", "4", "8", "--number", "20", "--prompt", "Hi",
            "--json", "--stop-when", "saturated",
        )  # fmt: skip
    document = json.loads(done.stdout)
    assert [point["parallel"] for point in document["points"]] == [1, 2]
    assert "concurrency 2 gives" in document["stopped"]


def test_a_saturated_effort_leaves_the_other_ones(oss_eval: Command) -> None:
    """`low` is saturated at two, so its higher levels are left out; `high` is measured on its own."""
    turn = threading.Lock()

    def script(number: int, request: bytes) -> Iterator[bytes | float]:
        if request.startswith(b"GET"):
            yield MODELS
            return
        with turn:
            time.sleep(0.1)
        yield GOOD

    with ScriptedServer(script) as server:
        done = oss_eval(
            "perf", "--url", server.url, "--parallel", "1", "2", "4", "--number", "20", "--prompt", "Hi", "--json",
            "--stop-when", "saturated", "--reasoning-effort", "low", "high",
        )  # fmt: skip
    points = json.loads(done.stdout)["points"]
    assert [(point["reasoning_effort"], point["parallel"]) for point in points] == [
        ("low", 1), ("low", 2), ("high", 1), ("high", 2),
    ]  # fmt: skip


def by_load(seconds: Callable[[int, int], float]) -> Callable[[int, bytes], Iterator[bytes | float]]:
    """A server's script: an answer takes so many seconds, by its number and the requests that are in work."""
    lock, busy = threading.Lock(), [0]

    def script(number: int, request: bytes) -> Iterator[bytes | float]:
        if request.startswith(b"GET"):
            yield MODELS
            return
        with lock:
            busy[0] += 1
            now = busy[0]
        time.sleep(seconds(number, now))
        with lock:
            busy[0] -= 1
        yield GOOD

    return script


def test_an_interrupted_search_goes_on_where_it_was(oss_eval: Command, tmp_path: Path) -> None:
    with ScriptedServer(by_load(lambda number, now: 0.01 if now <= 5 else 0.12)) as server:
        flags = ("--find", "max-parallel", "--parallel", "2", "--slo", "ttft_p90<0.08s", "--prompt", "Hi")
        done = oss_eval("perf", "--url", server.url, *flags)
        assert done.returncode == 0, done.stderr
        run = only_run(tmp_path)
        manifest = json.loads((run / "manifest.json").read_text())
        tried = manifest["search"]["levels"]
        cut = 2
        manifest["search"]["levels"] = tried[:cut]
        manifest["points"] = manifest["points"][: cut + 1]
        manifest["ended"] = manifest["ended"][:cut]
        manifest["status"] = "interrupted"
        (run / "manifest.json").write_text(json.dumps(manifest))
        again = oss_eval("resume", "last", "--json")
    assert again.returncode == 0, again.stderr
    document = json.loads(again.stdout)
    levels = document["search"]["levels"]
    assert levels[:cut] == tried[:cut], "what was known is not measured again"
    assert document["search"]["value"] in (4, 5)
    names = [point["point_id"] for point in document["points"]]
    assert len(names) == len(set(names)) == len(levels)
    assert [level["point_id"] for level in levels] == names


def test_a_level_that_warms_the_server_up_is_measured_again(oss_eval: Command) -> None:
    """Answers take 0.2 s at first, and 10 ms after forty of them, as while a server compiles; 0.12 s with more than
    five at once."""
    with ScriptedServer(
        by_load(lambda number, now: max(0.01 if now <= 5 else 0.12, 0.2 - 0.004 * number))
    ) as server:
        done = oss_eval(
            "perf", "--url", server.url, "--find", "max-parallel", "--parallel", "2", "--slo", "ttft_p90<0.08s",
            "--prompt", "Hi", "--json", "--number", "60",
        )  # fmt: skip
    search = json.loads(done.stdout)["search"]
    assert search["cold"] == ["00-c2"]
    assert (search["levels"][0]["level"], search["levels"][0]["point_id"]) == (2, "01-c2")
    assert search["levels"][0]["state"] != "missed"
    assert "still warming up at 00-c2" in done.stderr


def test_the_highest_concurrency_is_found(oss_eval: Command, tmp_path: Path) -> None:
    """A server that makes a request wait when more than five are there."""
    with ScriptedServer(by_load(lambda number, now: 0.01 if now <= 5 else 0.12)) as server:
        done = oss_eval(
            "perf", "--url", server.url, "--find", "max-parallel", "--parallel", "2", "--slo", "ttft_p90<0.08s",
            "--prompt", "Hi", "--json", "--assert", "max_parallel>=4", "max_parallel<100",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    search = document["search"]
    # On a busy machine five at once may look like too many at times.
    assert search["what"] == "max-parallel"
    assert search["value"] in (4, 5)
    assert search["low"] <= 5
    assert search["high"] <= 7
    assert len(search["levels"]) == len(document["points"]) <= 12
    assert [level["state"] for level in search["levels"] if level["level"] in (2, 8)] == ["met", "missed"]
    assert f"holds up to {search['value']:.0f} requests in flight" in done.stderr
    assert json.loads((only_run(tmp_path) / "manifest.json").read_text())["search"]["value"] == search["value"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arrival", "poisson"], "--arrival and --burstiness need --rate"),
        (["--rate", "2", "--arrival", "often"], "is no law of arrivals"),
        (["--rate", "2", "--arrival", "poisson", "--burstiness", "2"], "exclude each other"),
        (["--rate", "2", "3", "--number", "1", "2", "3"], "--rate has 2 values and --number has 3"),
        (["--rate", "0"], "greater than 0"),
        (["--number", "5", "--duration", "5s"], "exclude each other"),
        (["--duration", "soon"], "a time is needed"),
        (["--warmup", "some"], "a number of requests, a time such as 10s, or auto"),
        (["--think-time", "5-1"], "the lower end of the range comes first"),
        (["--rate", "2", "--think-time", "1"], "--think-time needs --parallel"),
        (["--find", "max-rate"], "--find needs objectives"),
        (["--find", "max-rate", "--slo", "ttft_mean<1s"], "can't search by"),
        (["--find", "max-parallel", "--rate", "3", "--slo", "ttft_p99<1s"], "begins at --parallel"),
        (["--slo", "speed<3"], "there is no figure 'speed'"),
        (["--assert", "max_rate>3"], "has searched for no max_rate"),
    ],
)
def test_what_makes_no_sense(oss_eval: Command, arguments: list[str], message: str) -> None:
    done = oss_eval("perf", "--url", FAST, "--prompt", "Hi", *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr


def test_an_unfinished_open_loop_is_measured_again_as_a_whole(oss_eval: Command, tmp_path: Path) -> None:
    with ScriptedServer(answering(GOOD)) as server:
        done = oss_eval("perf", "--url", server.url, "--rate", "50", "80", "--number", "40", "--prompt", "Hi")
        assert done.returncode == 0, done.stderr
        run = only_run(tmp_path)
        manifest = json.loads((run / "manifest.json").read_text())
        manifest["ended"] = manifest["ended"][:1]
        manifest["status"] = "interrupted"
        (run / "manifest.json").write_text(json.dumps(manifest))
        refused = oss_eval("resume", "last", "--missing")
        assert refused.returncode == 2
        assert "depend on each other's times" in refused.stderr
        again = oss_eval("resume", "last", "--json")
    assert again.returncode == 0, again.stderr
    points = json.loads(again.stdout)["points"]
    assert [(point["point_id"], point["metrics"]["requests"]["value"]) for point in points] == [
        ("00-50rps", 40.0), ("01-80rps-r2", 40.0),
    ]  # fmt: skip


def test_streams_that_the_end_of_a_point_cuts_are_rows(oss_eval: Command, tmp_path: Path) -> None:
    """Load is kept up until the last measured request has ended: what is cut then is stored as cancelled."""

    def script(number: int, request: bytes) -> Iterator[bytes | float]:
        if request.startswith(b"GET"):
            yield MODELS
            return
        yield SSE_HEAD + chunk(delta("Hi"))
        yield 0.2
        yield GOOD.partition(SSE_HEAD)[2]

    with ScriptedServer(script) as server:
        done = oss_eval(
            "perf",
            "--url",
            server.url,
            "--parallel",
            "3",
            "--number",
            "6",
            "--warmup",
            "3",
            "--prompt",
            "Hi",
            "--json",
        )
        sent = sum(request.startswith(b"POST") for request in server.requests)
    assert done.returncode == 0, done.stderr
    rows = rows_of(only_run(tmp_path))
    assert len(rows) == sent
    cut = rows[rows.status == "cancelled"]
    assert 1 <= len(cut) <= 3
    assert cut.warmup.all()
    assert set(cut.error_message) == {"the point was over"}
    assert orjson.loads(done.stdout)["points"][0]["metrics"]["success_rate"]["value"] == 1.0
