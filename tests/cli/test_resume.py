"""Whatever breaks, finished work stays and the run can go on."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from oss_eval.analysis.perf_summary import load_run
from oss_eval.analysis.request_rows import measured_seconds
from oss_eval.perf.remaining import remaining
from oss_eval.results.manifest import read_manifest
from oss_eval.results.reader import read_requests, read_samples, status_of
from oss_eval.results.schema import REQUESTS
from oss_eval.results.writer import RunWriter
from oss_eval.simulator.process import running
from oss_eval.simulator.truth_log import read_truth
from tests.helpers.commands import ROOT, Command, bad, ended, launched, only_run, until
from tests.helpers.resume_helpers import begun

SIM = "sim://gpt-oss-20b-h20?speed=10"


SLOW = "sim://gpt-oss-20b-h20?speed=2"
"""A sweep takes seconds, so that there is time to break it off."""


FAST = ("--url", "sim://gpt-oss-20b-h20?speed=40")


SWEEP = ("perf", "--parallel", "2", "8", "--number", "6", "240", "--max-tokens", "30")


@contextlib.contextmanager
def broken_off(folder: Path, *words: str) -> Iterator[None]:
    """A sweep is killed in its second point of 240 requests, some of which are stored."""
    with launched(folder, *SWEEP, *words) as process:
        until(lambda: begun(folder, "01-c8", 40))
        yield
        process.kill()


@pytest.fixture(scope="module")
def broken_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("broken")
    with broken_off(folder, "--url", SLOW):
        pass
    return folder


@pytest.fixture(scope="module")
def orphaned_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("orphaned")
    (folder / "prompt.txt").write_text("Count to ten.")
    with running(SLOW) as url, broken_off(folder, "--url", url, "--prompt", "@prompt.txt"):
        pass
    return folder


@pytest.fixture
def broken(broken_sweep: Path, tmp_path: Path) -> Path:
    """A sweep that was killed, its simulator with it."""
    shutil.copytree(broken_sweep, tmp_path, dirs_exist_ok=True)
    return only_run(tmp_path)


@pytest.fixture
def orphaned(orphaned_sweep: Path, tmp_path: Path) -> Path:
    """A sweep that was killed; the server that it asked is gone. It sent what is in prompt.txt."""
    shutil.copytree(orphaned_sweep, tmp_path, dirs_exist_ok=True)
    return only_run(tmp_path)


def test_unfinished_points_are_measured_again_as_a_whole(broken: Path, oss_eval: Command) -> None:
    assert status_of(broken, read_manifest(broken)) == "broken off"
    before = {row["request_id"]: row for row in read_requests(broken).to_pylist()}
    asked = set(read_truth(broken / "truth.jsonl"))
    done = oss_eval("resume", "last", *FAST, timeout=120)
    assert done.returncode == 0, done.stderr
    manifest = read_manifest(broken)
    assert manifest["status"] == "finished"
    assert [point["point_id"] for point in manifest["points"]] == ["00-c2", "01-c8-r2"]
    [aside] = manifest["set_aside"]
    assert aside["point_id"] == "01-c8"
    assert 40 <= aside["requests"] < 240
    after = {row["request_id"]: row for row in read_requests(broken).to_pylist()}
    assert {name: after[name] for name in before} == before, "what was there is there, untouched"
    again = set(read_truth(broken / "truth.jsonl")) - asked
    names = {name.split("/")[1] for name in again}
    assert names == {"probe-2", "01-c8-r2"}, "finished points are not asked again"
    assert read_requests(broken, "01-c8-r2").num_rows == 240
    assert {row["session"] for row in after.values() if row["point_id"] == "01-c8-r2"} == {2}
    assert [point.point_id for point in load_run(broken).points] == ["00-c2", "01-c8-r2"]
    assert "01-c8: quarantined" in done.stdout
    assert not bad(broken)
    assert len(manifest["sessions"]) == 2
    assert "perf" in manifest["command"]


def test_missing_requests_alone(broken: Path, oss_eval: Command) -> None:
    before = {row["request_id"]: row for row in read_requests(broken).to_pylist()}
    asked = set(read_truth(broken / "truth.jsonl"))
    done = oss_eval("resume", broken.name, "--missing", *FAST, timeout=120)
    assert done.returncode == 0, done.stderr
    after = read_requests(broken).to_pylist()
    assert sorted(row["request_id"] for row in after if not row["warmup"]) == sorted(
        [f"00-c2/{n}" for n in range(6)] + [f"01-c8/{n}" for n in range(240)]
    )
    assert {name: row for row in after if (name := row["request_id"]) in before} == before
    in_flight = {f"{broken.name}/{row['request_id']}" for row in after if row["session"] == 2} & asked
    assert len(in_flight) < 100, "only what was in flight, or finished within the last second, is asked twice"
    [_, point] = load_run(broken).points
    rows = read_requests(broken, "01-c8")
    seconds = measured_seconds(rows)
    assert seconds is not None
    wall = (max(rows["end_ns"].to_pylist()) - min(rows["start_ns"].to_pylist())) / 1e9
    assert seconds < wall - 0.5, "the time between the sessions is not measured time"
    assert point.metrics.get("rps") == pytest.approx(240 / seconds)
    assert not bad(broken)


def test_nothing_is_missing(broken: Path, oss_eval: Command) -> None:
    assert oss_eval("resume", "last", *FAST, timeout=120).returncode == 0
    rows = read_requests(broken).num_rows
    done = oss_eval("resume", "last")
    assert done.returncode == 0
    assert "nothing is missing" in done.stderr
    assert read_requests(broken).num_rows == rows
    assert not bad(broken)


@pytest.mark.slow
def test_a_server_that_is_gone_ends_the_sweep(tmp_path: Path, oss_eval: Command) -> None:
    """The rest of the grid is not filled with failures, and goes on when the server is back."""
    with running(SIM) as url:
        process_url = url
        with launched(tmp_path, *SWEEP[:-2], "--max-tokens", "20", "--parallel", "2", "40", "4", "--number", "6",
                      "300", "8", "--url", url) as process:  # fmt: skip
            until(lambda: begun(tmp_path, "01-c40", 40))
            # The simulator's process is the only other child of ours that listens.
            os.kill(_listening_on(int(url.split(":")[2].split("/")[0])), signal.SIGKILL)
            code, _, err = ended(process, 90)
    assert code == 1
    assert "the server can't be reached any more: " in err
    run = only_run(tmp_path)
    assert f"oss-eval resume {run.name}" in err
    manifest = read_manifest(run)
    assert manifest["status"] == "failed"
    assert manifest["broke_off"]["point_id"] == "01-c40"
    assert read_requests(run, "02-c4").num_rows == 0
    assert not bad(run)
    port = process_url.split(":")[2].split("/")[0]
    with launched(tmp_path, "simulate", "--port", port, "--speed", "10") as server:
        assert server.stderr is not None
        server.stderr.readline()
        done = oss_eval("resume", "last", timeout=120)
        assert done.returncode == 0, done.stderr
        server.send_signal(signal.SIGINT)
        server.wait(10)
    assert [p["point_id"] for p in read_manifest(run)["points"]] == ["00-c2", "01-c40-r2", "02-c4"]
    assert read_manifest(run)["broke_off"] is None
    assert not bad(run)


def _listening_on(port: int) -> int:
    found = subprocess.run(["ss", "-ltnpH", f"sport = :{port}"], capture_output=True, text=True, check=False)
    if "pid=" not in found.stdout:
        pytest.skip("ss does not say who listens")
    return int(found.stdout.split("pid=")[1].split(",")[0])


def test_what_would_mix_unlike_figures_is_refused(broken: Path, oss_eval: Command, fast_simulator: str) -> None:
    before = read_manifest(broken)
    done = oss_eval("resume", "last", "--model", "another")
    assert done.returncode == 2
    assert "--model was 'gpt-oss-20b', now 'another'" in done.stderr
    from tests.helpers.scripted_server import ScriptedServer, answering, saying

    with ScriptedServer(answering(saying("hi"))) as server:
        done = oss_eval("resume", "last", "--url", server.url)
        assert done.returncode == 2
        assert "are simulated, and a real server would answer now" in done.stderr
    assert oss_eval("bench", "--resume", "last").returncode == 2
    assert status_of(broken, read_manifest(broken)) == "broken off"
    after = read_manifest(broken)
    assert {**after, "sessions": None} == {**before, "sessions": None}, "but for the sessions that came to nothing"


def test_a_resume_that_reaches_nobody_leaves_the_run_as_it_was(orphaned: Path, oss_eval: Command) -> None:
    rows = read_requests(orphaned).to_pylist()
    done = oss_eval("resume", "last")
    assert done.returncode == 2
    assert "can't reach" in done.stderr
    assert read_requests(orphaned).to_pylist() == rows
    assert status_of(orphaned, read_manifest(orphaned)) == "broken off"
    with running(FAST[1]) as url:
        assert oss_eval("resume", "last", "--url", url, "--missing", timeout=120).returncode == 0
    assert not bad(orphaned)


def test_two_writers_are_kept_apart(tmp_path: Path, oss_eval: Command) -> None:
    with launched(tmp_path, *SWEEP, "--url", SLOW) as process:
        until(lambda: begun(tmp_path, "01-c8", 4))
        done = oss_eval("resume", "last")
        assert done.returncode == 2
        assert f"is being written by process {process.pid} on " in done.stderr
    (tmp_path / "results" / only_run(tmp_path).name / ".lock").write_text("process 1 on nowhere\n")
    assert oss_eval("resume", "last", *FAST, timeout=120).returncode == 0, "a stale lock is none"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip("mounting a file system takes root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("what", ["perf", pytest.param("bench", marks=pytest.mark.slow)])
def test_a_full_disk(small_disk: Path, what: str, oss_eval: Command) -> None:
    words = SWEEP if what == "perf" else ("bench", "demo", "--parallel", "4", "--repeats", "3")
    with launched(small_disk, *words, "--url", SLOW if what == "perf" else SIM) as process:
        until(lambda: list(small_disk.glob("results/*/requests/part-000001.parquet")))
        filler = small_disk / "filler"
        full = os.open(filler, os.O_WRONLY | os.O_CREAT)
        with contextlib.suppress(OSError):
            while True:
                os.write(full, b"0" * 4096)
        os.close(full)
        known = set(read_requests(only_run(small_disk))["request_id"].to_pylist())
        code, _, err = ended(process)
    assert code == 1
    assert "No space left on device" in err
    run = only_run(small_disk)
    assert f"resume {run.name}" in err
    stored = set(read_requests(run)["request_id"].to_pylist())
    assert known <= stored, "every file is whole"
    assert not list(run.glob("*/.part-*")), "no half of a file is left in the way"
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "oss_eval", "resume", "last", *FAST, "--missing"][: 7 + (what == "perf")],
        cwd=small_disk, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not bad(run)


def test_a_folder_that_becomes_read_only(small_disk: Path) -> None:
    with launched(small_disk, *SWEEP, "--url", SLOW, TMPDIR="/tmp") as process:
        until(lambda: list(small_disk.glob("results/*/requests/part-000001.parquet")))
        # The simulator's log is open for writing, which keeps the file system from becoming read-only as a whole.
        folder = only_run(small_disk)
        subprocess.run(["mount", "--bind", str(folder / "requests"), str(folder / "requests")], check=True)
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", str(folder / "requests")], check=True)
            code, _, err = ended(process)
        finally:
            subprocess.run(["umount", "-l", str(folder / "requests")], check=True)
    assert code == 1
    assert "Read-only file system" in err
    assert read_requests(folder).num_rows > 0
    assert not bad(folder)


def test_a_part_cut_short_by_a_power_cut_is_put_aside(broken: Path, oss_eval: Command) -> None:
    parts = sorted((broken / "requests").glob("part-*.parquet"))
    lost = pq.read_table(parts[-1]).num_rows
    with parts[-1].open("r+b") as file:
        file.truncate(parts[-1].stat().st_size // 2)
    before = sum(pq.read_table(part).num_rows for part in parts[:-1])
    assert lost > 0
    shown = oss_eval("show", "last")
    assert shown.returncode == 2
    assert "is damaged" in shown.stderr
    assert "oss-eval resume" in shown.stderr
    done = oss_eval("resume", "last", "--missing", *FAST, timeout=120)
    assert done.returncode == 0, done.stderr
    assert f"{parts[-1].name}.damaged" in done.stderr
    after = read_requests(broken)
    assert after.num_rows >= before
    names = [row["request_id"] for row in after.to_pylist() if not row["warmup"]]
    assert sorted(names) == sorted([f"00-c2/{n}" for n in range(6)] + [f"01-c8/{n}" for n in range(240)])
    assert not bad(broken)


def killed(folder: Path, url: str, truth: Path, words: tuple[str, ...], times: int, rng: random.Random) -> int:
    """Kill a command and what goes on with it at random moments; how often it could be before it was done.

    Every time: what finished more than a second before is readable, and nothing that is stored is asked again.
    """
    bench = words[0] == "bench"
    run: Path | None = None
    for kills in range(times):
        again = ("resume", "last") if bench else ("resume", "last", "--missing")
        with launched(folder, *(words if run is None else again), "--url", url) as process:
            stored = _answers(run) if run else set()
            seen_before = len(truth.read_bytes()) if truth.exists() else 0
            try:
                process.wait(rng.uniform(1.0, 3.5) if run else rng.uniform(2.0, 4.0))
                assert process.returncode == 0, ended(process)
                return kills
            except subprocess.TimeoutExpired:
                process.kill()
            killed_at = time.time_ns()
        found = list((folder / "results").glob("*/manifest.json")) if (folder / "results").exists() else []
        time.sleep(0.7)  # the simulator notices who has left, and writes its log
        if run is None and not found:
            continue  # too early for anything
        run = found[0].parent
        known = _answers(run)
        assert stored <= known, "what was stored is still there"
        asked_again = {
            name for name in _names(truth.read_bytes()[seen_before:], run)
            if (name.split("/a")[0] if bench else name) in stored
        }  # fmt: skip
        assert not asked_again, "what is stored is not asked again"
        if not bench:
            # Of this session: what an earlier one lost within its last second may not have been asked again yet.
            (folder / "session.jsonl").write_bytes(truth.read_bytes()[seen_before:])
            for name, seen in read_truth(folder / "session.jsonl").items():
                _, _, request = name.partition("/")
                if seen.status == "ok" and seen.token_ns[-1] < killed_at - 1.5e9:
                    assert request in known or request.startswith(("probe", "warmup")), f"{name} is lost"
    return times


def _names(lines: bytes, run: Path) -> list[str]:
    import orjson

    names = [orjson.loads(line)["request_id"] for line in lines.splitlines()]
    return [name.partition("/")[2] for name in names if name and name.startswith(run.name)]


def _answers(run: Path) -> set[str]:
    """Finished work: requests of a sweep, samples of a benchmark by the request that answered them."""
    if read_manifest(run)["kind"] == "bench":
        rows = read_samples(run, ["request_id", "status"]).to_pylist()
        return {row["request_id"].split("/a")[0] for row in rows if row["status"] == "ok"}
    return set(read_requests(run)["request_id"].to_pylist())


def _kill_and_finish(folder: Path, words: tuple[str, ...], times: int, seed: int, oss_eval: Command) -> int:
    truth = folder / "truth.jsonl"
    with running("sim://gpt-oss-20b-h20?speed=4", truth) as url:
        kills = killed(folder, url, truth, words, times, random.Random(seed))
        again = ("resume", "last") if words[0] == "bench" else ("resume", "last", "--missing")
        done = oss_eval(*again, "--url", url, timeout=200)
        assert done.returncode == 0, done.stderr
    run = only_run(folder)
    assert read_manifest(run)["status"] == "finished"
    assert not bad(run)
    return kills


KILLED_SWEEP = ("perf", "--parallel", "4", "8", "--number", "60", "200", "--max-tokens", "60")


KILLED_BENCH = ("bench", "demo", "--parallel", "8", "--repeats", "3")


@pytest.mark.parametrize(
    "words", [KILLED_SWEEP, pytest.param(KILLED_BENCH, marks=pytest.mark.slow)], ids=["perf", "bench"]
)
def test_killed_three_times(tmp_path: Path, words: tuple[str, ...], oss_eval: Command) -> None:
    assert _kill_and_finish(tmp_path, words, 3, 7, oss_eval) == 3


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("words", [KILLED_SWEEP, KILLED_BENCH], ids=["perf", "bench"])
def test_killed_fifty_times(tmp_path: Path, words: tuple[str, ...], oss_eval: Command) -> None:
    kills, seed = 0, 0
    while kills < 50:
        shutil.rmtree(tmp_path / "results", ignore_errors=True)
        (tmp_path / "truth.jsonl").unlink(missing_ok=True)
        kills += _kill_and_finish(tmp_path, words, min(10, 50 - kills), seed, oss_eval)
        seed += 1
    assert kills == 50


def test_resume_is_for_benchmarks_too(tmp_path: Path, oss_eval: Command) -> None:
    with launched(tmp_path, "bench", "demo", "--parallel", "4", "--repeats", "2", "--url", SIM) as process:
        until(lambda: list(tmp_path.glob("results/*/samples/part-000000.parquet")))
        process.kill()
    run = only_run(tmp_path)
    before = _answers(run)
    assert oss_eval("resume", "last", "--missing").returncode == 2
    done = oss_eval("resume", "last", timeout=120)
    assert done.returncode == 0, done.stderr
    assert before < _answers(run)
    assert read_samples(run).num_rows == 34 * 2
    assert not bad(run)
    assert len(set(read_requests(run)["session"].to_pylist())) == 2


def test_who_looks_does_not_lock(tmp_path: Path) -> None:
    """The viewer looks every second whether a run is being written; that must not keep a writer out."""
    writer = RunWriter(tmp_path, "r1", {"kind": "perf", "points": []})
    writer.leave()
    (tmp_path / "r1" / ".lock").touch()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            status_of(tmp_path / "r1", {"status": "running"})

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(20):
            RunWriter.reopen(tmp_path / "r1").leave()
    finally:
        stop.set()
        thread.join()


@pytest.mark.slow
def test_a_server_that_is_gone_ends_a_long_point_too(tmp_path: Path) -> None:
    words = ("perf", "--parallel", "4", "--number", "100000")
    with running(SIM) as url, launched(tmp_path, *words, "--url", url) as process:
        until(lambda: begun(tmp_path, "00-c4", 10))
        os.kill(_listening_on(int(url.split(":")[2].split("/")[0])), signal.SIGKILL)
        code, _, err = ended(process, 90)
    assert code == 1
    assert "the server can't be reached any more: " in err
    assert read_requests(only_run(tmp_path), "00-c4").num_rows < 1000


def test_a_run_that_failed_does_not_become_finished_by_being_resumed(oss_eval: Command, tmp_path: Path) -> None:
    with running("sim://paced?rate=500&ttft=5") as good:
        words = ("--parallel", "1", "--number", "3", "--max-tokens", "4", "--prompt", "x")
        assert oss_eval("perf", "--url", good, *words).returncode == 0
    run = only_run(tmp_path)
    rows = pq.read_table(run / "requests").to_pylist()
    for row in rows:
        row["status"], row["error_kind"] = ("error", "http_5xx") if not row["warmup"] else (row["status"], None)
    [part] = (run / "requests").glob("*.parquet")
    pq.write_table(pa.Table.from_pylist(rows, schema=REQUESTS), part)
    done = oss_eval("resume", "last")
    assert done.returncode == 1
    assert "nothing is missing" in done.stderr
    assert "every request failed" in done.stderr
    assert read_manifest(run)["status"] == "failed"


def test_what_is_whole_is_closed_without_its_server(tmp_path: Path, oss_eval: Command) -> None:
    with running(SIM) as url:
        assert oss_eval("perf", "--url", url, "--parallel", "2", "--number", "4").returncode == 0
    run = only_run(tmp_path)
    (run / "summary.parquet").unlink()
    manifest = read_manifest(run)
    (run / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    done = oss_eval("resume", "last")
    assert done.returncode == 0, done.stderr
    assert read_manifest(run)["status"] == "finished"
    assert not bad(run)


def test_resumes_that_come_to_nothing_have_numbers_of_their_own(orphaned: Path, oss_eval: Command) -> None:
    with running("sim://gpt-oss-20b-h20?speed=10&fault=503") as url:
        for _ in range(2):
            assert oss_eval("resume", "last", "--url", url).returncode == 2
    with running(FAST[1]) as url:
        assert oss_eval("resume", "last", "--url", url, timeout=120).returncode == 0
    assert not bad(orphaned)
    assert len(read_manifest(orphaned)["sessions"]) == 4


def test_a_point_that_was_begun_gets_other_prompts_even_without_a_row(tmp_path: Path, oss_eval: Command) -> None:
    words = ("perf", "--parallel", "2", "--number", "4", "--max-tokens", "2000")
    with launched(tmp_path, *words, "--url", "sim://paced?rate=20") as process:
        until(lambda: any("00-c2" in file.read_text() and '"begun"' in file.read_text()
                          for file in tmp_path.glob("results/*/manifest.json")))  # fmt: skip
        process.kill()
    run = only_run(tmp_path)
    assert read_requests(run, "00-c2").num_rows == 0
    assert remaining(run, missing=False).points[0].point_id == "00-c2-r2"
    assert remaining(run, missing=True).todo == {"00-c2": [0, 1, 2, 3]}


def test_a_benchmark_that_is_resumed_and_asks_nothing_is_as_it_was(tmp_path: Path, oss_eval: Command) -> None:
    with running(SIM) as url:
        assert oss_eval("bench", "demo", "--limit", "4", "--url", url).returncode == 0
    run = only_run(tmp_path)
    with running("sim://gpt-oss-20b-h20?speed=0.001") as url:
        words = ("bench", "--resume", "last", "--url", url, "--repeats", "8", "--grace", "0")
        with launched(tmp_path, *words) as process:
            until(lambda: '"running"' in (run / "manifest.json").read_text())
            time.sleep(1)
            process.send_signal(signal.SIGINT)
            code, _, err = ended(process)
    assert code == 130, err
    assert (status_of(run, read_manifest(run)), read_samples(run).num_rows) == ("finished", 16)
    assert not bad(run)


def test_a_benchmark_that_never_began_says_so(tmp_path: Path, oss_eval: Command) -> None:
    RunWriter(tmp_path / "results", "r", {"kind": "bench"}).close()
    done = oss_eval("resume", "r")
    assert done.returncode == 2
    assert "r ended before anything was asked" in done.stderr


def test_what_is_resumed_is_asked_the_same_way(orphaned: Path, tmp_path: Path, oss_eval: Command) -> None:
    with running(FAST[1]) as url:
        done = oss_eval("resume", "last", "--url", f"{url}/completions")
        assert done.returncode == 2
        assert "the chat API was asked, now the completions API" in done.stderr
        (tmp_path / "prompt.txt").write_text("Count to twenty.")
        done = oss_eval("resume", "last", "--url", url)
        assert done.returncode == 2
        assert "the prompt @prompt.txt is another one now" in done.stderr
        (tmp_path / "prompt.txt").write_text("Count to ten.")
        assert oss_eval("resume", "last", "--url", url, timeout=120).returncode == 0
    assert not bad(orphaned)
