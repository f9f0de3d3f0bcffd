"""Energy and load of the server's GPUs in a point, from their readings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from oss_eval.analysis.request_rows import Floats, Window, floats
from oss_eval.analysis.stats import Estimate

SENSOR = 0.05
"""Error of a GPU's own power and energy readings, as a share: Yang, Adamek, Armour 2024, "Accurate and Convenient
Energy Measurements for GPUs" (arXiv:2312.02741), section 4, against an external meter."""
THROTTLED = 0x04 | 0x08 | 0x20 | 0x40 | 0x80
"""NVML's clocks event reasons that slow a GPU down: power cap, hardware slowdown, heat (two), power brake."""

IDLE = "idle"
"""What the point_id of readings from before the load begins with."""

Key = tuple[str, str]
"""Metric and stat."""
Figure = tuple[Estimate, int, str]
"""Estimate, n, unit."""


def gpu_figures(rows: pa.Table, windows: Sequence[Window], tokens: float) -> dict[Key, Figure]:
    """(metric, stat) -> (estimate, n, unit) of one point; n is the number of readings.

    `rows`: a run's `gpu_telemetry`. `tokens`: output tokens in the windows. Only GPUs that had work in a window
    count. Energy is there when the readings of all of them reach from before to after every window; its ends are
    bounds of the error, not a confidence interval: the sensors', and that of readings being some time apart.
    """
    inside = [_inside(rows, window) for window in windows]
    busy = sorted({gpu for part in inside for gpu in _busy(part)})
    if not busy:
        return {}
    readings = pa.concat_tables(inside)
    readings = readings.filter(pc.is_in(readings["gpu"], pa.array(busy, readings["gpu"].type)))
    found = {("gpu_count", "value"): (_exact(len(busy)), "")} | _load(readings)
    gpus = [(_of(rows, window.session, gpu), window) for window in windows for gpu in busy]
    found |= _energy_figures(gpus, sum(window.seconds for window in windows), tokens)
    return {key: (estimate, readings.num_rows, unit) for key, (estimate, unit) in found.items()}


_Figures = dict[Key, tuple[Estimate, str]]


def _exact(value: float) -> Estimate:
    return Estimate(float(value), None, None)


def _within(value: float, error: float) -> Estimate:
    """A value with the bounds of its error."""
    return Estimate(value, value - error, value + error)


def _energy_figures(gpus: Sequence[tuple[pa.Table, Window]], seconds: float, tokens: float) -> _Figures:
    """Energy and what follows from it; nothing where it is not known of all (readings of one GPU, window)."""
    energies = [_energy(own, window) for own, window in gpus]
    known = [energy for energy in energies if energy is not None]
    if seconds <= 0 or len(known) < len(energies):
        return {}
    energy = sum(value for value, _ in known)
    apart = sum(error for _, error in known)
    error = SENSOR * energy + apart
    found: _Figures = {
        ("gpu_energy_j", "value"): (_within(energy, error), "J"),
        ("gpu_power_w", "mean"): (_within(energy / seconds, error / seconds), "W"),
    }
    if tokens and energy > 0:
        found["energy_per_token_j", "value"] = _within(energy / tokens, error / tokens), "J"
        found["tokens_per_joule", "value"] = _within(tokens / energy, error * tokens / energy**2), "tokens/J"
    resting = [(_idle_power(own), window.seconds) for own, window in gpus]
    idle = [power * length for power, length in resting if power is not None]
    if len(idle) == len(resting):
        found["gpu_idle_power_w", "value"] = _exact(sum(idle) / seconds), "W"
        if tokens:
            # A sensor's error is one of scale: the difference of two readings has the same share of it.
            above = energy - sum(idle)
            estimate = _within(above / tokens, (SENSOR * abs(above) + apart) / tokens)
            found["energy_per_token_above_idle_j", "value"] = estimate, "J"
    return found


def _load(readings: pa.Table) -> _Figures:
    """Means and maxima of the readings; of several GPUs, memory and power are added up."""
    found: _Figures = {}
    for column, metric, unit in (("utilization", "gpu_utilization", ""), ("clock_mhz", "gpu_clock_mhz", "MHz")):
        if len(values := floats(readings[column])):
            found[metric, "mean"] = _exact(values.mean()), unit
    if len(values := floats(readings["temperature_c"])):
        found["gpu_temperature_c", "max"] = _exact(values.max()), "°C"
    for column, metric, unit in (("memory_mb", "gpu_memory_mb", "MiB"), ("power_w", "gpu_power_w", "W")):
        if readings[column].null_count < readings.num_rows:
            together = readings.group_by(["session", "time_ns"]).aggregate([(column, "sum")])
            found[metric, "max"] = _exact(floats(together[f"{column}_sum"]).max()), unit
    reasons = readings["throttle_reasons"].drop_null().to_numpy()
    if len(reasons):
        found["gpu_throttled", "value"] = _exact(((reasons & THROTTLED) != 0).mean()), ""
    return found


def _of(rows: pa.Table, session: int, gpu: int) -> pa.Table:
    return rows.filter(pc.and_(pc.equal(rows["session"], session), pc.equal(rows["gpu"], gpu))).sort_by("time_ns")


def _inside(rows: pa.Table, window: Window) -> pa.Table:
    """The readings in a window, and the next one: it tells of the time before it."""
    own = rows.filter(pc.equal(rows["session"], window.session))
    times = own["time_ns"]
    after = pc.min(own.filter(pc.greater(times, window.end_ns))["time_ns"]).as_py() or window.end_ns
    return own.filter(pc.and_(pc.greater_equal(times, window.start_ns), pc.less_equal(times, after)))


def _busy(rows: pa.Table) -> set[int]:
    """GPUs that had work; those that do not tell count as well."""
    worked = pc.or_kleene(pc.is_null(rows["utilization"]), pc.greater(rows["utilization"], 0))
    return set(rows.filter(worked)["gpu"].unique().to_pylist())


def _energy(rows: pa.Table, window: Window) -> tuple[float, float] | None:
    """(energy in J of one GPU in a window, bound of the error from readings being some time apart).

    From its energy counter, else from the integral of its power by the trapezoidal rule. None where the readings
    do not reach from before the window to after it.
    """
    times, total, overtime = _knots(rows)
    first = int(np.searchsorted(times, window.start_ns, side="right")) - 1
    last = int(np.searchsorted(times, window.end_ns, side="left"))
    if first < 0 or last >= len(times) or last <= first:
        return None
    near, sums = times[first : last + 1], total[first : last + 1]
    steps = np.diff(near) / 1e9
    # An interval's mean hides how far the power goes, so all readings of the session tell the range.
    powers = np.concatenate([np.diff(sums) / steps, floats(rows["power_w"])])
    swing = float(powers.max() - powers.min())
    # Between two readings the sum is between two lines, of the highest power first and of the lowest power first.
    error = swing * float(steps[0] + steps[-1]) / 4
    if last == len(times) - 1:
        error += swing * overtime
    if rows["energy_j"].null_count:
        power = np.asarray(rows["power_w"].to_numpy(), dtype=np.float64)[first : last + 1]
        every_other = float(_trapezoids(near[::2], power[::2]).sum())
        error += abs(every_other - float(sums[::2][-1] - sums[0]))
    ends = np.interp([window.start_ns, window.end_ns], near, sums)
    return float(ends[1] - ends[0]), error


def _knots(rows: pa.Table) -> tuple[NDArray[np.int64], Floats, float]:
    """(times in ns, energy since the first in J, seconds that the last is extrapolated by) of a GPU's readings."""
    times = np.asarray(rows["time_ns"].to_numpy(), dtype=np.int64)
    nothing = np.empty(0, dtype=np.int64), np.empty(0), 0.0
    if rows["energy_j"].null_count:
        if rows["power_w"].null_count:
            return nothing
        power = np.asarray(rows["power_w"].to_numpy(), dtype=np.float64)
        return times, np.concatenate([[0.0], np.cumsum(_trapezoids(times, power))]), 0.0
    counter = np.asarray(rows["energy_j"].to_numpy(), dtype=np.float64)
    if (np.diff(counter) < 0).any():
        return nothing  # the driver was loaded anew
    new = np.append(True, np.diff(counter) != 0)  # an exporter repeats a value until it has a new one
    at, sums = times[new], counter[new] - counter[0]
    if len(at) < 2:
        return nothing
    late, step = int(times[-1] - at[-1]), int(at[-1] - at[-2])
    if not 0 < late <= step:
        return at, sums, 0.0
    more = (sums[-1] - sums[-2]) / step * late
    return np.append(at, times[-1]), np.append(sums, sums[-1] + more), late / 1e9


def _trapezoids(times: NDArray[np.int64], power: Floats) -> Floats:
    """Energy in J between one reading and the next, by the trapezoidal rule."""
    return np.diff(times) / 1e9 * (power[1:] + power[:-1]) / 2


def _idle_power(rows: pa.Table) -> float | None:
    """Mean power of a GPU before the load; None where something used it then, or nothing is known."""
    idle = rows.filter(pc.starts_with(rows["point_id"].cast(pa.string()), IDLE))
    used = idle["utilization"]
    if not idle.num_rows or used.null_count or idle["power_w"].null_count or pc.max(used).as_py() > 0:
        return None
    return float(pc.mean(idle["power_w"]).as_py())
