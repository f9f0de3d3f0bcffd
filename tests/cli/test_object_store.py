"""Results in an object store: every command against a real S3 server on this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.fs
import pyarrow.parquet
import pytest

from oss_eval.results.lock import LEASE, LEASE_SECONDS, fresh_lease
from oss_eval.results.manifest import read_manifest
from oss_eval.results.mirror import Mirror, mirror_of, place_of, results_folder
from oss_eval.results.object_store import ObjectStore
from oss_eval.results.reader import count_rows
from oss_eval.viewer.run_index import RunIndex
from tests.helpers.bench_helpers import right
from tests.helpers.commands import Command, launched, until
from tests.helpers.s3 import BUCKET, CREDENTIALS, S3Server
from tests.helpers.scripted_server import ScriptedServer, talking

pytestmark = pytest.mark.alone
URL = f"s3://{BUCKET}/team/results"
SIM = "sim://gpt-oss-20b-h20"
PERF = (
    "perf",
    "--url",
    SIM + "?speed=20",
    "--parallel",
    "4",
    "--number",
    "40",
    "--max-tokens",
    "20",
    "--out",
    URL,
)
Machine = Callable[[str], dict[str, str]]


@pytest.fixture
def machine(tmp_path: Path, s3: S3Server) -> Machine:
    """The environment of a command on a machine: each has its own copy of the store."""
    return lambda name: {**s3.env, "XDG_CACHE_HOME": str(tmp_path / name)}


@pytest.fixture
def bucket(s3: S3Server) -> pyarrow.fs.S3FileSystem:
    """The store as another program sees it."""
    return pyarrow.fs.S3FileSystem(
        access_key=CREDENTIALS["AWS_ACCESS_KEY_ID"], secret_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        region=CREDENTIALS["AWS_REGION"], endpoint_override=s3.endpoint,
    )  # fmt: skip


def objects(bucket: pyarrow.fs.S3FileSystem, below: str = f"{BUCKET}/team/results") -> dict[str, int]:
    found = bucket.get_file_info(pyarrow.fs.FileSelector(below, recursive=True, allow_not_found=True))
    files = [info for info in found if info.type == pyarrow.fs.FileType.File and info.size]
    return {info.path.removeprefix(f"{below}/"): info.size for info in files}


def folder_of(tmp_path: Path, name: str) -> Path:
    [folder] = (tmp_path / name / "oss-eval" / "stores").iterdir()
    return folder


def only_run(tmp_path: Path, name: str) -> Path:
    [run] = (path.parent for path in folder_of(tmp_path, name).glob("*/manifest.json"))
    return run


def requests_of(run: Path) -> pd.DataFrame:
    rows = pd.read_parquet(run / "requests")
    return rows[~rows.warmup]


def local_files(run: Path) -> dict[str, int]:
    return {
        f"{run.name}/{file.relative_to(run).as_posix()}": file.stat().st_size
        for file in run.rglob("*")
        if file.is_file() and not file.name.startswith(".")
    }


def test_a_run_is_in_the_store_and_read_from_there_elsewhere(
    oss_eval: Command, machine: Machine, bucket: pyarrow.fs.S3FileSystem, tmp_path: Path
) -> None:
    done = oss_eval(*PERF, "--json", **machine("a"))
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path, "a")
    assert f"stored in {URL}/{run.name}" in done.stderr
    assert json.loads(done.stdout)["path"] == f"{URL}/{run.name}"
    assert objects(bucket) == local_files(run), "every file, and nothing else"
    assert not (tmp_path / "results").exists()
    again = oss_eval("show", "last", "--out", URL, "--json", **machine("b"))
    assert json.loads(again.stdout)["points"] == json.loads(done.stdout)["points"]
    assert oss_eval("fsck", run.name, "--out", URL, **machine("b")).stdout == f"{run.name}: clean\n"
    assert oss_eval("fsck", f"{URL}/{run.name}", **machine("c")).stdout == f"{run.name}: clean\n"
    assert oss_eval("report", "last", "--out", URL, "--output", "run.html", **machine("b")).returncode == 0
    assert oss_eval(*PERF, "--name", "second", **machine("b")).returncode == 0
    names = sorted({name.partition("/")[0] for name in objects(bucket)})
    assert len(names) == 2
    compared = oss_eval(
        "compare", names[0], f"{URL}/{names[1]}:00", "--out", URL, "--format", "json", **machine("c")
    )
    assert compared.returncode == 0, compared.stderr
    assert json.loads(compared.stdout)["comparisons"]
    table = pyarrow.parquet.read_table(f"{BUCKET}/team/results/{run.name}/requests", filesystem=bucket)
    assert len(table) >= 40, "any Parquet reader reads it in place"


def test_what_had_ended_is_in_the_store_when_the_machine_is_lost(
    oss_eval: Command, machine: Machine, bucket: pyarrow.fs.S3FileSystem, tmp_path: Path
) -> None:
    words = ("perf", "--url", SIM, "--parallel", "4", "--number", "60", "--max-tokens", "60", "--out", URL)
    with launched(tmp_path, *words, **machine("a")) as process:
        until(lambda: len([name for name in objects(bucket) if "/requests/part" in name]) >= 2, 60)
        while_running = oss_eval("resume", "last", "--out", URL, **machine("b"))
        assert while_running.returncode == 2
        assert f"is being written by process {process.pid} on {socket.gethostname()}" in while_running.stderr
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    shutil.rmtree(tmp_path / "a")
    stored = sum(
        pyarrow.parquet.read_metadata(bucket.open_input_file(f"{BUCKET}/team/results/{name}")).num_rows
        for name in objects(bucket)
        if "/requests/part" in name
    )
    assert stored >= 8
    assert "broke off" in oss_eval("fsck", "last", "--out", URL, **machine("b")).stdout
    done = oss_eval("resume", "last", "--missing", "--out", URL, **machine("b"))
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path, "b")
    rows = pd.read_parquet(run / "requests")
    assert len(rows[rows.session == 1]) == stored, "kept, and not asked again"
    rows = requests_of(run)
    assert len(rows[rows.status == "ok"]) == 60
    assert objects(bucket) == local_files(run)
    assert oss_eval("fsck", "last", "--out", URL, **machine("c")).stdout.endswith(": clean\n")


def test_a_benchmark_that_is_killed_goes_on_on_another_machine(
    oss_eval: Command, machine: Machine, bucket: pyarrow.fs.S3FileSystem, tmp_path: Path, sums: Path
) -> None:
    with ScriptedServer(talking(lambda body: [0.3, right(body)])) as server:
        words = ("bench", str(sums), "--url", server.url, "--repeats", "3", "--out", URL)
        with launched(tmp_path, *words, **machine("a")) as process:
            until(lambda: any("/samples/part" in name for name in objects(bucket)), 60)
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=30)
        shutil.rmtree(tmp_path / "a")
        done = oss_eval("resume", "last", "--out", URL, **machine("b"))
        assert done.returncode == 0, done.stderr
    samples = pd.read_parquet(only_run(tmp_path, "b") / "samples")
    assert len(samples) == 60
    assert set(samples.score) == {1.0}
    assert objects(bucket) == local_files(only_run(tmp_path, "b"))


def test_a_store_that_is_away_for_a_while_stops_nothing(
    oss_eval: Command, machine: Machine, bucket: pyarrow.fs.S3FileSystem, s3: S3Server, tmp_path: Path
) -> None:
    words = ("perf", "--url", SIM, "--parallel", "4", "--number", "60", "--max-tokens", "60", "--out", URL)
    with launched(tmp_path, *words, **machine("a")) as process:
        until(lambda: any("/requests/part" in name for name in objects(bucket)), 60)
        s3.stop()
        run = only_run(tmp_path, "a")
        until(lambda: read_manifest(run)["status"] == "finished", 60)
        s3.start()  # with an empty bucket
        _, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    assert "upload failed, trying again" in err
    assert len(requests_of(run)) == 60
    there = objects(bucket)
    assert {name for name in there if name.endswith(("manifest.json", "summary.parquet"))} == {
        f"{run.name}/manifest.json", f"{run.name}/summary.parquet",
    }  # fmt: skip


@pytest.mark.slow
def test_what_could_not_be_uploaded_is_uploaded_by_the_next_command(
    oss_eval: Command, machine: Machine, bucket: pyarrow.fs.S3FileSystem, s3: S3Server, tmp_path: Path
) -> None:
    words = ("perf", "--url", SIM, "--parallel", "4", "--number", "40", "--max-tokens", "60", "--out", URL)
    with launched(tmp_path, *words, **machine("a")) as process:
        until(lambda: any(name.endswith("manifest.json") for name in objects(bucket)), 60)
        s3.stop()
        out, err = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "Concurrency" in out, "the table is printed all the same"
    assert "the results are not completely uploaded" in err
    run = only_run(tmp_path, "a")
    assert f"oss-eval resume {run.name} --out {URL}" in err
    s3.start()
    for file in (run / ".synced.json",):  # the server has forgotten everything
        file.unlink()
    assert oss_eval("show", "last", "--out", URL, **machine("a")).returncode == 0
    assert objects(bucket) == local_files(run)
    assert oss_eval("fsck", "last", "--out", URL, **machine("b")).stdout.endswith(": clean\n")


def test_a_run_without_an_answer_leaves_nothing_there(
    oss_eval: Command, machine: Machine, bucket: pyarrow.fs.S3FileSystem
) -> None:
    with ScriptedServer(talking(lambda body: b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")) as server:
        done = oss_eval("perf", "--url", server.url, "--model", "m", "--number", "2", "--parallel", "1", "--out", URL,
                        **machine("a"))  # fmt: skip
    assert done.returncode != 0
    assert objects(bucket) == {}


def test_stores_that_cannot_be_written_are_said_before_anything_is_measured(
    oss_eval: Command, machine: Machine, tmp_path: Path
) -> None:
    with ScriptedServer(talking(lambda body: b"")) as server:
        words = ("perf", "--url", server.url, "--model", "m", "--number", "2", "--parallel", "1", "--out")
        away = oss_eval(*words, "s3://no-such-bucket/results", **machine("a"))
        assert away.returncode == 2
        assert "s3://no-such-bucket/results" in away.stderr
        unknown = oss_eval(*words, "nosuch://place/results", **machine("a"))
        assert unknown.returncode == 2
        assert "nosuch://place/results can't be opened" in unknown.stderr
        assert not any(request.startswith(b"POST") for request in server.requests)
    empty = oss_eval("show", "last", "--out", f"s3://{BUCKET}/empty", **machine("a"))
    assert empty.returncode == 2
    assert f"there are no runs in s3://{BUCKET}/empty" in empty.stderr
    assert not (tmp_path / "s3:").exists()


def test_the_viewer_follows_the_store(
    oss_eval: Command,
    machine: Machine,
    bucket: pyarrow.fs.S3FileSystem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in machine("viewer").items():
        monkeypatch.setenv(name, value)
    folder = results_folder(URL)
    mirror = mirror_of(folder)
    assert mirror is not None
    said: list[str] = []
    with mirror.following(said.append):
        index = RunIndex([folder])
        assert index.runs() == []
        words = ("perf", "--url", SIM, "--parallel", "4", "--number", "80", "--max-tokens", "60", "--out", URL)
        with launched(tmp_path, *words, **machine("a")) as process:
            until(
                lambda: [
                    run for run in index.runs() if run.status == "running" and count_rows(run.path, "requests") > 4
                ],
                60,
            )
            process.communicate(timeout=90)
        until(
            lambda: [
                run for run in index.runs() if run.status == "finished" and count_rows(run.path, "requests") == 80
            ],
            60,
        )
        bucket.delete_dir(f"{BUCKET}/team/results/{index.runs()[0].name}")
        until(lambda: not index.runs(), 60)
    assert said == []


def test_keys_of_others_never_become_paths(
    oss_eval: Command, machine: Machine, bucket: pyarrow.fs.S3FileSystem, s3: S3Server, tmp_path: Path
) -> None:
    assert oss_eval(*PERF, **machine("a")).returncode == 0
    run = only_run(tmp_path, "a").name
    names = (
        "../../../escaped",
        f"{run}/../escaped",
        f"{run}/requests/../../../escaped",
        f"{run}/.lock",
        f"{run}/a/b/c",
    )
    for name in names:
        put(s3, f"team/results/{name}", b"x")
    assert oss_eval("show", "last", "--out", URL, **machine("b")).returncode == 0
    found = {file.relative_to(tmp_path / "b").as_posix() for file in (tmp_path / "b").rglob("*") if file.is_file()}
    assert not [name for name in found if "escaped" in name or name.endswith((".lock", "/c"))]
    assert not (tmp_path / "escaped").exists()


def put(s3: S3Server, key: str, content: bytes) -> None:
    """An object under any key: clients normalise paths, so the request is written by hand."""
    with socket.create_connection(("127.0.0.1", s3.port), 5) as sock:
        head = f"PUT /{BUCKET}/{key} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {len(content)}\r\n\r\n"
        sock.sendall(head.encode() + content)
        assert b" 200 " in sock.recv(4096).partition(b"\r\n")[0]


def test_keys_in_a_url_are_stored_in_no_run(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in machine("a").items():
        monkeypatch.setenv(name, value)
    folder = results_folder(f"s3://key-1:secret-1@{BUCKET}/results?region=us-east-1")
    assert place_of(folder) == f"s3://{BUCKET}/results"
    assert place_of(folder / "run") == f"s3://{BUCKET}/results/run"
    assert "secret-1" not in str(folder)
    if os.name == "posix":
        assert (folder / ".store").stat().st_mode & 0o077 == 0


def test_leases_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def lease(**values: Any) -> bytes:
        return json.dumps({"process": 7, "host": "elsewhere", "token": "t", "at": time.time(), **values}).encode()

    assert fresh_lease(lease()) == "process 7 on elsewhere"
    assert fresh_lease(lease(at=time.time() - LEASE_SECONDS - 1)) is None
    assert fresh_lease(lease(host=socket.gethostname(), process=os.getpid())) is not None
    assert fresh_lease(lease(host=socket.gethostname(), process=2**22 + 1)) is None, "that process is gone"
    for broken in (b"", b"[]", b"{}", b'{"at": "x"}', b"\xff"):
        assert fresh_lease(broken) is None


def test_a_run_that_was_resumed_elsewhere_wins(
    oss_eval: Command,
    machine: Machine,
    bucket: pyarrow.fs.S3FileSystem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What one machine still has and the store has not is put aside if another one has gone on meanwhile."""
    assert oss_eval(*PERF, **machine("a")).returncode == 0
    run = only_run(tmp_path, "a")
    assert oss_eval("show", "last", "--out", URL, **machine("b")).returncode == 0
    there = only_run(tmp_path, "b")
    manifest = json.loads((there / "manifest.json").read_text())
    (there / "manifest.json").write_text(json.dumps({**manifest, "name": "changed elsewhere"}))
    assert oss_eval("show", "last", "--out", URL, **machine("b")).returncode == 0, "uploads it"
    (run / "requests" / "part-000099.parquet").write_bytes(b"left over")
    assert oss_eval("show", "last", "--out", URL, **machine("a")).returncode == 0
    assert read_manifest(run)["name"] == "changed elsewhere"
    assert not (run / "requests" / "part-000099.parquet").exists()
    [aside] = folder_of(tmp_path, "a").glob(f".{run.name}-*")
    assert (aside / "requests" / "part-000099.parquet").exists()
    assert "part-000099" not in " ".join(objects(bucket))


def test_any_file_system_of_fsspec(tmp_path: Path) -> None:
    """Over fsspec's own local file system, as one that pyarrow does not know."""
    store = ObjectStore(f"local://{tmp_path}/store")
    store.put("run", "manifest.json", b"{}")
    store.put("run", "requests/part-000000.parquet", b"12345")
    assert store.runs() == ["run"]
    assert {name: size for name, (size, _) in store.files("run").items()} == {
        "manifest.json": 2, "requests/part-000000.parquet": 5,
    }  # fmt: skip
    Mirror(tmp_path / "here", store)._download("run", tmp_path / "here" / "run")
    assert (tmp_path / "here" / "run" / "requests" / "part-000000.parquet").read_bytes() == b"12345"
    store.delete("run", "manifest.json")
    assert store.signature("run", "manifest.json") is None
    assert store.read("run", LEASE) is None
    store.remove("run")
    assert store.runs() == []
    assert results_folder("file:///some/where") == Path("/some/where")
    assert results_folder("results") == Path("results")
