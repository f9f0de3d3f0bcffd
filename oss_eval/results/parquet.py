"""Reading Parquet files that somebody else may have made: a small file can stand for gigabytes of data.

A dictionary page holds a text once however often a row names it, and run lengths hold a row count in a few bytes.
So the size is computed before anything is decoded: from the metadata, and where needed from the dictionary.
"""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from oss_eval.system.files import open_regular

MAX_BYTES = 1 << 29
"""Decoded bytes of a row group: far more than a minute of any run."""
MAX_ROWS = 1 << 24
DAMAGE = (OSError, pa.ArrowException, ValueError, TypeError, LookupError, OverflowError)
"""Exceptions that reading a damaged Parquet file may raise."""


class ParquetFile:
    """A Parquet file, read without decoding more than MAX_BYTES of it at once.

    Opening and reading raise the exceptions of DAMAGE, also for what is no regular file.
    """

    def __init__(self, path: Path) -> None:
        open_regular(path).close()
        # A file of Python's own must not be read here: threads of Arrow may let go of it while Python ends, which
        # then aborts or hangs (https://github.com/apache/arrow/issues/34314 and 50482).
        self._source = pa.OSFile(os.fsencode(path))
        try:
            self._file = pq.ParquetFile(self._source)
        except BaseException:
            self._source.close()
            raise
        self.metadata = self._file.metadata
        self.names: list[str] = self._file.schema_arrow.names

    def __enter__(self) -> ParquetFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self._source.close()

    def read_group(self, group: int, columns: list[str] | None = None) -> pa.Table:
        """A row group. Raises ValueError when it would be larger than MAX_BYTES."""
        self._check_size(group, columns)
        return self._file.read_row_group(group, columns=columns)

    def read(self, columns: list[str] | None = None) -> pa.Table:
        """All of it. Raises ValueError when it would be larger than MAX_BYTES."""
        tables, total = [self._file.schema_arrow.empty_table()], 0
        if columns is not None:
            tables[0] = tables[0].select([name for name in columns if name in self.names])
        for group in range(self.metadata.num_row_groups):
            tables.append(self.read_group(group, columns))
            total += tables[-1].nbytes
            _refuse_more_than(MAX_BYTES, total)
        return pa.concat_tables(tables[1:] or tables).unify_dictionaries()

    def _check_size(self, group: int, columns: list[str] | None) -> None:
        metadata = self.metadata.row_group(group)
        if metadata.num_rows > MAX_ROWS:
            raise ValueError(f"it has {metadata.num_rows:,} rows in one group, more than {MAX_ROWS:,}")
        total, texts = 0, []
        for index in range(metadata.num_columns):
            column = metadata.column(index)
            name = column.path_in_schema.partition(".")[0]
            if columns is not None and name not in columns:
                continue
            total += column.total_uncompressed_size
            if column.physical_type != "BYTE_ARRAY":
                total += 8 * column.num_values
            elif column.total_uncompressed_size * column.num_values > MAX_BYTES:
                texts.append(name)
        _refuse_more_than(MAX_BYTES, total)
        if texts:
            _refuse_more_than(MAX_BYTES, total + self._decoded_size(group, texts))

    def _decoded_size(self, group: int, names: list[str]) -> int:
        """Bytes of columns of texts, computed from their dictionaries and how often a row names each text."""
        self._source.seek(0)
        table = pq.ParquetFile(self._source, read_dictionary=names).read_row_group(group, columns=names)
        total = 0
        for chunk in (chunk for column in table.columns for chunk in column.chunks):
            if pa.types.is_dictionary(chunk.type):
                counts = chunk.indices.value_counts()
                lengths = pc.binary_length(chunk.dictionary).cast(pa.int64()).take(counts.field("values"))
                total += pc.sum(pc.multiply(lengths, counts.field("counts"))).as_py() or 0
            else:
                total += chunk.nbytes
        return total


def _refuse_more_than(most: int, size: int) -> None:
    if size > most:
        raise ValueError(f"it holds {size / 1e6:,.0f} MB of data, more than {most / 1e6:,.0f} MB")
