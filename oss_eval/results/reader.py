"""Runs on disk, and reading them: a manifest, Parquet parts, a summary. `writer` writes them.

    results/<run_id>/manifest.json              what was asked, what was in force, where, with what
    results/<run_id>/requests/part-*.parquet    one row a request
    results/<run_id>/samples/part-*.parquet     benchmarks: one row a sample, epoch and effort
    results/<run_id>/summary.parquet            one row a point and metric; recomputable from the requests
    results/<run_id>/truth.jsonl                simulated runs: the simulator's own account

A part is written under a name that readers pass over (a leading dot) and renamed when it is whole. It holds a
second's work, and parts of a minute are joined: part-000000-000059.parquet stands for all of these. A graded
sample may have cost minutes of a GPU, so it goes into a journal (`.samples.jsonl`) the moment it is finished;
the journal is emptied when its rows are in a part.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from oss_eval.errors import StoreError
from oss_eval.records import SampleRecord
from oss_eval.results.lock import is_held
from oss_eval.results.mirror import JOURNAL as JOURNAL
from oss_eval.results.mirror import Mirror, NoRun, mirror_of, results_folder
from oss_eval.results.object_store import SCHEME
from oss_eval.results.parquet import DAMAGE, ParquetFile
from oss_eval.results.part_files import parts_of, read_part
from oss_eval.results.schema import REQUESTS, SAMPLES, SUMMARY
from oss_eval.results.tables import samples_table
from oss_eval.system.files import read_file

MAX_JOURNAL = 1 << 30
"""Bytes; it holds the samples of about a second."""
LATER = {
    "first_token_low_ns", "first_event_tokens", "tokens_to_answer", "n_shared", "leaked", "server_timings",
    "url", "session", "conversation", "turn",
}  # fmt: skip
"""Columns of requests that older versions did not write."""
CLOSED = ("finished", "failed", "interrupted")
"""Final states. In these the summary is written."""
T = TypeVar("T")
Key = tuple[str, str, str, int]
KEY = ("point_id", "subset", "sample_id", "epoch")
"""The key of a sample row."""


def read_summary(path: Path) -> list[dict[str, Any]]:
    """Rows of a run's summary; an empty table without one. Raises StoreError for a damaged one."""
    file = path / "summary.parquet"
    try:
        if not file.exists():
            return []
        table = read_part(file, SUMMARY)
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows
    except DAMAGE as error:
        raise StoreError(_damage(file, error)) from None


def find_run(name: str, out: Path) -> Path:
    """The folder of a run given as a path, a URL, a run id, a unique part of one, or `last`. Of a run in an object
    store it is the copy on this machine, as new as the store. Raises StoreError that lists similar names."""
    if SCHEME.match(name):
        url, mark, query = name.partition("?")
        place, _, name = url.rstrip("/").rpartition("/")
        out = results_folder(place + mark + query)
    elif (Path(name) / "manifest.json").is_file():
        return Path(name)
    mirror = mirror_of(out)
    if mirror is not None:
        return _pulled(name, mirror)
    runs = sorted(p.parent.name for p in out.glob("*/manifest.json")) if out.is_dir() else []
    return out / _chosen(name, runs, str(out))


def _pulled(name: str, mirror: Mirror) -> Path:
    runs = mirror.runs()
    while True:
        run = _chosen(name, runs, mirror.store.url)
        try:
            return mirror.pull(run)
        except NoRun:  # another folder
            runs.remove(run)


def _chosen(name: str, runs: list[str], place: str) -> str:
    if not runs:
        raise StoreError(f"there are no runs in {place}", "make one with oss-eval perf, or say where: --out DIR")
    if name == "last":
        return runs[-1]
    matching = [run for run in runs if run == name] or [run for run in runs if name in run]
    if len(matching) == 1:
        return matching[0]
    listed = "\n".join(f"  {run}" for run in (matching or runs)[-10:])
    problem = f"{len(matching)} runs match {name!r}" if matching else f"no run matches {name!r}"
    raise StoreError(f"{problem} in {place}; the latest:\n{listed}", "give one of these, or `last`")


def status_of(path: Path, manifest: dict[str, Any]) -> str:
    """A run's status; `broken off` for one that is `running` although no process writes it."""
    if manifest["status"] != "running" or is_held(path):
        return str(manifest["status"])
    return "broken off"


def read_requests(
    path: Path,
    point_id: str | None = None,
    columns: list[str] | None = None,
    damaged: list[str] | None = None,
) -> pa.Table:
    """Rows of a run's requests, of one point if given. Raises StoreError naming a damaged part."""
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
    """The same rows one row group at a time, so that memory does not grow with the run.

    With `damaged`, unreadable parts are named there instead of raised.
    """
    wanted = None if columns is None else list(dict.fromkeys([*columns, "point_id"]))
    done, left = 0, parts_of(path, "requests")
    while left:
        # Parts may be merged while they are read: the merged part holds the same rows in the same order.
        place, now, left = 0, left, []
        for part in now:
            try:
                with ParquetFile(part) as file:
                    for group in range(file.metadata.num_row_groups):
                        rows, begin = file.metadata.row_group(group).num_rows, max(0, done - place)
                        place += rows
                        if begin >= rows:
                            continue
                        done = place
                        if point_id is not None and not _may_hold(file.metadata.row_group(group), point_id):
                            continue
                        table = _complete(file.read_group(group, wanted), wanted).slice(begin)
                        if point_id is not None:
                            table = table.filter(pc.equal(table["point_id"].cast(pa.string()), point_id))
                        if table.num_rows:
                            yield table if columns is None else table.select(columns)
            except FileNotFoundError:
                left = parts_of(path, "requests")
                break
            except DAMAGE as error:
                if damaged is None:
                    raise StoreError(_damage(part, error), _aside(path)) from None
                damaged.append(_damage(part, error))


def find_rows(path: Path, point_id: str, name: str, value: str, columns: list[str]) -> pa.Table:
    """Rows of a run's requests whose column `name` is `value`. Unreadable parts are skipped.

    Reads the other columns only where there are such rows.
    """
    return _steadily(lambda: _find_rows(path, point_id, name, value, columns))


def _find_rows(path: Path, point_id: str, name: str, value: str, columns: list[str]) -> pa.Table:
    found: list[pa.Table] = []
    for part in parts_of(path, "requests"):
        with _damaged_ones_apart(), ParquetFile(part) as file:
            for group in range(file.metadata.num_row_groups):
                if not _may_hold(file.metadata.row_group(group), point_id):
                    continue
                hits = pc.equal(file.read_group(group, [name])[name].cast(pa.string()), value)
                if pc.any(hits).as_py():
                    rows = file.read_group(group, columns).filter(hits)
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


def _damage(file: Path, error: Exception) -> str:
    return f"{file} is damaged: {str(error).splitlines()[0] if str(error) else type(error).__name__}"


def _aside(path: Path) -> str:
    return (
        f"oss-eval view shows the rest; oss-eval resume {path.name} puts it aside and asks again for what it held"
    )


def _complete(table: pa.Table, wanted: list[str] | None) -> pa.Table:
    """A table with nulls for columns that an older version did not write. Raises the exceptions of DAMAGE."""
    table.validate(full=True)
    for name in wanted or REQUESTS.names:
        if name not in table.column_names:
            if name not in LATER:
                raise LookupError(f"it has no column {name}")
            table = table.append_column(REQUESTS.field(name), pa.nulls(table.num_rows, REQUESTS.field(name).type))
        elif table.schema.field(name).type != REQUESTS.field(name).type:
            place = table.column_names.index(name)
            table = table.set_column(place, name, table[name].cast(REQUESTS.field(name).type))
    return table


def read_samples(path: Path, columns: list[str] | None = None, damaged: list[str] | None = None) -> pa.Table:
    """Rows of a run's samples, including the journal: one for each answer, the latest where a sample was repeated.

    Raises StoreError naming a damaged part, or adds it to `damaged` where that is given.
    """
    names = SAMPLES.names if columns is None else list(dict.fromkeys([*columns, *KEY]))
    schema = pa.schema([SAMPLES.field(name) for name in names], SAMPLES.metadata)
    tables: list[pa.Table] = []
    left = parts_of(path, "samples")
    while left:
        part = left.pop(0)
        try:
            tables.append(read_part(part, schema))
        except FileNotFoundError:  # merged just now
            tables, left = [], parts_of(path, "samples")
        except DAMAGE as error:
            if damaged is None:
                raise StoreError(_damage(part, error), _aside(path)) from None
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
    """Number of measured rows in a run's table so far, cancelled ones separately. A part never changes, so it is
    counted once."""
    count = _steadily(lambda: _count_rows(path, name))
    if name == "samples":
        with contextlib.suppress(OSError):
            count += read_file(path / JOURNAL, MAX_JOURNAL).count(b"\n")
    return count


def _count_rows(path: Path, name: str) -> int:
    count = 0
    for part in parts_of(path, name):
        with _damaged_ones_apart():
            count += _rows_in(part, part.stat().st_size)
    return count


def _steadily(read: Callable[[], T]) -> T:
    """Read again when a part disappears while reading: it has just been merged."""
    for _ in range(3):
        with contextlib.suppress(FileNotFoundError):
            return read()
    return read()


@contextlib.contextmanager
def _damaged_ones_apart() -> Iterator[None]:
    """Skip an unreadable part, but not one that has disappeared."""
    try:
        yield
    except FileNotFoundError:
        raise
    except DAMAGE:
        pass


@lru_cache(maxsize=1 << 16)
def _rows_in(part: Path, size: int) -> int:
    with ParquetFile(part) as file:
        if "warmup" not in file.names:
            return int(file.metadata.num_rows)
        rows = file.read(["warmup", "status"])
        ended = pc.not_equal(rows["status"].cast(pa.string()), "cancelled")
        return int(pc.sum(pc.and_(ended, pc.invert(rows["warmup"]))).as_py() or 0)


def read_journal(path: Path) -> list[SampleRecord]:
    """Finished samples that are in no part yet; an incomplete last line, left by a crash, is skipped."""
    try:
        lines = read_file(path / JOURNAL, MAX_JOURNAL).split(b"\n")
    except OSError:
        return []
    names = {field.name for field in fields(SampleRecord)}
    found: list[SampleRecord] = []
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            values = json.loads(line.decode("utf-8", "surrogatepass"))
            found.append(SampleRecord(**{key: value for key, value in values.items() if key in names}))
    return found
