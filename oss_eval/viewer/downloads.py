"""Tables of a run as files for download."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from oss_eval.results.part_files import read_part
from oss_eval.results.reader import iter_requests, read_samples
from oss_eval.results.schema import SUMMARY
from oss_eval.viewer.pages.about import downloads
from oss_eval.viewer.run_index import StoredRun


def prepare(run: StoredRun, name: str, folder: Path) -> Path | None:
    """The file of this name for a run, written into `folder`; None for an unknown name.

    CSV has lists as text joined by spaces. Parquet is the stored data, its parts merged.
    """
    if name not in downloads(run):
        return None
    stem, _, suffix = name.partition(".")
    target = folder / f"{run.key}-{name}"
    if suffix == "json":
        shutil.copyfile(run.path / "manifest.json", target)
        return target
    writer: Any = None
    for table in _tables(run, stem):
        if suffix == "csv":
            table = _without_formulas(_flat(table))
        if writer is None:
            writer = (
                csv.CSVWriter(target, table.schema) if suffix == "csv" else pq.ParquetWriter(target, table.schema)
            )
        writer.write_table(table.cast(writer.schema) if suffix == "parquet" else table)
    if writer is None:
        return None
    writer.close()
    return target


def _without_formulas(table: pa.Table) -> pa.Table:
    """A table whose texts no spreadsheet runs: those that begin like a formula get an apostrophe.

    https://owasp.org/www-community/attacks/CSV_Injection
    """
    for place, name in enumerate(table.column_names):
        if pa.types.is_string(table[name].type):
            column = table[name]
            formula = pc.match_substring_regex(column, r"^[=+\-@\t\r\n]")
            marked = pc.binary_join_element_wise("'", column, "")
            table = table.set_column(place, name, pc.if_else(formula, marked, column))
    return table


def _tables(run: StoredRun, stem: str) -> Any:
    damaged: list[str] = []
    if stem == "requests":
        return iter_requests(run.path, damaged=damaged)
    if stem == "samples":
        return iter([read_samples(run.path, damaged=damaged)])
    file = run.path / "summary.parquet"
    return iter([read_part(file, SUMMARY)] if file.exists() else [])


def _flat(table: pa.Table) -> pa.Table:
    """A table without lists and dictionaries, which CSV does not have."""
    columns = {}
    for name in table.column_names:
        column = table[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_list(column.type):
            column = pc.binary_join(column.cast(pa.list_(pa.string())), " ")
        columns[name] = column
    return pa.table(columns)
