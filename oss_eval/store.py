"""Runs on disk: a manifest, Parquet parts written while the run goes on, a summary. Nothing is overwritten.

    results/<run_id>/manifest.json              what was asked, what was in force, where, with what
    results/<run_id>/requests/part-*.parquet    one row a request
    results/<run_id>/summary.parquet            one row a point and metric; recomputable from the requests
    results/<run_id>/truth.jsonl                simulated runs: the simulator's own account

A part is written under a name that readers pass over (a leading dot) and renamed when it is whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from oss_eval.errors import StoreError
from oss_eval.records import RequestRecord

SCHEMA_VERSION = 1
PART_SECONDS = 1.0
"""At most this much finished work is unwritten."""

_word = pa.dictionary(pa.int32(), pa.string())

REQUESTS = pa.schema(
    [
        ("run_id", _word), ("point_id", _word), ("request_id", pa.string()), ("worker", pa.int16()),
        ("warmup", pa.bool_()), ("attempt", pa.int16()),
        ("model", _word), ("reasoning_effort", _word), ("parallel", pa.int32()), ("rate", pa.float64()),
        ("scheduled_ns", pa.int64()), ("start_ns", pa.int64()), ("headers_ns", pa.int64()),
        ("first_token_ns", pa.int64()), ("first_answer_ns", pa.int64()), ("last_token_ns", pa.int64()),
        ("end_ns", pa.int64()),
        ("event_ns", pa.list_(pa.int64())), ("event_tokens", pa.list_(pa.int32())),
        ("prompt_tokens", pa.int32()), ("completion_tokens", pa.int32()), ("reasoning_tokens", pa.int32()),
        ("cached_tokens", pa.int32()), ("token_source", _word), ("n_events", pa.int32()), ("n_shared", pa.int32()),
        ("status", _word), ("error_kind", _word), ("http_status", pa.int16()), ("error_message", pa.string()),
        ("finish_reason", _word),
        ("clock_source", _word), ("client_lag_p50_ns", pa.int64()), ("client_lag_max_ns", pa.int64()),
        ("sample_id", _word), ("epoch", pa.int32()),
    ],
    metadata={"oss_eval.schema_version": str(SCHEMA_VERSION)},
)  # fmt: skip

SUMMARY = pa.schema(
    [
        ("run_id", _word), ("point_id", _word), ("kind", _word), ("task", _word), ("model", _word),
        ("reasoning_effort", _word), ("parallel", pa.int32()), ("rate", pa.float64()), ("number", pa.int32()),
        ("metric", _word), ("stat", _word), ("value", pa.float64()), ("ci_low", pa.float64()),
        ("ci_high", pa.float64()), ("n", pa.int64()), ("unit", _word),
    ],
    metadata={"oss_eval.schema_version": str(SCHEMA_VERSION)},
)  # fmt: skip

_COLUMNS = [name for name in REQUESTS.names if name in {f.name for f in fields(RequestRecord)}]


def new_run_id(kind: str, label: str) -> str:
    """`20261122-071203-perf-gpt-oss-20b-7f3a`: sortable by time (UTC), readable, not repeated."""
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", label.rsplit("/", 1)[-1]).strip("-.")[:40] or "run"
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{kind}-{clean}-{secrets.token_hex(2)}"


class RunWriter:
    """Writes one run. Not for two processes at a time."""

    def __init__(self, out: Path, run_id: str, manifest: dict[str, Any]) -> None:
        """Create the run's folder. Raises StoreError when that can't be done."""
        self.run_id = run_id
        self.path = out / run_id
        self.manifest = {"schema_version": SCHEMA_VERSION, "run_id": run_id, "status": "running", **manifest}
        self._rows: list[RequestRecord] = []
        self._parts = 0
        self._last = time.monotonic()
        self._made_out = not out.exists()
        try:
            self.path.mkdir(parents=True)
            (self.path / "requests").mkdir()
            self.write_manifest()
        except OSError as error:
            raise StoreError(
                f"can't write results to {out}: {error.strerror}", "choose another folder with --out DIR"
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
        if self._rows and time.monotonic() - self._last >= PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is there as a part. Raises StoreError when the disk refuses; the rows are then kept."""
        self._last = time.monotonic()
        if not self._rows:
            return
        table = requests_table(self._rows)
        try:
            _write_whole(table, self.path / "requests" / f"part-{self._parts:06d}.parquet")
        except OSError as error:
            raise StoreError(f"can't write to {self.path}: {error.strerror or error}") from None
        self._parts += 1
        self._rows.clear()

    def finish(self, status: str, **changes: Any) -> None:
        """Write the rest, join the parts into one, note the end in the manifest."""
        self.flush()
        with contextlib.suppress(OSError):  # many parts are as good as one, only slower to read
            compact(self.path)
        self.write_manifest(status=status, **changes)

    def discard(self) -> None:
        """Remove the run's folder: nothing was measured."""
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


def _write_whole(table: pa.Table, path: Path) -> None:
    temporary = path.with_name(f".{path.name}")
    with temporary.open("wb") as file:
        pq.write_table(table, file, compression="zstd", row_group_size=16384)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def compact(path: Path) -> None:
    """Join a finished run's parts into one. A crash half-way loses nothing: see `_repair`."""
    folder = path / "requests"
    parts = sorted(folder.glob("part-*.parquet"))
    if len(parts) < 2:
        return
    fresh, old = path / ".requests-new", path / ".requests-old"
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir()
        with (fresh / "part-000000.parquet").open("wb") as file:
            with pq.ParquetWriter(file, REQUESTS, compression="zstd") as writer:
                for part in parts:  # one part at a time, a row group each: memory does not grow with the run
                    writer.write_table(pq.read_table(part, schema=REQUESTS))
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old)


def _repair(path: Path) -> None:
    """Put back the parts of a run that was interrupted between the two renames of `compact`."""
    if not (path / "requests").exists() and (path / ".requests-old").exists():
        (path / ".requests-old").rename(path / "requests")


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


def read_requests(path: Path, point_id: str | None = None, columns: list[str] | None = None) -> pa.Table:
    """Rows of a run's requests, of one point if asked. Raises StoreError naming a part that is damaged."""
    tables = list(iter_requests(path, point_id, columns))
    if not tables:
        return REQUESTS.empty_table() if columns is None else REQUESTS.empty_table().select(columns)
    return pa.concat_tables(tables).unify_dictionaries()


def iter_requests(path: Path, point_id: str | None = None, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The same rows a row group at a time (a second's work), for what must not grow with the run."""
    _repair(path)
    wanted = None if columns is None else list(dict.fromkeys([*columns, "point_id"]))
    for part in sorted((path / "requests").glob("part-*.parquet")):
        try:
            with pq.ParquetFile(part) as file:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group, columns=wanted)
                    if point_id is not None:
                        table = table.filter(pc.equal(table["point_id"].cast(pa.string()), point_id))
                    if table.num_rows:
                        yield table if columns is None else table.select(columns)
        except (OSError, pa.ArrowInvalid) as error:
            raise StoreError(f"{part} is damaged: {str(error).splitlines()[0]}") from None
