"""What is on disk while a run goes on, after it, and after an accident."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oss_eval.analysis import fsck
from oss_eval.analysis.fsck import examine
from oss_eval.errors import StoreError
from oss_eval.records import RequestRecord, SampleRecord
from oss_eval.results import lock, reader, writer
from oss_eval.results.manifest import SCHEMA_VERSION, read_manifest
from oss_eval.results.model_name import short_model_name
from oss_eval.results.parquet import ParquetFile
from oss_eval.results.reader import find_run, read_requests
from oss_eval.results.schema import REQUESTS
from oss_eval.results.tables import requests_table
from oss_eval.results.writer import RunWriter, new_run_id

int64 = st.integers(-(2**63), 2**63 - 1)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
RECORDS = st.builds(
    RequestRecord,
    run_id=text, point_id=text, request_id=text, worker=st.integers(0, 100), warmup=st.booleans(),
    attempt=st.integers(1, 2), model=text, reasoning_effort=st.none() | text,
    parallel=st.none() | st.integers(1, 10000), rate=st.none() | st.floats(0, 1e6),
    scheduled_ns=st.none() | int64, start_ns=st.none() | int64, headers_ns=st.none() | int64,
    first_token_ns=st.none() | int64, first_answer_ns=st.none() | int64, last_token_ns=st.none() | int64,
    end_ns=st.none() | int64, event_ns=st.none() | st.lists(int64, max_size=5),
    event_tokens=st.none() | st.lists(st.integers(0, 1000), max_size=5),
    prompt_tokens=st.none() | st.integers(0, 10**9), completion_tokens=st.none() | st.integers(0, 10**9),
    token_source=st.sampled_from([None, "usage", "chunks"]), n_events=st.integers(0, 10**6),
    status=st.sampled_from(["ok", "error"]), error_message=st.none() | text,
    http_status=st.none() | st.integers(100, 599), client_lag_p50_ns=st.none() | int64,
)  # fmt: skip


@given(st.lists(RECORDS, max_size=6))
def test_records_survive_parquet(tmp_path_factory: pytest.TempPathFactory, records: list[RequestRecord]) -> None:
    path = tmp_path_factory.mktemp("parquet") / "rows.parquet"
    pq.write_table(requests_table(records), path)
    table = pq.read_table(path)
    assert table.schema.equals(REQUESTS)
    assert table.schema.metadata[b"oss_eval.schema_version"] == b"1"
    for row, record in zip(table.to_pylist(), records, strict=True):
        assert row == {name: getattr(record, name) for name in REQUESTS.names}


def record(run: str, number: int) -> RequestRecord:
    return RequestRecord(
        run_id=run, point_id=f"p{number % 2}", request_id=str(number), worker=0, warmup=False, attempt=1,
        model="m", reasoning_effort=None, parallel=1, rate=None, scheduled_ns=None, start_ns=number,
        event_ns=[1, 2, 3],
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunWriter:
    """A run with three parts of 4 rows and 2 rows not yet written."""
    writer = RunWriter(tmp_path / "results", "r1", {"kind": "perf", "points": []})
    for part in range(3):
        for number in range(4):
            writer.add(record("r1", part * 4 + number))
        writer.flush()
    writer.add(record("r1", 12))
    writer.add(record("r1", 13))
    return writer


def test_parts_are_readable_while_the_run_goes_on(run: RunWriter) -> None:
    assert read_requests(run.path).num_rows == 12
    assert read_manifest(run.path)["status"] == "running"
    assert len(pd.read_parquet(run.path / "requests")) == 12


def test_a_part_is_due_after_a_second(run: RunWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    run.flush_due()
    assert read_requests(run.path).num_rows == 12
    run._last -= 1.01
    run.flush_due()
    assert read_requests(run.path).num_rows == 14


def test_a_finished_run_is_one_part(run: RunWriter) -> None:
    run.finish("finished", seconds=3)
    assert [p.name for p in sorted((run.path / "requests").iterdir())] == ["part-000000-000003.parquet"]
    assert read_manifest(run.path)["status"] == "finished"
    frame = pd.read_parquet(run.path / "requests")
    assert frame["start_ns"].tolist() == list(range(14))
    assert read_requests(run.path, "p1")["start_ns"].to_pylist() == list(range(1, 14, 2))
    assert sorted(p.name for p in run.path.iterdir()) == ["manifest.json", "requests"]


def test_datasets_reads_it_as_it_is(run: RunWriter, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    run.finish("finished")
    files = str(run.path / "requests" / "*.parquet")
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"), split="train")
    assert loaded["start_ns"][13] == 13


def test_parts_are_joined_while_the_run_goes_on(run: RunWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oss_eval.results.writer.JOIN", 5)
    for number in range(14, 23):
        run.flush()
        assert read_requests(run.path)["start_ns"].to_pylist() == list(range(number))
        run.add(record("r1", number))
    run.finish("finished")
    names = [part.name for part in sorted((run.path / "requests").iterdir())]
    assert names == ["part-000000-000004.parquet", "part-000005-000009.parquet", "part-000010-000012.parquet"]
    assert read_requests(run.path)["start_ns"].to_pylist() == list(range(23))


def test_a_crash_while_parts_are_joined_neither_loses_nor_repeats(run: RunWriter, tmp_path: Path) -> None:
    run.flush()
    before = read_requests(run.path)
    folder = run.path / "requests"
    shutil.copytree(folder, tmp_path / "before")
    run.leave()
    run = RunWriter.reopen(run.path)
    run.finish("interrupted")
    for left in ("part-000001.parquet", "part-000003.parquet"):  # killed before they were removed
        shutil.copy(tmp_path / "before" / left, folder / left)
    assert read_requests(run.path) == before
    assert reader.count_rows(run.path, "requests") == 14
    assert sum("left over from joining" in finding.message for finding in examine(run.path)) == 2
    again = RunWriter.reopen(run.path)
    assert [part.name for part in folder.iterdir()] == ["part-000000-000003.parquet"]
    again.add(record("r1", 14))
    again.finish("interrupted")
    assert read_requests(run.path)["start_ns"].to_pylist() == list(range(15))


@pytest.mark.parametrize("at", ["write_part", "join"])
def test_ctrl_c_while_files_are_written_repeats_nothing(
    run: RunWriter, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    real = getattr(writer, at)

    def late(*given: object) -> None:
        real(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(writer, "JOIN", 4)
    monkeypatch.setattr(writer, at, late)
    with pytest.raises(KeyboardInterrupt):
        run.flush()
    monkeypatch.undo()
    run.finish("interrupted")
    assert read_requests(run.path)["start_ns"].to_pylist() == list(range(14))


def test_ctrl_c_while_a_run_is_closed_closes_nothing_twice(
    run: RunWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes after the lock's descriptor was closed; by the second close that number may be another file's."""
    release = lock.release

    def interrupted(path: Path, descriptor: int) -> None:
        release(path, descriptor)
        raise KeyboardInterrupt

    monkeypatch.setattr("oss_eval.results.lock.release", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.close()
    monkeypatch.undo()
    run.leave()


def test_a_damaged_joined_part_gives_way_to_what_it_was_made_of(run: RunWriter, tmp_path: Path) -> None:
    run.flush()
    folder = run.path / "requests"
    shutil.copytree(folder, tmp_path / "before")
    run.finish("interrupted")
    [joined] = folder.iterdir()
    joined.write_bytes(joined.read_bytes()[:300])  # a power cut, and the removals had not reached the disk either
    shutil.copytree(tmp_path / "before", folder, dirs_exist_ok=True)
    again = RunWriter.reopen(run.path)
    assert again.quarantined == [".requests-part-000000-000003.parquet.damaged"]
    again.add(record("r1", 14))
    again.finish("interrupted")
    assert read_requests(run.path)["start_ns"].to_pylist() == list(range(15))
    assert [part.name for part in folder.iterdir()] == ["part-000000-000004.parquet"]


def test_what_is_not_ours_stays(run: RunWriter) -> None:
    run.leave()
    alien = run.path / "requests" / "part-000000 (copy).parquet"
    alien.write_text("mine")
    RunWriter.reopen(run.path).finish("interrupted")
    assert alien.read_text() == "mine"
    assert read_requests(run.path).num_rows == 14


def test_reading_begins_again_when_parts_have_just_been_joined(
    run: RunWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = reader.parts_of(run.path, "requests")
    run.finish("finished")
    real = reader.parts_of
    for read in (
        lambda: reader.count_rows(run.path, "requests") == 14,
        lambda: reader.find_rows(run.path, "p1", "request_id", "3", ["start_ns"])["start_ns"].to_pylist() == [3],
        lambda: read_requests(run.path).num_rows == 14,
        lambda: "bad" not in {f.level for f in examine(run.path) if "part-" in f.where},
    ):
        stale = iter([before])
        monkeypatch.setattr(reader, "parts_of", lambda *given, stale=stale: next(stale, None) or real(*given))
        monkeypatch.setattr(fsck, "parts_of", reader.parts_of)
        assert read()


def test_leftovers_of_thousands_of_seconds_are_joined_before_a_run_goes_on(
    run: RunWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.leave()
    monkeypatch.setattr(writer, "JOIN", 2)
    again = RunWriter.reopen(run.path)
    assert len(list((run.path / "requests").iterdir())) == 2
    again.finish("interrupted")
    assert read_requests(run.path)["start_ns"].to_pylist() == list(range(14))


def test_what_could_not_be_joined_is_never_joined_across(run: RunWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part whose numbers spanned those of another joined one would hide its rows."""
    monkeypatch.setattr("oss_eval.results.writer.JOIN", 4)
    with monkeypatch.context() as full:
        full.setattr("oss_eval.results.writer.join", lambda *given: (_ for _ in ()).throw(OSError(28, "full")))
        run.flush()  # the first four stay as they are
    for number in range(14, 18):
        run.add(record("r1", number))
        run.flush()
    run.leave()
    run = RunWriter.reopen(run.path)
    run.add(record("r1", 18))
    run.finish("interrupted")
    names = [part.name for part in sorted((run.path / "requests").iterdir())]
    assert names == [
        *(f"part-{n:06d}.parquet" for n in range(4)),
        "part-000004-000007.parquet",
        "part-000008.parquet",
    ]
    assert read_requests(run.path)["start_ns"].to_pylist() == list(range(19))


def test_a_crash_while_a_part_is_written_leaves_the_others(run: RunWriter) -> None:
    (run.path / "requests" / ".part-000003.parquet").write_bytes(b"PAR1 half")
    assert read_requests(run.path).num_rows == 12
    assert len(pd.read_parquet(run.path / "requests")) == 12


def test_a_damaged_part_is_named(run: RunWriter) -> None:
    part = run.path / "requests" / "part-000001.parquet"
    part.write_bytes(part.read_bytes()[:50])
    with pytest.raises(StoreError, match=r"part-000001\.parquet is damaged"):
        read_requests(run.path)


def test_what_can_be_read_of_a_damaged_run_is_read(run: RunWriter) -> None:
    part = run.path / "requests" / "part-000001.parquet"
    part.write_bytes(part.read_bytes()[:200])
    damaged: list[str] = []
    assert read_requests(run.path, damaged=damaged).num_rows == 8
    [words] = damaged
    assert words.startswith(f"{part} is damaged: ")
    assert reader.count_rows(run.path, "requests") == 8


def test_a_request_is_found_without_reading_the_others(run: RunWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    whole: list[object] = []
    original = pq.ParquetFile.read_row_group

    def reading(file: pq.ParquetFile, index: int, columns: list[str]) -> object:
        if columns != ["request_id"]:
            whole.append(index)
        return original(file, index, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", reading)
    found = reader.find_rows(run.path, "p1", "request_id", "5", ["request_id", "event_ns", "start_ns"])
    assert found.to_pylist() == [{"request_id": "5", "event_ns": [1, 2, 3], "start_ns": 5}]
    assert len(whole) == 1
    assert reader.find_rows(run.path, "p1", "request_id", "nosuch", ["request_id"]).num_rows == 0


def test_a_lock_that_may_not_be_opened_is_nobody_elses_proof(
    run: RunWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reader.status_of(run.path, run.manifest) == "running"

    def refused(*words: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "open", refused)
    assert reader.status_of(run.path, run.manifest) == "running"


def test_only_the_row_groups_of_a_point_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = RunWriter(tmp_path, "r1", {"kind": "perf"})
    for point in "abc":
        for number in range(3):
            found = record("r1", number)
            found.point_id = point
            writer.add(found)
        writer.flush()
    writer.finish("finished")
    with pq.ParquetFile(tmp_path / "r1" / "requests" / "part-000000-000002.parquet") as file:
        assert file.num_row_groups == 3
    read: list[int] = []
    original = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda s, i, **k: read.append(i) or original(s, i, **k))
    assert read_requests(tmp_path / "r1", "b").num_rows == 3
    assert read == [1]


def test_a_run_is_never_overwritten(run: RunWriter, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="can't write results"):
        RunWriter(tmp_path / "results", "r1", {})


def test_what_measured_nothing_leaves_no_trace(tmp_path: Path) -> None:
    RunWriter(tmp_path / "new", "r1", {}).undo()
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    RunWriter(tmp_path / "old", "r1", {}).undo()
    assert (tmp_path / "old").exists()


def test_a_session_that_measured_nothing_leaves_the_run_as_it_was(run: RunWriter) -> None:
    run.finish("interrupted", checks={})
    before, rows = read_manifest(run.path), read_requests(run.path)
    again = RunWriter.reopen(run.path)
    again.write_manifest(status="running", checks={"p": []}, new=1)
    again.undo()
    after = read_manifest(run.path)
    assert {key: value for key, value in after.items() if key != "sessions"} == before
    assert len(after["sessions"]) == 2, "but for its number, which no other may have"
    assert read_requests(run.path) == rows


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"can't write results to .*file: Not a directory"):
        RunWriter(tmp_path / "file", "r1", {})


def test_runs_are_found_by_path_id_part_and_last(tmp_path: Path) -> None:
    for name in ("20261101-000000-perf-a-1111", "20261102-000000-perf-b-2222", "20261103-000000-perf-a-3333"):
        RunWriter(tmp_path, name, {})
    assert find_run("last", tmp_path).name.endswith("3333")
    assert find_run("perf-b", tmp_path).name.endswith("2222")
    assert find_run(str(tmp_path / "20261101-000000-perf-a-1111"), tmp_path).name.endswith("1111")
    with pytest.raises(StoreError, match=r"2 runs match 'perf-a'"):
        find_run("perf-a", tmp_path)
    with pytest.raises(StoreError, match=r"no run matches 'zzz'"):
        find_run("zzz", tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema_version": "x"}'])
def test_a_damaged_manifest_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(StoreError, match="is damaged"):
        read_manifest(tmp_path)


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(StoreError, match="newer oss-eval"):
        read_manifest(tmp_path)


def test_run_ids() -> None:
    first, second = (new_run_id("perf", "openai/gpt-oss 20b") for _ in range(2))
    assert first != second
    assert first.split("-", 3)[2] == "perf"
    assert first.rsplit("-", 1)[0].endswith("perf-gpt-oss-20b")
    assert os.sep not in new_run_id("perf", "../../etc/passwd")


def test_parquet_is_read_without_objects_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow's threads may let go of such an object while Python ends, which aborts a finished command."""
    name = b"part \xff.parquet" if sys.platform == "linux" else b"part.parquet"  # others refuse such a name
    path, sources = tmp_path / os.fsdecode(name), []
    with path.open("wb") as file:
        pq.write_table(pa.table({"text": ["a"] * 1000}), file)
    opened = pq.ParquetFile
    monkeypatch.setattr(pq, "ParquetFile", lambda source, **more: sources.append(source) or opened(source, **more))
    with ParquetFile(path) as opened_file:
        assert opened_file.read().num_rows == 1000
    assert [type(source) for source in sources] == [pa.OSFile]


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("openai/gpt-oss-20b", "openai/gpt-oss-20b"),
        ("gpt-oss:20b", "gpt-oss:20b"),
        ("/models/gpt-oss-20b/", "gpt-oss-20b"),
        ("./gpt-oss-20b", "gpt-oss-20b"),
        (r"C:\models\gpt-oss-20b.gguf", "gpt-oss-20b.gguf"),
        ("/home/me/.cache/huggingface/hub/models--openai--gpt-oss-20b/snapshots/6cee5e8", "openai/gpt-oss-20b"),
        ("/", "/"),
        ("", ""),
    ],
)
def test_a_model_named_by_a_path_has_a_short_name(name: str, short: str) -> None:
    assert short_model_name(name) == short
    assert "/" not in new_run_id("perf", name)


def answered(number: int, text: str) -> SampleRecord:
    return SampleRecord(
        run_id="r1", point_id="p", request_id=f"q{number}", task="t", subset="s", sample_id=str(number), epoch=1,
        reasoning_effort=None, model="m", prompt="?", target="!", response=text,
    )  # fmt: skip


def test_parts_stay_below_what_readers_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of more than a part holds are in several parts, and all of them can be read."""
    monkeypatch.setattr(writer, "PART_BYTES", 10_000)
    run = RunWriter(
        tmp_path, "r1", {"schema_version": SCHEMA_VERSION, "run_id": "r1", "status": "running", "kind": "bench"}
    )
    for number in range(12):
        run.add_sample(answered(number, "x" * 1_000))
    run.flush()
    for number in range(12, 15):
        run.add_sample(answered(number, "x" * 9_000))
    run.finish("finished")
    parts = sorted((tmp_path / "r1" / "samples").glob("*.parquet"))
    assert len(parts) > 5
    assert [pq.read_table(part).nbytes < 20_000 for part in parts] == [True] * len(parts)
    assert sorted(reader.read_samples(tmp_path / "r1")["sample_id"].to_pylist()) == sorted(
        str(n) for n in range(15)
    )
