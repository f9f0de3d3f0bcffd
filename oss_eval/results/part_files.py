"""The files of a table: one part a second, merged every minute. A file gets its name when it is complete."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from oss_eval.results.parquet import DAMAGE, ParquetFile
from oss_eval.results.schema import GPU_TELEMETRY, REQUESTS, SAMPLES, SERVER_METRICS

SCHEMAS = {"requests": REQUESTS, "samples": SAMPLES}
SERVER, GPU = "server_metrics", "gpu_telemetry"
READINGS = {SERVER: SERVER_METRICS, GPU: GPU_TELEMETRY}
"""Tables of what is read beside the requests, one part for each point that ended."""
ROW_GROUP = 16384
_PART = re.compile(r"part-(\d{1,9})(?:-(\d{1,9}))?\.parquet")


def parts_of(path: Path, name: str) -> list[Path]:
    """The parts of a run's table, in order, without those that a merged part already contains."""
    there = _listed(path / name)
    while there != (again := _listed(path / name)):  # the folder changed while it was listed
        there = again
    found, end = [], -1
    for part in sorted(there, key=lambda part: (span(part)[0], -span(part)[1])):
        if span(part)[0] > end:
            found.append(part)
            end = span(part)[1]
    return found


def superseded(path: Path, name: str) -> set[Path]:
    """Parts that a merged one already contains, left by a crash before they were removed."""
    return _listed(path / name) - set(parts_of(path, name))


def span(part: Path) -> tuple[int, int]:
    """First and last number of a part: part-000007.parquet, or part-000000-000059.parquet for sixty that were
    merged. (-1, -1) for other files."""
    found = _PART.search(part.name)
    return (int(found[1]), int(found[2] or found[1])) if found else (-1, -1)


def _listed(folder: Path) -> set[Path]:
    """Parts by name. A link is none: oss-eval makes none, and it could lead out of the results."""
    return {part for part in folder.glob("part-*.parquet") if span(part)[0] >= 0 and not part.is_symlink()}


def read_part(part: Path, schema: pa.Schema) -> pa.Table:
    """A file with the columns of `schema`; missing columns are null. Raises the exceptions of DAMAGE."""
    with ParquetFile(part) as file:
        table = file.read(schema.names)
    table.validate(full=True)
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(schema.names).cast(schema)


def _encoding(schema: pa.Schema) -> dict[str, Any]:
    """Encoding of the columns. Timestamps grow steadily, so their differences are stored: a third smaller and
    several times faster than a dictionary of numbers that never repeat. Every Parquet reader knows both
    encodings."""
    steady = [field.name for field in schema if field.type == pa.int64()]
    steady += [f"{field.name}.list.element" for field in schema if field.type == pa.list_(pa.int64())]
    columns = [f"{f.name}.list.element" if pa.types.is_list(f.type) else f.name for f in schema]
    return {
        "compression": "zstd",
        "use_dictionary": [name for name in columns if name not in steady],
        "column_encoding": dict.fromkeys(steady, "DELTA_BINARY_PACKED"),
    }


def write_part(table: pa.Table, path: Path) -> None:
    """Write a Parquet file completely or not at all."""
    write_whole(
        path, lambda file: pq.write_table(table, file, row_group_size=ROW_GROUP, **_encoding(table.schema))
    )


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that it gets its name only when it is complete and on the disk. Raises OSError."""
    temporary = path.with_name(f".{path.name}")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name too has to survive a power cut
    finally:
        os.close(folder)


def join(old: list[Path], tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    """Merge consecutive parts into one, then remove them.

    Readers skip parts that a merged one contains, so a crash in between loses and repeats nothing. Each point gets
    row groups of its own: reading one point skips the others. Raises the exceptions of DAMAGE.
    """
    if len(old) < 2:
        return

    def write(file: IO[bytes]) -> None:
        with pq.ParquetWriter(file, schema, **_encoding(schema)) as writer:
            for _, alike in groupby(tables, _only_point):
                writer.write_table(pa.concat_tables(alike).unify_dictionaries(), row_group_size=ROW_GROUP)

    write_whole(old[0].with_name(f"part-{span(old[0])[0]:06d}-{span(old[-1])[1]:06d}.parquet"), write)
    for part in old:
        part.unlink(missing_ok=True)


def _only_point(table: pa.Table) -> str | None:
    """The point of all these rows; None for several."""
    found = table["point_id"].unique()
    return str(found[0]) if len(found) == 1 else None


def repair(path: Path, name: str) -> list[str]:
    """Repair a table's folder before a run is resumed; returns the unreadable parts, which are renamed.

    Removes incomplete files and parts that are already merged. A damaged part (after a power cut) gets a name that
    readers skip. Raises OSError.
    """
    found: list[str] = []
    whole: set[Path] = set()
    while (
        there := set(parts_of(path, name)) - whole
    ):  # without a damaged merged part, the parts it was made of count again
        for part in sorted(there):
            try:
                with ParquetFile(part) as file:
                    for group in range(file.metadata.num_row_groups):
                        file.read_group(group).validate(full=True)
                whole.add(part)
            except DAMAGE:
                aside = path / f".{name}-{part.name}.damaged"
                part.rename(aside)
                found.append(aside.name)
    for rest in [*(path / name).glob(".part-*.parquet"), *superseded(path, name)]:
        rest.unlink()
    return found


def write_readings(path: Path, name: str, columns: dict[str, list[Any]]) -> None:
    """Add a part to a table of READINGS. Raises OSError."""
    folder = path / name
    folder.mkdir(exist_ok=True)
    number = max((span(part)[1] for part in _listed(folder)), default=-1) + 1
    table = pa.Table.from_pydict(columns, schema=READINGS[name])
    write_part(table, folder / f"part-{number:06d}.parquet")


def read_readings(path: Path, name: str, point_id: str | None = None) -> pa.Table:
    """A table of READINGS, of one point or of all. Unreadable parts are left out: these rows are beside the
    measurement."""
    tables = [READINGS[name].empty_table()]
    for part in parts_of(path, name):
        with contextlib.suppress(*DAMAGE):
            tables.append(read_part(part, READINGS[name]))
    table = pa.concat_tables(tables)
    return table if point_id is None else table.filter(pc.equal(table["point_id"].cast(pa.string()), point_id))
