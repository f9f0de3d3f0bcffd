"""Figures of an open loop: when requests started against when they should have, and whether a queue grows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from oss_eval.analysis.figures import Figures
from oss_eval.analysis.request_rows import NS_PER_MS, Floats, succeeded
from oss_eval.analysis.steady_state import in_flight_at
from oss_eval.analysis.trend import drifts

LOOKS = 200
"""Times at which the requests in flight are counted."""
GROWTH = 0.2
"""Relative growth of the requests in flight, and of the TTFT or the latency, that is a growing queue."""


def mean_in_flight(measured: pa.Table) -> float | None:
    """Mean requests in flight between the first and the last start; None without two starts."""
    flight = _in_flight(measured)
    return None if flight is None else float(flight.mean())


def measure_arrivals(figures: Figures, measured: pa.Table) -> None:
    """Add `dispatch_delay_ms` (start - planned start), `scheduled_latency_ms` (last token, or end, - planned
    start), `planned_rate` and `achieved_rate` (starts per second of the plan and in fact), `in_flight`, and,
    where more requests arrive than end, `queue_growth` (requests in flight per second)."""
    sent = measured.filter(pc.and_(pc.is_valid(measured["start_ns"]), pc.is_valid(measured["scheduled_ns"])))
    sent = sent.sort_by("scheduled_ns")
    if not sent.num_rows:
        return
    figures.put_requests("dispatch_delay_ms", _ms(sent, "start_ns"))
    good = succeeded(sent)
    if good.num_rows:
        last = pc.coalesce(good["last_token_ns"], good["end_ns"])
        figures.put_requests("scheduled_latency_ms", _ms(good.append_column("last", last), "last"))
    for name, column in (("planned_rate", "scheduled_ns"), ("achieved_rate", "start_ns")):
        times = sent[column].to_numpy()
        span = (times.max() - times.min()) / 1e9
        if span:
            figures.put(name, "value", (len(times) - 1) / span, len(times), "1/s")
    flight = _in_flight(measured)
    if flight is None:
        return
    figures.put("in_flight", "mean", float(flight.mean()), len(sent), "")
    figures.put("in_flight", "max", float(flight.max()), len(sent), "")
    growth = queue_growth(sent)
    if growth is not None:
        figures.put("queue_growth", "value", growth, len(sent), "1/s")


def queue_growth(sent: pa.Table) -> float | None:
    """By how many requests a second the number in flight grows, if it does and the TTFT or the latency with it:
    more arrive than the server ends. None if not. The first median latency is left out, as the number grows then
    on any server."""
    sent = sent.filter(pc.is_valid(sent["start_ns"])).sort_by("start_ns")
    starts = sent["start_ns"].to_numpy()
    if len(starts) < 2 * LOOKS // 10:
        return None
    ends = pc.fill_null(sent["end_ns"], int(starts[-1]) + 1).to_numpy()
    first = max(10, len(starts) // 10)
    begin = int(starts[0] + np.median(ends[:first] - starts[:first]))
    if begin >= starts[-1]:
        return None
    times = np.linspace(begin, starts[-1], LOOKS)
    flight = in_flight_at(starts, ends, times)
    longer = False
    for name in ("first_token_ns", "end_ns"):
        waits = pc.subtract(sent[name], sent["start_ns"]).cast(pa.float64()).to_numpy()
        longer |= (drifts(waits[~np.isnan(waits) & (starts >= begin)], GROWTH) or 0.0) > 0
    if not longer or (drifts(flight, GROWTH) or 0.0) <= 0:
        return None
    return float(np.polyfit((times - begin) / 1e9, flight, 1)[0])


def _in_flight(measured: pa.Table) -> Floats | None:
    sent = measured.filter(pc.is_valid(measured["start_ns"])).sort_by("start_ns")
    starts = sent["start_ns"].to_numpy()
    if len(starts) < 2 or starts[0] == starts[-1]:
        return None
    ends = pc.fill_null(sent["end_ns"], int(starts[-1]) + 1).to_numpy()
    return in_flight_at(starts, ends, np.linspace(starts[0], starts[-1], LOOKS))


def _ms(rows: pa.Table, name: str) -> Floats:
    values = pc.subtract(rows[name], rows["scheduled_ns"]).drop_null().to_numpy()
    return np.asarray(values / NS_PER_MS)
