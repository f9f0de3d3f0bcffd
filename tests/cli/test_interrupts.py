"""Ctrl-C and SIGTERM: what is in flight finishes or is given up, what was finished is stored, how to go on is said."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from oss_eval.results.manifest import read_manifest
from oss_eval.results.reader import read_requests, read_samples, status_of
from oss_eval.simulator.truth_log import read_truth
from tests.helpers.commands import ROOT, Command, bad, ended, launched, only_run, until, worker_of
from tests.helpers.interrupts_helpers import begun
from tests.helpers.scripted_server import deaf_server

pytestmark = pytest.mark.alone

SWEEP = ("perf", "--parallel", "4", "--number", "4000", "--max-tokens", "40")


BENCH = ("bench", "demo", "--parallel", "4", "--repeats", "50")


def parts(folder: Path) -> list[Path]:
    return list(folder.glob("results/*/requests/part-*.parquet"))


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_what_is_in_flight_may_finish(tmp_path: Path, number: int, oss_eval: Command) -> None:
    with launched(tmp_path, *SWEEP, "--url", "sim://gpt-oss-20b-h20?speed=2", "--json") as process:
        until(lambda: len(parts(tmp_path)) > 1)
        process.send_signal(number)
        told = time.time_ns()
        code, out, err = ended(process)
    assert code == 130
    run = only_run(tmp_path)
    statuses = read_requests(run, "00-c4")["status"].to_pylist()
    assert set(statuses) == {"ok"}, "nothing was given up"
    truth = read_truth(run / "truth.jsonl")
    assert all(seen.received_ns < told + 1e9 for seen in truth.values()), "nothing was sent any more"
    assert max(seen.token_ns[-1] for seen in truth.values()) > told, "something was in flight"
    document = json.loads(out)
    assert document["status"] == "interrupted"
    assert document["points"][0]["metrics"]["requests"]["value"] == len(statuses)
    assert document["points"][0]["checks"] is not None
    assert "4 requests in flight may finish within 10 s" in err
    assert "fewer requests were finished than planned" in err
    assert f"resume with: oss-eval resume {run.name}\n" in err
    assert not bad(run)


def test_grace_ends(tmp_path: Path) -> None:
    with launched(
        tmp_path, *SWEEP, "--max-tokens", "600", "--url", "sim://paced?rate=20", "--grace", "1"
    ) as process:
        until(lambda: any("00-c4" in file.read_text() for file in tmp_path.glob("results/*/manifest.json")))
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        code, _, _ = ended(process)
    assert code == 130
    assert 0.9 < time.monotonic() - begun < 15, "not the 30 s that a response takes"
    rows = read_requests(only_run(tmp_path), "00-c4")
    assert rows["status"].to_pylist() == ["cancelled"] * 4
    assert set(rows["error_message"].to_pylist()) == {"the run was stopped"}


@pytest.mark.parametrize("what", [SWEEP, BENCH], ids=["perf", "bench"])
def test_a_second_time_ends_at_once(tmp_path: Path, what: tuple[str, ...], oss_eval: Command) -> None:
    url = "sim://gpt-oss-20b-h20?speed=1" if what is SWEEP else "sim://gpt-oss-20b-h20?speed=4"
    longer = ("--max-tokens", "20000") if what is SWEEP else ()
    with launched(tmp_path, *what, *longer, "--url", url, "--grace", "60") as process:
        until(lambda: parts(tmp_path))
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        finished = set(read_requests(only_run(tmp_path))["request_id"].to_pylist())
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        code, _, err = ended(process)
        took = time.monotonic() - begun
    assert code == 130
    assert took < 20, "not the minute of its grace (benchmarks/stopping.py measures it)"
    run = only_run(tmp_path)
    rows = read_requests(run)
    assert finished <= set(rows["request_id"].to_pylist())
    if what is SWEEP:
        assert rows["status"].to_pylist().count("cancelled") == 4, "what was given up is a row too"
    assert status_of(run, read_manifest(run)) == "broken off"
    assert f"oss-eval resume {run.name}" in err
    assert not bad(run)
    assert oss_eval("show", "last").returncode == 0


@pytest.mark.parametrize("what", [SWEEP, pytest.param(BENCH, marks=pytest.mark.slow)], ids=["perf", "bench"])
def test_keys_that_are_held_down(tmp_path: Path, what: tuple[str, ...]) -> None:
    with launched(tmp_path, *what, "--max-tokens", "20000", "--url", "sim://paced?rate=20") as process:
        until(lambda: begun(tmp_path))
        time.sleep(2)
        for _ in range(40):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
            time.sleep(0.03)
        code, _, err = ended(process)
    assert code == 130
    if what is BENCH:
        assert not list(tmp_path.rglob("*")), "nothing was answered, so nothing is kept"
        return
    run = only_run(tmp_path)
    rows = read_requests(run).to_pylist()
    assert [row["status"] for row in rows if not row["warmup"]] == ["cancelled"] * 4
    assert f"oss-eval resume {run.name}" in err


@pytest.mark.parametrize("what", [SWEEP, BENCH], ids=["perf", "bench"])
def test_a_job_manager_tells_every_process(tmp_path: Path, what: tuple[str, ...]) -> None:
    """systemd and Slurm send SIGTERM to all of a job's processes, not to the first one alone."""
    with launched(tmp_path, *what, "--url", "sim://gpt-oss-20b-h20?speed=2") as process:
        until(lambda: parts(tmp_path))
        worker_of(process)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == (2 if what is SWEEP else 3)  # worker and simulator, and who grades
        for pid in (*map(int, children), process.pid):
            os.kill(pid, signal.SIGTERM)
        code, _, err = ended(process)
    assert code == 130
    assert "4 requests in flight may finish within 10 s" in err
    assert "ended unexpectedly" not in err
    run = only_run(tmp_path)
    assert set(read_requests(run)["status"].to_pylist()) == {"ok"}
    if what is BENCH:
        assert read_samples(run)["unscored_reason"].null_count == read_samples(run).num_rows
    assert not bad(run)


def test_a_reader_that_goes_with_the_same_keys(tmp_path: Path) -> None:
    """Ctrl-C ends both sides of `oss-eval perf ... 2>&1 | tee log`."""
    with launched(tmp_path, *SWEEP, "--url", "sim://gpt-oss-20b-h20?speed=2") as process:
        until(lambda: parts(tmp_path))
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stderr.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    run = only_run(tmp_path)
    assert read_manifest(run)["status"] == "interrupted"
    assert set(read_requests(run)["status"].to_pylist()) == {"ok"}
    assert not bad(run)


def test_a_mistake_is_one_whoever_reads_of_it(tmp_path: Path) -> None:
    line = f"set -o pipefail; {sys.executable} -m oss_eval show nonexistent 2>&1 | true"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "")


def test_a_benchmark_finishes_its_samples(tmp_path: Path) -> None:
    with launched(tmp_path, *BENCH, "--url", "sim://gpt-oss-20b-h20?speed=4") as process:
        until(lambda: parts(tmp_path))
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        told = time.time_ns()
        code, _, err = ended(process)
    assert code == 130
    run = only_run(tmp_path)
    assert "cancelled" not in read_requests(run)["status"].to_pylist()
    assert "4 requests in flight may finish within 10 s" in err
    assert f"resume with: oss-eval resume {run.name}\n" in err
    truth = read_truth(run / "truth.jsonl")
    assert all(seen.received_ns < told + 1e9 for seen in truth.values()), "nothing was sent any more"
    samples = read_samples(run)
    assert 0 < samples.num_rows < 34 * 50
    assert set(samples["status"].to_pylist()) == {"ok"}
    assert not bad(run)


@pytest.mark.parametrize("what", [SWEEP, BENCH], ids=["perf", "bench"])
def test_a_dead_worker_ends_the_run_with_its_rows(
    tmp_path: Path, what: tuple[str, ...], oss_eval: Command
) -> None:
    with launched(tmp_path, *what, "--url", "sim://gpt-oss-20b-h20?speed=5", "--json") as process:
        until(lambda: len(parts(tmp_path)) > 1)
        worker = worker_of(process)
        os.kill(worker, signal.SIGKILL)
        code, out, err = ended(process)
    assert code == 1
    assert "ended unexpectedly" in err
    run = only_run(tmp_path)
    assert f"oss-eval resume {run.name}" in err
    assert read_manifest(run)["broke_off"]["reason"].startswith(
        "worker process" if what is SWEEP else "the worker"
    )
    assert json.loads(out)["status"] == "failed"
    rows = read_requests(run, "00-c4" if what is SWEEP else None)
    assert rows["status"].to_pylist().count("ok") > 10
    if what is SWEEP:
        lost = [row for row in rows.to_pylist() if row["status"] == "cancelled"]
        assert len(lost) == 4
        assert all("worker process 0 ended unexpectedly (exit code -9)" in row["error_message"] for row in lost)
    assert not bad(run)


LOST = """
import signal, sys, time
from oss_eval.system.signals import Interrupts, reraise_lost_interrupts

class Leaving:
    def __del__(self):
        raise ValueError("still printed") if sys.argv[1:] else signal.raise_signal(signal.SIGTERM)

signal.signal(signal.SIGTERM, signal.default_int_handler)
reraise_lost_interrupts()
with Interrupts() as interrupts:
    try:
        Leaving()
        time.sleep(20)
    except KeyboardInterrupt:
        print("heeded", interrupts.count)
"""


def test_a_signal_that_falls_into_a_finalizer_is_heeded(tmp_path: Path) -> None:
    """Python prints and drops what is raised there."""
    call = partial(subprocess.run, cwd=ROOT, capture_output=True, text=True, timeout=60)
    done = call([sys.executable, "-c", LOST])
    assert (done.stdout, done.stderr) == ("heeded 1\n", "")
    other = call([sys.executable, "-c", LOST.replace("sleep(20)", "sleep(0)"), "x"])
    assert "ValueError: still printed" in other.stderr


NOTED = """
import signal, sys
from oss_eval.cli import tasks
from oss_eval.cli.main import main

def interrupted(arguments):
    try:
        exec("signal.raise_signal(signal.SIGTERM)")
    except KeyboardInterrupt:
        return 130

tasks.run = interrupted
sys.argv = ["oss-eval", "tasks"]
sys.exit(main())
"""


def test_the_exit_code_is_ours_wherever_the_signal_fell(tmp_path: Path) -> None:
    """CPython ends as killed by SIGINT when code made of text was interrupted, whoever caught it."""
    done = subprocess.run([sys.executable, "-c", NOTED], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "")


def test_grace_is_seconds(oss_eval: Command) -> None:
    done = oss_eval("perf", "--grace", "-1", "--url", "sim://instant")
    assert done.returncode == 2
    assert "--grace -1.0: must be greater than or equal to 0" in done.stderr


def test_a_stop_while_connections_are_being_opened(tmp_path: Path) -> None:
    """Ctrl-C must not wait for a server that takes no connection."""
    with deaf_server() as port:
        what = ("perf", "--url", f"http://127.0.0.1:{port}", "--model", "m", "--connect-timeout", "60")
        with launched(tmp_path, *what, "--parallel", "4") as process:
            assert process.stderr is not None
            assert any(
                line.startswith("number 16") for line in process.stderr
            )  # the last thing before it connects
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            code, _, err = ended(process)
    assert code == 130
    assert err.splitlines()[-1] == "oss-eval: interrupted"
    assert not list(tmp_path.rglob("*"))
