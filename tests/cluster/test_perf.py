"""`perf --workers ray`: workers on the nodes of a real Ray cluster, several raylets on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from oss_eval.load.workers.clock_offset import ClockOffset, clock_offset
from oss_eval.load.workers.messages import Batch
from oss_eval.load.workers.ray import moved
from oss_eval.results.manifest import read_manifest
from oss_eval.results.reader import read_requests
from oss_eval.run.remote_workers import cluster_findings
from tests.helpers.commands import ROOT, Command, bad, launched, only_run, until
from tests.helpers.ray_cluster import MEMORY, new_cluster, node_in_own_network

pytest.importorskip("ray")
SIM = "sim://gpt-oss-20b-h20?speed=20"


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [row for row in read_requests(run).to_pylist() if not row["warmup"]]


def test_the_same_requests_as_on_this_machine(oss_eval: Command, cluster: str, tmp_path: Path) -> None:
    words = (
        "perf",
        "--url",
        SIM,
        "--parallel",
        "3",
        "8",
        "--number",
        "33",
        "40",
        "--max-tokens",
        "20",
        "--seed",
        "7",
    )
    runs = {}
    for name, more in (("ray", ("--workers", "ray:2", "--ray-address", cluster)), ("local", ("--workers", "2"))):
        done = oss_eval(*words, *more, "--name", name)
        assert done.returncode == 0, done.stderr
        [runs[name]] = (tmp_path / "results").glob(f"*-{name}-*")
    ray, local = (sorted(rows_of(runs[name]), key=lambda row: row["request_id"]) for name in ("ray", "local"))
    for column in ("request_id", "prompt_tokens", "completion_tokens", "status", "parallel"):
        assert [row[column] for row in ray] == [row[column] for row in local], column
    assert {row["worker"] for row in ray} == {0, 1}
    points = {row["point_id"]: [r for r in ray if r["point_id"] == row["point_id"]] for row in ray}
    first, second = points.values()
    assert max(row["end_ns"] for row in first) <= min(row["start_ns"] for row in second), (
        "a barrier between points"
    )
    told = read_manifest(runs["ray"])["ray"]
    assert told["address"] == cluster
    assert len({worker["node_id"] for worker in told["workers"]}) == 2, "spread over the nodes"
    for worker in told["workers"]:
        assert 0 < worker["connect_ms"] < 50
        assert worker["clock_error_ms"] > 0
        assert abs(worker["clock_offset_ms"]) <= worker["clock_error_ms"] + 1, "one machine has one clock"
    assert bad(runs["ray"]) == []


def test_a_node_in_a_network_of_its_own(oss_eval: Command, tmp_path: Path) -> None:
    with node_in_own_network("osseval1", "10.77.0.1", "10.77.0.2") as address:
        words = ("simulate", "--profile", "gpt-oss-20b-h20", "--speed", "20", "--host", "10.77.0.1", "--port", "0")
        with launched(tmp_path, *words) as simulator:
            assert simulator.stderr is not None
            url = next(word for line in simulator.stderr for word in line.split() if word.startswith("http://"))
            done = oss_eval("perf", "--url", url, "--parallel", "8", "--number", "40", "--max-tokens", "20",
                            "--workers", "ray", "--ray-address", address)  # fmt: skip
            assert done.returncode == 0, done.stderr
            local = oss_eval("perf", "--url", url.replace("10.77.0.1", "127.0.0.1"), "--number", "1", "--parallel", "1",
                             "--workers", "ray", "--ray-address", address)  # fmt: skip
    run = only_run(tmp_path)
    workers = read_manifest(run)["ray"]["workers"]
    assert {worker["address"] for worker in workers} == {"10.77.0.1", "10.77.0.2"}
    assert all(0 < worker["connect_ms"] < 50 for worker in workers)
    rows = rows_of(run)
    assert {row["worker"] for row in rows} == {0, 1}
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["clock_source"] for row in rows} == {"kernel"}
    assert local.returncode == 2
    assert "can't reach" in local.stderr or "can't connect to 127.0.0.1" in local.stderr


def test_open_loop_starts_as_planned_on_all_nodes(oss_eval: Command, cluster: str, tmp_path: Path) -> None:
    words = ("perf", "--url", SIM, "--rate", "40", "--duration", "4s", "--max-tokens", "8", "--seed", "7")
    for name, more in (("ray", ("--workers", "ray:2", "--ray-address", cluster)), ("local", ("--workers", "2"))):
        assert oss_eval(*words, *more, "--name", name).returncode == 0
    planned = {}
    for name in ("ray", "local"):
        [run] = (tmp_path / "results").glob(f"*-{name}-*")
        rows = sorted(rows_of(run), key=lambda row: row["scheduled_ns"])
        first = rows[0]["scheduled_ns"]
        planned[name] = [(row["request_id"], row["scheduled_ns"] - first) for row in rows]
        late = sorted(row["start_ns"] - row["scheduled_ns"] for row in rows)
        assert late[0] >= 0
        assert late[len(late) // 2] < 5e6, "half of the requests start within 5 ms"
    assert planned["ray"] == planned["local"], "the same arrivals, wherever the workers are"


def test_a_duration_and_conversations(oss_eval: Command, cluster: str, tmp_path: Path) -> None:
    ray = ("--workers", "ray:2", "--ray-address", cluster, "--max-tokens", "8")
    done = oss_eval(
        "perf", "--url", SIM, "--parallel", "4", "--duration", "2s", "--warmup", "8", *ray, "--name", "time"
    )
    assert done.returncode == 0, done.stderr
    [run] = (tmp_path / "results").glob("*-time-*")
    assert len(rows_of(run)) > 50
    done = oss_eval(
        "perf", "--url", SIM, "--parallel", "3", "--number", "6", "--turns", "3", *ray, "--name", "turns"
    )
    assert done.returncode == 0, done.stderr
    [run] = (tmp_path / "results").glob("*-turns-*")
    rows = rows_of(run)
    assert len(rows) == 18
    by_conversation: dict[int, set[int]] = {}
    for row in rows:
        by_conversation.setdefault(row["conversation"], set()).add(row["worker"])
    assert all(len(workers) == 1 for workers in by_conversation.values()), "a conversation stays with its worker"


def test_a_node_that_dies_takes_its_requests_and_no_others(oss_eval: Command, tmp_path: Path) -> None:
    found = new_cluster()
    try:
        node = found.add_node(num_cpus=1, object_store_memory=MEMORY)
        words = ("perf", "--url", "sim://gpt-oss-20b-h20", "--parallel", "4", "--number", "24", "--max-tokens", "60",
                 "--workers", "ray:2", "--ray-address", found.address)  # fmt: skip
        with launched(tmp_path, *words) as process:
            until(lambda: (tmp_path / "results").exists() and len(read_requests(only_run(tmp_path))) > 6, 60)
            found.remove_node(node, allow_graceful=False)
            out, err = process.communicate(timeout=90)
        assert process.returncode == 0, err
        run = only_run(tmp_path)
        rows = rows_of(run)
        lost = [row for row in rows if row["status"] != "ok"]
        assert 1 <= len(lost) <= 2, "its two slots"
        assert {(row["status"], row["error_kind"]) for row in lost} == {("error", "client")}
        assert all("was lost" in row["error_message"] for row in lost)
        assert len({row["worker"] for row in lost}) == 1
        others = [row for row in rows if row["status"] == "ok"]
        assert max(row["end_ns"] for row in others) > max(row["end_ns"] for row in lost), (
            "the other worker went on"
        )
        assert "oss-eval resume --missing sends them" in " ".join(out.split())
        found.add_node(num_cpus=1, object_store_memory=MEMORY)
        again = oss_eval("resume", run.name, "--missing", timeout=90)
        assert again.returncode == 0, again.stderr
        assert len([row for row in rows_of(run) if row["status"] == "ok"]) >= 22
        assert bad(run) == []
    finally:
        found.shutdown()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_driver_that_ends_leaves_what_it_has(
    oss_eval: Command, cluster: str, tmp_path: Path, number: int
) -> None:
    words = ("perf", "--url", "sim://gpt-oss-20b-h20", "--parallel", "4", "--number", "60", "--max-tokens", "30",
             "--workers", "ray:2", "--ray-address", cluster, "--grace", "0")  # fmt: skip
    with launched(tmp_path, *words) as process:
        until(lambda: (tmp_path / "results").exists() and len(read_requests(only_run(tmp_path))) > 8, 60)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    run = only_run(tmp_path)
    before = len(rows_of(run))
    assert before >= 6
    again = oss_eval("resume", run.name, "--missing", timeout=90)
    assert again.returncode == 0, again.stderr
    done = [row["request_id"] for row in rows_of(run) if row["status"] == "ok"]
    assert len(done) == len(set(done)) == 60
    assert bad(run) == []


def test_a_slow_node_is_named(oss_eval: Command, cluster: str, tmp_path: Path) -> None:
    """One node's worker is stopped for 30 of every 35 ms, as if others used its core."""
    words = ("perf", "--url", "sim://gpt-oss-20b-h20", "--parallel", "8", "--number", "64", "--max-tokens", "80",
             "--workers", "ray:2", "--ray-address", cluster)  # fmt: skip
    with launched(tmp_path, *words) as process:
        until(lambda: (tmp_path / "results").exists() and len(read_requests(only_run(tmp_path))) > 2, 60)
        slow = workers_of_ray()[-1]
        while process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(slow, signal.SIGSTOP)
                time.sleep(0.03)
                os.kill(slow, signal.SIGCONT)
            time.sleep(0.005)
        _, err = process.communicate()
    assert process.returncode == 0, err
    run = only_run(tmp_path)
    rows = rows_of(run)
    lags = {n: statistics.median(r["client_lag_p50_ns"] for r in rows if r["worker"] == n) for n in (0, 1)}
    late = max(lags, key=lambda worker: lags[worker])
    [checks] = read_manifest(run)["checks"].values()
    found = [check["message"] for check in checks if check["kind"] == "slow_node"]
    assert len(found) == 1, checks
    assert found[0].startswith(f"worker {late} on ")
    assert "reads" in found[0]


def workers_of_ray() -> list[int]:
    """Process ids of the worker processes that Ray's actors have started."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and b"load.workers.worker" in (entry / "cmdline").read_bytes():
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                if b"ray::" in Path(f"/proc/{parent}/cmdline").read_bytes():
                    found.append(int(entry.name))
    return sorted(found)


def test_nodes_that_are_far_from_the_server_are_named() -> None:
    def workers(*times: float | None) -> dict[str, Any]:
        one = {"host": "h", "clock_error_ms": 0.1}
        return {"ray": {"workers": [{**one, "worker": n, "connect_ms": time} for n, time in enumerate(times)]}}

    [far] = cluster_findings(workers(0.2, 80.0, 0.3))
    assert far.kind == "slow_node"
    assert far.message.startswith("worker 1 on h is 80.0 ms from the server, the others 0.2 ms")
    assert cluster_findings(workers(0.2, 0.9, 0.3)) == []
    assert cluster_findings(workers(0.2)) == cluster_findings({}) == []


def test_a_worker_of_another_version_is_refused(oss_eval: Command, tmp_path: Path) -> None:
    copy = tmp_path / "other" / "oss_eval"
    shutil.copytree(ROOT / "oss_eval", copy)
    init = copy / "__init__.py"
    init.write_text(init.read_text().replace('__version__ = "', '__version__ = "9.'))
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(copy.parent)  # the raylets and their workers inherit it
    try:
        found = new_cluster()
    finally:
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
    try:
        done = oss_eval("perf", "--url", SIM, "--workers", "ray:1", "--ray-address", found.address)
    finally:
        found.shutdown()
    assert done.returncode == 2
    assert "their workers do not mix" in done.stderr
    assert not (tmp_path / "results").exists()


def test_without_a_cluster_it_is_said_how_to_start_one(oss_eval: Command, tmp_path: Path) -> None:
    done = oss_eval("perf", "--url", SIM, "--workers", "ray", "--ray-address", "127.0.0.1:1", timeout=120)
    assert done.returncode == 2
    assert "no Ray cluster at --ray-address 127.0.0.1:1" in done.stderr
    assert "ray start --head" in done.stderr
    assert not (tmp_path / "results").exists()
    done = oss_eval("perf", "--url", SIM, "--workers", "ray:0")
    assert done.returncode == 2
    assert "workers" in done.stderr


def test_ray_is_imported_by_those_who_ask_for_it() -> None:
    code = (
        "import sys, oss_eval.perf.sweep, oss_eval.load.workers.ray; print([m for m in sys.modules if m == 'ray'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(done.stdout) == []


# -- clocks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset_ms", [-3_600_000, -7.5, 0.0, 0.4, 12.0])
def test_an_injected_offset_is_found_within_its_error(offset_ms: float) -> None:
    """Network delays of both directions at random, and the other clock ahead or behind."""
    rng = random.Random(f"{offset_ms}")
    now = [1_700_000_000 * 10**9]

    def passes() -> None:
        now[0] += round(rng.expovariate(1 / 400e3)) + 50_000

    def remote_ns() -> int:
        passes()
        there = now[0] + round(offset_ms * 1e6)
        passes()
        return there

    found = clock_offset(remote_ns, lambda: now[0])
    assert abs(found.offset_ns - offset_ms * 1e6) <= found.error_ns
    assert found.error_ns < 1e6
    assert found.applied_ns == (found.offset_ns if abs(found.offset_ns) > found.error_ns else 0)
    assert ClockOffset(500, 600).applied_ns == 0


def test_timestamps_are_moved_and_durations_are_not() -> None:
    import numpy as np

    rows = np.array([[7, 1_000, 1_100, 5, -1], [7, 2_000, 2_050, -1, -2], [8, 0, 3_000, 4, -1]], dtype=np.int64)
    batch = Batch([(7, 1, 900, 0, 890)], rows.tobytes(), b"hello", [(7, 1, 900, 2_500, None, None, 0, None)])
    found = moved(batch, 400)
    there = np.frombuffer(found.rows, dtype=np.int64).reshape(-1, 5)
    assert there[:, 0].tolist() == [7, 7, 8]
    assert there[:, 1].tolist() == [600, 1_600, 0], "0: the kernel gave none"
    assert there[:, 2].tolist() == [700, 1_650, 2_600]
    assert there[:, 3:].tolist() == rows[:, 3:].tolist()
    assert found.started == [(7, 1, 500, 0, 490)]
    assert found.ended == [(7, 1, 500, 2_100, None, None, 0, None)]
    assert found.data == b"hello"
    assert moved(batch, 0) is batch
