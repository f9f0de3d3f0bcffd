"""Rows of requests as arrays: which of them count, and how long a point was measured."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Floats = NDArray[np.float64]


NS_PER_MS = 1e6


class Window(NamedTuple):
    """The time in which a session measured a point, in UTC ns."""

    session: int
    start_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        """Length."""
        return (self.end_ns - self.start_ns) / 1e9


def succeeded(rows: pa.Table) -> pa.Table:
    """The rows whose request succeeded."""
    return rows.filter(pc.equal(rows["status"].cast(pa.string()), "ok"))


def is_abandoned(rows: pa.Table) -> pa.ChunkedArray:
    """Whether each request was cancelled on purpose (`--cancel`): it is neither a success nor a failure."""
    if "error_kind" not in rows.column_names:
        return pa.chunked_array([pa.array([False] * rows.num_rows)])
    return pc.fill_null(pc.equal(rows["error_kind"].cast(pa.string()), "abandoned"), False)


def asked_once(measured: pa.Table) -> pa.Table:
    """Rows without those that a resumed run has repeated.

    A resumed run repeats requests that were cancelled, and those that could not be sent while the server was away.
    """
    if "session" not in measured.column_names or len(measured["session"].unique()) < 2:
        return measured
    given_up = pc.equal(measured["status"].cast(pa.string()), "cancelled")
    open_ = pc.or_(pc.and_not(given_up, is_abandoned(measured)), pc.is_null(measured["start_ns"]))
    latest = measured.group_by("request_id").aggregate([("session", "max")])
    last = dict(zip(latest["request_id"].to_pylist(), latest["session_max"].to_pylist(), strict=True))
    rows = zip(
        *(column.to_pylist() for column in (measured["request_id"], measured["session"], open_)), strict=True
    )
    keep = [not left or (session or 1) >= (last[name] or 1) for name, session, left in rows]
    return measured.filter(pa.array(keep, pa.bool_()))


def sessions(measured: pa.Table) -> list[pa.Table]:
    """Rows of each session that measured the point: one, unless a resumed run completed it."""
    if "session" not in measured.column_names:
        return [measured]
    session = pc.fill_null(measured["session"], 1)
    return [measured.filter(pc.equal(session, one)) for one in sorted(pc.unique(session).to_pylist())]


def windows(measured: pa.Table) -> list[Window]:
    """From the first start to the last end, failed requests included, of each session that measured the point."""
    found = []
    for rows in sessions(measured):
        first, last = pc.min(rows["start_ns"]).as_py(), pc.max(rows["end_ns"]).as_py()
        if first is not None and last is not None:
            session = rows["session"][0].as_py() if "session" in rows.column_names else 1
            found.append(Window(session or 1, first, last))
    return found


def measured_seconds(measured: pa.Table) -> float | None:
    """Last end - first start of the measured requests, failed ones included; of several sessions their sum."""
    total = sum(window.seconds for window in windows(measured))
    return total if total > 0 else None


def floats(column: pa.ChunkedArray) -> Floats:
    """The values of a column that are not null."""
    return np.asarray(column.drop_null().to_numpy(), dtype=np.float64)
