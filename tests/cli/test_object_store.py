"""Results in an object store: every command against a real S3 server on this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.fs
import pyarrow.parquet
import pytest

from oss_eval.errors import OssEvalError, StoreError
from oss_eval.results import upload
from oss_eval.results.lock import LEASE, LEASE_SECONDS, fresh_lease, new_lease
from oss_eval.results.manifest import read_manifest
from oss_eval.results.mirror import Mirror, mirror_of, place_of, results_folder
from oss_eval.results.object_store import ObjectStore
from oss_eval.results.reader import count_rows
from oss_eval.viewer.run_index import RunIndex
from tests.helpers.bench_helpers import right
from tests.helpers.commands import Command, launched, until
from tests.helpers.s3 import BUCKET, CREDENTIALS, S3Server
from tests.helpers.scripted_server import ScriptedServer, talking

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
        region=CREDENTIALS["AWS_REGION"], endpoint_override=s3.direct,
    )  # fmt: skip


def this_process_is(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The test itself works as on the machine with this environment."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)


def objects(bucket: pyarrow.fs.S3FileSystem, below: str = f"{BUCKET}/team/results") -> dict[str, int]:
    found = bucket.get_file_info(pyarrow.fs.FileSelector(below, recursive=True, allow_not_found=True))
    files = [info for info in found if info.type == pyarrow.fs.FileType.File and info.size]
    return {info.path.removeprefix(f"{below}/"): info.size for info in files}


def folder_of(tmp_path: Path, name: str) -> Path:
    [mark] = (tmp_path / name / "oss-eval" / "stores").glob("*/.store")
    return mark.parent


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
        s3.cut()
        run = only_run(tmp_path, "a")
        until(lambda: read_manifest(run)["status"] == "finished", 60)
        behind = objects(bucket)
        assert behind != local_files(run)
        s3.mend()
        _, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    assert "upload failed, trying again" in err
    assert len(requests_of(run)) == 60
    assert objects(bucket) == local_files(run)


@pytest.mark.slow
def test_what_could_not_be_uploaded_is_uploaded_by_the_next_command(
    oss_eval: Command, machine: Machine, bucket: pyarrow.fs.S3FileSystem, s3: S3Server, tmp_path: Path
) -> None:
    words = ("perf", "--url", SIM, "--parallel", "4", "--number", "40", "--max-tokens", "60", "--out", URL)
    with launched(tmp_path, *words, **machine("a")) as process:
        until(lambda: any(name.endswith("manifest.json") for name in objects(bucket)), 60)
        s3.cut()
        out, err = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "Concurrency" in out, "the table is printed all the same"
    assert "not everything is uploaded" in err
    run = only_run(tmp_path, "a")
    assert f"oss-eval resume {run.name} --out {URL}" in err
    s3.mend()
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
    this_process_is(machine("viewer"), monkeypatch)
    folder = results_folder(URL)
    mirror = mirror_of(folder)
    assert mirror is not None
    with mirror.following():
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
    this_process_is(machine("a"), monkeypatch)
    folder = results_folder(f"s3://key-1:secret-1@{BUCKET}/results?region=us-east-1")
    assert place_of(folder) == f"s3://{BUCKET}/results"
    assert place_of(folder / "run") == f"s3://{BUCKET}/results/run"
    assert "secret-1" not in str(folder)
    awkward = f"s3://AKIA123:ab/cdEF@{BUCKET}/results"  # a key of AWS may hold a /
    with pytest.raises(OssEvalError) as raised:
        mirror_of(results_folder(awkward))
    told = f"{raised.value.message} {results_folder(awkward)} {place_of(results_folder(awkward))}"
    assert "cdEF" not in told
    assert "ab-" not in told
    if os.name == "posix":
        assert (folder / ".store").stat().st_mode & 0o077 == 0


def stored_run(tmp_path: Path) -> tuple[Mirror, Path]:
    """A run with two parts, here and in a store that is a folder."""
    mirror = Mirror(tmp_path / "here", ObjectStore(f"local://{tmp_path}/store"))
    run = tmp_path / "here" / "run"
    (run / "requests").mkdir(parents=True)
    for number in range(2):
        (run / "requests" / f"part-{number:06d}.parquet").write_bytes(b"%d" % number)
    (run / "manifest.json").write_text('{"status": "running"}')
    mirror.push(run)
    return mirror, run


def test_parts_are_in_the_store_until_what_they_were_merged_into_is(tmp_path: Path) -> None:
    mirror, run = stored_run(tmp_path)
    small = {f"requests/part-{number:06d}.parquet" for number in range(2)}
    merged = "requests/part-000000-000001.parquet"

    def merge() -> None:
        if not (run / merged).exists():
            (run / merged).write_bytes(b"01")
            for name in small:
                (run / name).unlink()
            (run / "manifest.json").write_text('{"status": "finished"}')

    (run / "requests" / "part-000002.parquet").write_bytes(b"2")
    mirror.push(run, between=merge)
    there = set(mirror.store.files("run"))
    assert small <= there
    assert merged not in there
    assert mirror.store.read("run", "manifest.json") == b'{"status": "running"}', "not before its rows"
    mirror.push(run)
    assert set(mirror.store.files("run")) == {merged, "requests/part-000002.parquet", "manifest.json"}
    assert mirror.store.read("run", "manifest.json") == b'{"status": "finished"}'


def test_a_damaged_part_of_the_copy_is_fetched_again(tmp_path: Path) -> None:
    mirror, run = stored_run(tmp_path)
    part = "requests/part-000001.parquet"
    (run / part).write_bytes(b"")  # as after a power cut
    assert mirror.pull("run") == run
    assert (run / part).read_bytes() == b"1"
    assert mirror.store.read("run", part) == b"1"


def test_a_download_that_broke_off_uploads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror, _ = stored_run(tmp_path)
    other = Mirror(tmp_path / "elsewhere", mirror.store)
    got: list[str] = []

    def breaks_off(self: ObjectStore, run: str, name: str, path: Path) -> None:
        if got:
            raise StoreError("away")
        got.append(name)
        get(self, run, name, path)

    get = ObjectStore.get
    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "get", breaks_off)
        with pytest.raises(StoreError, match="away"):
            other.pull("run")
    mirror.store.delete("run", got[0])  # merged by its writer
    mirror.store.put("run", "requests/part-000000-000001.parquet", b"01")
    mirror.store.delete("run", "requests/part-000001.parquet")
    other.pull("run")
    assert set(mirror.store.files("run")) == {"requests/part-000000-000001.parquet", "manifest.json"}
    assert not (tmp_path / "elsewhere" / "run" / got[0]).exists()


def test_a_manifest_is_not_ahead_of_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror, run = stored_run(tmp_path)
    other = Mirror(tmp_path / "elsewhere", mirror.store)
    get = ObjectStore.get

    def ends_meanwhile(self: ObjectStore, name: str, file: str, path: Path) -> None:
        if file == "manifest.json" and not (run / "requests" / "part-000002.parquet").exists():
            (run / "requests" / "part-000002.parquet").write_bytes(b"2")
            (run / "manifest.json").write_text('{"status": "finished"}')
            mirror.push(run)
        get(self, name, file, path)

    monkeypatch.setattr(ObjectStore, "get", ends_meanwhile)
    path = other.pull("run")
    assert json.loads((path / "manifest.json").read_text())["status"] == "finished"
    assert (path / "requests" / "part-000002.parquet").read_bytes() == b"2"


def test_a_run_that_was_resumed_since_it_was_read_is_not_resumed_again(tmp_path: Path) -> None:
    mirror, run = stored_run(tmp_path)
    there = {"status": "finished", "sessions": [{"started": "a"}, {"started": "b"}]}
    mirror.store.put("run", "manifest.json", json.dumps(there).encode())
    with pytest.raises(StoreError, match="was resumed elsewhere just now"):
        upload.Upload(mirror, run, new=False)
    assert json.loads((run / "manifest.json").read_text()) == there
    assert mirror.store.read("run", LEASE) is None


def test_a_writer_that_was_away_for_long_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "RENEW_SECONDS", 0.0)
    mirror, run = stored_run(tmp_path)
    with upload.uploading(mirror, run, new=False) as uploaded:
        monkeypatch.setattr(upload, "SYNC_SECONDS", 0.1)
        second = upload.uploading(mirror, run, new=False)
        with pytest.raises(StoreError, match="another process moves the files"):
            second.__enter__()
        mirror.store.delete("run", LEASE)  # as by another machine that has resumed and finished it
        mirror.store.put("run", "manifest.json", b'{"status": "finished"}')
        (run / "manifest.json").write_text('{"status": "running", "more": 1}')
        until(lambda: uploaded.failure is not None, 10)
    assert uploaded.failure is not None
    assert "was written by another process" in uploaded.failure.message
    assert mirror.store.read("run", "manifest.json") == b'{"status": "finished"}'
    assert mirror.store.read("run", LEASE) is None


def test_two_machines_do_not_both_get_the_lease(tmp_path: Path) -> None:
    mirror, run = stored_run(tmp_path)
    other = {**json.loads(new_lease("other")), "machine": "elsewhere", "host": "elsewhere"}
    mirror.store.put("run", LEASE, json.dumps(other).encode())
    with pytest.raises(StoreError, match=r"is being written by process \d+ on elsewhere"):
        upload.Upload(mirror, run, new=False)
    assert json.loads(mirror.store.read("run", LEASE) or b"")["token"] == "other"


def test_an_interrupted_upload_leaves_no_half_file(
    s3: S3Server, machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    this_process_is(machine("a"), monkeypatch)

    def interrupted(source: Any) -> Iterator[bytes]:
        yield source.read(10)
        raise KeyboardInterrupt

    (tmp_path / "part").write_bytes(b"x" * 1000)
    for url in (URL, f"local://{tmp_path}/store"):
        store = ObjectStore(url)
        with monkeypatch.context() as patch:
            patch.setattr("oss_eval.results.object_store._pieces", interrupted)
            with pytest.raises(KeyboardInterrupt):
                store.put("run", "part", tmp_path / "part")
        assert store.files("run") == {}
        store.put("run", "part", tmp_path / "part")
        assert store.files("run")["part"][0] == 1000


def test_a_full_disk_is_told_as_one(tmp_path: Path) -> None:
    mirror, _ = stored_run(tmp_path)
    (tmp_path / "other").write_bytes(b"")  # a file in the place of the folder
    with pytest.raises(StoreError, match="can't write to"):
        mirror.store.get("run", "manifest.json", tmp_path / "other" / "run" / "manifest.json")


def test_leases_end() -> None:
    def lease(**values: Any) -> bytes:
        return json.dumps({**json.loads(new_lease("t")), **values}).encode()

    assert fresh_lease(lease()) == f"process {os.getpid()} on {socket.gethostname()}"
    assert fresh_lease(lease(at=time.time() - LEASE_SECONDS - 1)) is None
    assert fresh_lease(lease(process=2**22 + 1)) is None, "that process is gone"
    assert fresh_lease(lease(process=2**22 + 1, machine="another boot")) is not None
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
    later = [*manifest["sessions"], {"started": "2099-01-01"}]
    (there / "manifest.json").write_text(json.dumps({**manifest, "name": "changed elsewhere", "sessions": later}))
    assert oss_eval("show", "last", "--out", URL, **machine("b")).returncode == 0, "uploads it"
    (run / "requests" / "part-000099.parquet").write_bytes(b"left over")
    shown = oss_eval("show", "last", "--out", URL, **machine("a"))
    assert shown.returncode == 0
    assert "was resumed elsewhere; what had not been uploaded from here is kept in" in shown.stderr
    assert read_manifest(run)["name"] == "changed elsewhere"
    assert not (run / "requests" / "part-000099.parquet").exists()
    [aside] = (tmp_path / "a" / "oss-eval" / "stores").glob(f"*-aside/{run.name}-*")
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
    Mirror(tmp_path / "here", store).pull("run")
    assert (tmp_path / "here" / "run" / "requests" / "part-000000.parquet").read_bytes() == b"12345"
    store.delete("run", "manifest.json")
    assert store.signature("run", "manifest.json") is None
    assert store.read("run", LEASE) is None
    store.remove("run")
    assert store.runs() == []
    assert results_folder("file:///some/where") == Path("/some/where")
    assert results_folder("results") == Path("results")
