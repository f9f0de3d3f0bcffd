"""Records as tables in the stored schema."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa

from oss_eval.records import RequestRecord, SampleRecord
from oss_eval.results.schema import REQUESTS, SAMPLES
from oss_eval.system.text import as_utf8

_COLUMNS = [name for name in REQUESTS.names if name in {f.name for f in fields(RequestRecord)}]


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


def samples_table(records: list[SampleRecord]) -> pa.Table:
    """Sample records as a table in the stored schema."""
    columns = {name: [getattr(record, name) for record in records] for name in SAMPLES.names}
    for name in ("prompt", "response", "reasoning", "answer", "error_message"):
        # A model can answer half a surrogate pair, which UTF-8 can't encode.
        columns[name] = [None if text is None else as_utf8(text) for text in columns[name]]
    return pa.Table.from_pydict(columns, schema=SAMPLES)
