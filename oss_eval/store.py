"""Runs on disk: a manifest, Parquet parts written while the run goes on, a summary. Nothing is overwritten.

    results/<run_id>/manifest.json              what was asked, what was in force, where, with what
    results/<run_id>/requests/part-*.parquet    one row a request
    results/<run_id>/samples/part-*.parquet     benchmarks: one row a sample, epoch and effort
    results/<run_id>/summary.parquet            one row a point and metric; recomputable from the requests
    results/<run_id>/truth.jsonl                simulated runs: the simulator's own account

A part is written under a name that readers pass over (a leading dot) and renamed when it is whole. A graded
sample may have cost minutes of a GPU, so it goes into a journal (`.samples.jsonl`) the moment it is finished;
the journal is emptied when its rows are in a part.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from oss_eval.errors import StoreError
from oss_eval.records import RequestRecord, SampleRecord
from oss_eval.schema import REQUESTS, SAMPLES, SCHEMA_VERSION, SUMMARY

PART_SECONDS = 1.0
"""At most this much finished work is unwritten."""

_COLUMNS = [name for name in REQUESTS.names if name in {f.name for f in fields(RequestRecord)}]


def new_run_id(kind: str, label: str) -> str:
    """`20261122-071203-perf-gpt-oss-20b-7f3a`: sortable by time (UTC), readable, not repeated."""
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", label.rsplit("/", 1)[-1]).strip("-.")[:40] or "run"
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{kind}-{clean}-{secrets.token_hex(2)}"


SCHEMAS = {"requests": REQUESTS, "samples": SAMPLES}
JOURNAL = ".samples.jsonl"
CLOSED = ("finished", "failed", "interrupted")
"""A run in one of these states has written its summary last."""
Key = tuple[str, str, str, int]
KEY = ("point_id", "subset", "sample_id", "epoch")
"""Which answer a sample row is."""


class RunWriter:
    """Writes one run; a lock keeps a second process from doing so at the same time."""

    def __init__(self, out: Path, run_id: str, manifest: dict[str, Any]) -> None:
        """Create the run's folder. Raises StoreError when that can't be done."""
        path = out / run_id
        made_out = not out.exists()
        try:
            path.mkdir(parents=True)
            (path / "requests").mkdir()
        except OSError as error:
            raise StoreError(
                f"can't write results to {out}: {error.strerror}", "choose another folder with --out DIR"
            ) from None
        self._begin(path, {"schema_version": SCHEMA_VERSION, "run_id": run_id, "status": "running", **manifest})
        self._made_out = made_out
        self.write_manifest()

    @classmethod
    def reopen(cls, path: Path) -> RunWriter:
        """Go on writing a stored run: what its journal holds becomes a part first. Raises StoreError."""
        writer = cls.__new__(cls)
        manifest = read_manifest(path)
        writer._begin(path, manifest)
        for folder in SCHEMAS:
            _repair(path, folder)
        writer._samples += read_journal(path)
        writer.flush()
        if (path / JOURNAL).exists():
            os.truncate(path / JOURNAL, 0)  # half a line would swallow the next one
        return writer

    def _begin(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path, self.manifest = path, manifest
        self.run_id = manifest["run_id"]
        self._made_out = False
        self._rows: list[RequestRecord] = []
        self._samples: list[SampleRecord] = []
        self._last = time.monotonic()
        self._journal: int | None = None
        try:
            self._lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreError(f"can't write to {path}: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process, however that ends
        except OSError:
            os.close(self._lock)
            raise StoreError(
                f"{path.name} is being written by another process", "wait until that run has ended, or stop it"
            ) from None

    def write_manifest(self, **changes: Any) -> None:
        """Merge changes into the manifest and write it whole."""
        self.manifest.update(changes)
        text = json.dumps(self.manifest, indent=2, ensure_ascii=False, default=str)
        temporary = self.path / ".manifest.json"
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(self.path / "manifest.json")

    def add(self, record: RequestRecord) -> None:
        """A finished request; on disk within PART_SECONDS, if `flush_due` is called in between."""
        self._rows.append(record)

    def flush_due(self) -> None:
        """Write a part if the last one was long enough ago."""
        if (self._rows or self._samples) and time.monotonic() - self._last >= PART_SECONDS:
            self.flush()

    def add_sample(self, record: SampleRecord) -> None:
        """A finished sample; it survives this process from the moment this returns. Raises StoreError."""
        line = json.dumps(asdict(record), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
        self._samples.append(record)
        try:
            if self._journal is None:
                self._journal = os.open(self.path / JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            while line:
                line = line[os.write(self._journal, line) :]
        except OSError as error:
            raise StoreError(f"can't write to {self.path}: {error.strerror}") from None

    def flush(self) -> None:
        """Write what is there as parts. Raises StoreError when the disk refuses; the rows are then kept."""
        self._last = time.monotonic()
        try:
            if self._rows:
                _write_part(requests_table(self._rows), self.path / "requests")
                self._rows.clear()
            if self._samples:
                _write_part(samples_table(self._samples), self.path / "samples")
                self._samples.clear()
                if (self.path / JOURNAL).exists():
                    os.truncate(self.path / JOURNAL, 0)
        except OSError as error:
            raise StoreError(f"can't write to {self.path}: {error.strerror or error}") from None

    def finish(self, status: str, **changes: Any) -> None:
        """Write the rest, join the parts into one, note the end in the manifest."""
        self.flush()
        with contextlib.suppress(OSError):  # many parts are as good as one, only slower to read
            compact(self.path, "requests")
            if (self.path / "samples").is_dir():
                compact(self.path, "samples")
        self.write_manifest(status=status, **changes)
        self.close()

    def close(self) -> None:
        """Let go of the run's files."""
        if self._journal is not None:
            os.close(self._journal)
            self._journal = None
        journal = self.path / JOURNAL
        if journal.exists() and not journal.stat().st_size:
            journal.unlink()
        if self._lock >= 0:
            os.close(self._lock)
            (self.path / ".lock").unlink(missing_ok=True)
            self._lock = -1

    def discard(self) -> None:
        """Remove the run's folder: nothing was measured."""
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)
        if self._made_out:
            with contextlib.suppress(OSError):
                self.path.parent.rmdir()


def write_summary(path: Path, rows: list[dict[str, Any]], add: bool = False) -> None:
    """A run's summary table, replaced as a whole or added to."""
    table, file = pa.Table.from_pylist(rows, schema=SUMMARY), path / "summary.parquet"
    if add:
        table = pa.concat_tables([pq.read_table(file), table]).unify_dictionaries()
    _write_whole(table, file)


def samples_table(records: list[SampleRecord]) -> pa.Table:
    """Sample records as a table in the stored schema."""
    columns = {name: [getattr(record, name) for record in records] for name in SAMPLES.names}
    for name in ("prompt", "response", "reasoning", "answer", "error_message"):
        # A model can be made to say half a surrogate pair, which no UTF-8 file can hold.
        columns[name] = [
            None if text is None else text.encode("utf-8", "replace").decode() for text in columns[name]
        ]
    return pa.Table.from_pydict(columns, schema=SAMPLES)


def _write_part(table: pa.Table, folder: Path) -> None:
    """A new part after those that are there."""
    folder.mkdir(exist_ok=True)
    number = max((int(part.stem.removeprefix("part-")) for part in folder.glob("part-*.parquet")), default=-1) + 1
    _write_whole(table, folder / f"part-{number:06d}.parquet")


def requests_table(records: list[RequestRecord]) -> pa.Table:
    """Records as a table in the stored schema."""
    columns: dict[str, Any] = {name: [getattr(record, name) for record in records] for name in _COLUMNS}
    columns["event_ns"] = _int64_lists(columns["event_ns"])
    return pa.Table.from_pydict(columns, schema=REQUESTS)


def _int64_lists(lists: list[Sequence[int] | None]) -> pa.Array:
    """A list<int64> column without a Python object for each number."""
    offsets = np.cumsum([0, *(len(values or ()) for values in lists)], dtype=np.int32)
    values = [np.asarray(values, dtype=np.int64) for values in lists if values]
    flat = pa.array(np.concatenate(values) if values else np.empty(0, np.int64))
    absent = pa.array([values is None for values in lists], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets), flat, mask=absent)


def _encoding(schema: pa.Schema) -> dict[str, Any]:
    """How columns are written. Instants grow steadily, so their differences are stored.

    That is a third smaller and several times faster than a dictionary of numbers that never repeat; every reader
    of Parquet knows both.
    """
    steady = [field.name for field in schema if field.type == pa.int64()]
    steady += [f"{field.name}.list.element" for field in schema if field.type == pa.list_(pa.int64())]
    columns = [f"{f.name}.list.element" if pa.types.is_list(f.type) else f.name for f in schema]
    return {
        "compression": "zstd",
        "use_dictionary": [name for name in columns if name not in steady],
        "column_encoding": dict.fromkeys(steady, "DELTA_BINARY_PACKED"),
    }


def _write_whole(table: pa.Table, path: Path) -> None:
    temporary = path.with_name(f".{path.name}")
    with temporary.open("wb") as file:
        pq.write_table(table, file, row_group_size=16384, **_encoding(table.schema))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def compact(path: Path, name: str) -> None:
    """Join the parts of a finished run's table into one. A crash half-way loses nothing: see `_repair`."""
    folder = path / name
    parts = sorted(folder.glob("part-*.parquet"))
    if len(parts) < 2:
        return
    fresh, old = path / f".{name}-new", path / f".{name}-old"
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir()
        with (fresh / "part-000000.parquet").open("wb") as file:
            with pq.ParquetWriter(file, SCHEMAS[name], **_encoding(SCHEMAS[name])) as writer:
                # One part at a time, a row group each: memory does not grow with the run. Samples are few enough.
                tables = (pq.read_table(part, schema=SCHEMAS[name]) for part in parts)
                for table in [read_samples(path)] if name == "samples" else tables:
                    writer.write_table(table)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old)


def _repair(path: Path, name: str) -> None:
    """Put back the parts of a run that was interrupted between the two renames of `compact`."""
    if not (path / name).exists() and (path / f".{name}-old").exists():
        (path / f".{name}-old").rename(path / name)


def read_summary(path: Path) -> list[dict[str, Any]]:
    """Rows of a run's summary; none where there is no summary yet. Raises StoreError for a damaged one."""
    file = path / "summary.parquet"
    try:
        return pq.read_table(file).to_pylist() if file.exists() else []
    except (OSError, pa.ArrowException) as error:
        raise StoreError(_damage(file, error)) from None


# -- reading ----------------------------------------------------------------------------------------------------


def find_run(name: str, out: Path) -> Path:
    """The folder of a run given as a path, a run id, an unambiguous part of one, or `last`.

    Raises StoreError that lists near ones.
    """
    if (Path(name) / "manifest.json").is_file():
        return Path(name)
    runs = sorted(p.parent for p in out.glob("*/manifest.json")) if out.is_dir() else []
    if not runs:
        raise StoreError(f"there are no runs in {out}", "make one with oss-eval perf, or say where: --out DIR")
    if name == "last":
        return runs[-1]
    matching = [run for run in runs if run.name == name] or [run for run in runs if name in run.name]
    if len(matching) == 1:
        return matching[0]
    listed = "\n".join(f"  {run.name}" for run in (matching or runs)[-10:])
    problem = f"{len(matching)} runs match {name!r}" if matching else f"no run matches {name!r}"
    raise StoreError(f"{problem} in {out}; the latest:\n{listed}", "give one of these, or `last`")


def read_manifest(path: Path) -> dict[str, Any]:
    """A run's manifest. Raises StoreError when it is missing, damaged or of a newer schema."""
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        version = int(manifest["schema_version"])
    except OSError as error:
        raise StoreError(f"can't read {path / 'manifest.json'}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise StoreError(f"{path / 'manifest.json'} is damaged: it is no manifest of oss-eval") from None
    if version > SCHEMA_VERSION:
        raise StoreError(f"{path.name} was written by a newer oss-eval (schema {version})", "upgrade oss-eval")
    return dict(manifest)


def status_of(path: Path, manifest: dict[str, Any]) -> str:
    """A run's status; one that is `running` without anybody writing it has been `broken off`."""
    if manifest["status"] != "running":
        return str(manifest["status"])
    try:
        lock = os.open(path / ".lock", os.O_RDONLY)
    except FileNotFoundError:
        return "broken off"
    except OSError:
        return "running"  # somebody else's, who does not let us look: what it says of itself has to do
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return "running"
    finally:
        os.close(lock)
    return "broken off"


def read_requests(
    path: Path,
    point_id: str | None = None,
    columns: list[str] | None = None,
    damaged: list[str] | None = None,
) -> pa.Table:
    """Rows of a run's requests, of one point if asked. Raises StoreError naming a part that is damaged."""
    tables = list(iter_requests(path, point_id, columns, damaged))
    if not tables:
        return REQUESTS.empty_table() if columns is None else REQUESTS.empty_table().select(columns)
    return pa.concat_tables(tables).unify_dictionaries()


def iter_requests(
    path: Path,
    point_id: str | None = None,
    columns: list[str] | None = None,
    damaged: list[str] | None = None,
) -> Iterator[pa.Table]:
    """The same rows a row group at a time (a second's work), for what must not grow with the run.

    A caller that shows what there is gives `damaged`: unreadable parts are named there instead of raised.
    """
    wanted = None if columns is None else list(dict.fromkeys([*columns, "point_id"]))
    for part in _parts(path, "requests"):
        try:
            with pq.ParquetFile(part) as file:
                for group in range(file.num_row_groups):
                    if point_id is not None and not _may_hold(file.metadata.row_group(group), point_id):
                        continue
                    table = _complete(file.read_row_group(group, columns=wanted), wanted)
                    if point_id is not None:
                        table = table.filter(pc.equal(table["point_id"].cast(pa.string()), point_id))
                    if table.num_rows:
                        yield table if columns is None else table.select(columns)
        except (OSError, pa.ArrowException) as error:
            if damaged is None:
                raise StoreError(_damage(part, error)) from None
            damaged.append(_damage(part, error))


def find_rows(path: Path, point_id: str, name: str, value: str, columns: list[str]) -> pa.Table:
    """Rows of a run's requests whose column `name` is `value`.

    Other columns are read only where there are such rows. Parts that can't be read are passed over.
    """
    found: list[pa.Table] = []
    for part in _parts(path, "requests"):
        with contextlib.suppress(OSError, pa.ArrowException), pq.ParquetFile(part) as file:
            for group in range(file.num_row_groups):
                if not _may_hold(file.metadata.row_group(group), point_id):
                    continue
                hits = pc.equal(file.read_row_group(group, columns=[name])[name].cast(pa.string()), value)
                if pc.any(hits).as_py():
                    rows = file.read_row_group(group, columns=columns).filter(hits)
                    found.append(_complete(rows, columns))
    return pa.concat_tables(found).unify_dictionaries() if found else REQUESTS.empty_table().select(columns)


def _may_hold(group: Any, point_id: str) -> bool:
    """Whether a row group can have rows of a point, by the statistics that Parquet keeps of each column."""
    for index in range(group.num_columns):
        column = group.column(index)
        if column.path_in_schema == "point_id":
            known = column.statistics
            return known is None or not known.has_min_max or known.min <= point_id <= known.max
    return True


def _parts(path: Path, name: str) -> list[Path]:
    """The parts of a run's table; those put aside while `compact` exchanges them, if it is just then."""
    parts = sorted((path / name).glob("part-*.parquet"))
    return parts or sorted((path / f".{name}-old").glob("part-*.parquet"))


def _damage(file: Path, error: Exception) -> str:
    return f"{file} is damaged: {str(error).splitlines()[0] if str(error) else type(error).__name__}"


def _complete(table: pa.Table, wanted: list[str] | None) -> pa.Table:
    """A table with nulls for the columns that an older oss-eval did not write."""
    for name in wanted or REQUESTS.names:
        if name not in table.column_names:
            table = table.append_column(REQUESTS.field(name), pa.nulls(table.num_rows, REQUESTS.field(name).type))
    return table


def read_samples(path: Path, columns: list[str] | None = None, damaged: list[str] | None = None) -> pa.Table:
    """Rows of a run's samples, the journal's included: one for each answer, the latest where one was asked again.

    Raises StoreError naming a part that is damaged, or names it in `damaged` where that is given.
    """
    names = SAMPLES.names if columns is None else list(dict.fromkeys([*columns, *KEY]))
    schema = pa.schema([SAMPLES.field(name) for name in names], SAMPLES.metadata)
    tables: list[pa.Table] = []
    for part in _parts(path, "samples"):
        try:
            tables.append(pq.read_table(part, schema=schema, columns=names))
        except (OSError, pa.ArrowException) as error:
            if damaged is None:
                raise StoreError(_damage(part, error)) from None
            damaged.append(_damage(part, error))
    journal = read_journal(path)
    if journal:
        tables.append(samples_table(journal).select(names))
    if not tables:
        return schema.empty_table()
    table = pa.concat_tables(tables).unify_dictionaries()
    keys = zip(*(table[name].to_pylist() for name in KEY), strict=True)
    latest: dict[Key, int] = {key: row for row, key in enumerate(keys)}
    return table if len(latest) == table.num_rows else table.take(sorted(latest.values()))


def count_rows(path: Path, name: str) -> int:
    """How many measured rows a run's table holds so far; a part is counted once, as it never changes."""
    count = 0
    for part in _parts(path, name):
        with contextlib.suppress(OSError, pa.ArrowException):
            count += _rows_in(part, part.stat().st_size)
    if name == "samples":
        with contextlib.suppress(OSError):
            count += (path / JOURNAL).read_bytes().count(b"\n")
    return count


@lru_cache(maxsize=1 << 16)
def _rows_in(part: Path, size: int) -> int:
    with pq.ParquetFile(part) as file:
        if "warmup" not in file.schema_arrow.names:
            return int(file.metadata.num_rows)
        return int(pc.sum(pc.invert(file.read(columns=["warmup"])["warmup"])).as_py() or 0)


def read_journal(path: Path) -> list[SampleRecord]:
    """Samples that are finished and in no part yet; a last line that a crash cut short is passed over."""
    try:
        lines = (path / JOURNAL).read_bytes().split(b"\n")
    except OSError:
        return []
    names = {field.name for field in fields(SampleRecord)}
    found: list[SampleRecord] = []
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            values = json.loads(line.decode("utf-8", "surrogatepass"))
            found.append(SampleRecord(**{key: value for key, value in values.items() if key in names}))
    return found
