"""The files of a table: a part a second, joined every minute, each there when it is whole and not before."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from oss_eval.results.schema import REQUESTS, SAMPLES

SCHEMAS = {"requests": REQUESTS, "samples": SAMPLES}
ROW_GROUP = 16384
DAMAGE = (OSError, pa.ArrowException, ValueError, TypeError, LookupError, OverflowError)
"""What reading a Parquet file with wrong bytes in it may raise."""
_PART = re.compile(r"part-(\d{1,9})(?:-(\d{1,9}))?\.parquet")


def parts_of(path: Path, name: str) -> list[Path]:
    """The parts of a run's table, in order; not those whose rows a joined one holds already."""
    there = _listed(path / name)
    while there != (again := _listed(path / name)):  # a folder that changes is no moment's picture
        there = again
    found, end = [], -1
    for part in sorted(there, key=lambda part: (span(part)[0], -span(part)[1])):
        if span(part)[0] > end:
            found.append(part)
            end = span(part)[1]
    return found


def superseded(path: Path, name: str) -> set[Path]:
    """Parts whose rows are in a joined one, left over from a crash before they could be removed."""
    return _listed(path / name) - set(parts_of(path, name))


def span(part: Path) -> tuple[int, int]:
    """First and last number of a part: part-000007.parquet, or part-000000-000059.parquet for sixty that were
    joined. (-1, -1) for what is none."""
    found = _PART.search(part.name)
    return (int(found[1]), int(found[2] or found[1])) if found else (-1, -1)


def _listed(folder: Path) -> set[Path]:
    return {part for part in folder.glob("part-*.parquet") if span(part)[0] >= 0}


def read_part(part: Path, schema: pa.Schema) -> pa.Table:
    """A whole file with the columns of `schema`; those that it lacks are null. Raises what DAMAGE holds.

    Not `pq.read_table`, which imports much more for it (pyarrow.dataset, pandas).
    """
    with pq.ParquetFile(part) as file:
        table = file.read(columns=schema.names)
    table.validate(full=True)
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(schema.names).cast(schema)


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


def write_part(table: pa.Table, path: Path) -> None:
    """A Parquet file, whole or not at all."""
    write_whole(
        path, lambda file: pq.write_table(table, file, row_group_size=ROW_GROUP, **_encoding(table.schema))
    )


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """A file that is there when it is complete and on the disk, and not before. Raises OSError."""
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
    """Write the rows of parts that follow one another as one part, then remove them.

    A reader passes over parts whose numbers a joined one spans, so a crash half-way loses and repeats nothing.
    Rows of a point get row groups of their own: who reads one point leaves the others alone. Raises what DAMAGE
    holds.
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
    """The point that all of these rows are of; None for several."""
    found = table["point_id"].unique()
    return str(found[0]) if len(found) == 1 else None


def repair(path: Path, name: str) -> list[str]:
    """Make a table's folder fit to be gone on with; the parts that can't be read, now under another name.

    What was half written goes, and what was joined already; a part that is damaged (a power cut) gets a name that
    readers pass over. Raises OSError.
    """
    found: list[str] = []
    whole: set[Path] = set()
    while there := set(parts_of(path, name)) - whole:  # a damaged joined one uncovers those it was made of
        for part in sorted(there):
            try:
                with pq.ParquetFile(part) as file:
                    for group in range(file.num_row_groups):
                        file.read_row_group(group).validate(full=True)
                whole.add(part)
            except DAMAGE:
                aside = path / f".{name}-{part.name}.damaged"
                part.rename(aside)
                found.append(aside.name)
    for rest in [*(path / name).glob(".part-*.parquet"), *superseded(path, name)]:
        rest.unlink()
    return found
