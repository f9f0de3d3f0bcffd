"""Service level objectives: the share and the rate of requests that meet them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from oss_eval.analysis import gate, stats
from oss_eval.analysis.figures import Metric
from oss_eval.analysis.gate import Condition
from oss_eval.analysis.latency import request_durations
from oss_eval.analysis.request_rows import (
    asked_once,
    measured_seconds,
    succeeded,
)

OBJECTIVE = 0.99
"""Share of the requests that has to meet the limits, as usual for an objective on the P99."""


@dataclass(frozen=True, slots=True)
class Goodput:
    """Requests that met every limit."""

    attainment: stats.Estimate
    """Share of all measured requests, failures in the denominator, with Wilson's interval."""
    rate: float | None
    """Requests per second that met every limit; None without a duration."""
    n: int

    @property
    def meets(self) -> bool | None:
        """Whether a share of OBJECTIVE meets the limits; None with too few requests to tell."""
        if self.attainment.value >= OBJECTIVE:
            return True if self.n >= stats.P99_NEEDS else None
        return False if self.attainment.high is not None and self.attainment.high < OBJECTIVE else None


class Objectives(NamedTuple):
    """What `--slo` asks of a point."""

    conditions: tuple[Condition, ...]
    limits: dict[str, float]
    """Limits of a request, by duration, in ms: those of the conditions on durations."""


def objectives(texts: Sequence[str]) -> Objectives:
    """`--slo` conditions such as `ttft_p99<2s`, `tpot_p95<50ms`, `success>99%`. Where several limit a duration, a
    request has to meet the strictest. Raises UsageError."""
    conditions = tuple(gate.known(gate.parse(text, "--slo"), "perf", "--slo") for text in texts)
    limits: dict[str, float] = {}
    for condition in conditions:
        name = condition.metric.removesuffix("_ms")
        if name in gate.LIMITED and condition.operator[0] == "<":
            ms = gate.in_ms(condition)
            limits[name] = min(ms, limits.get(name, ms))
    return Objectives(conditions, limits)


def goodput_figures(found: Goodput | None) -> dict[tuple[str, str], Metric]:
    """`attainment` and `goodput` as figures of a point."""
    if found is None:
        return {}
    share = found.attainment
    figures = {("attainment", "value"): Metric("attainment", "value", *share, found.n, "")}
    if found.rate is not None:
        figures["goodput", "value"] = Metric("goodput", "value", found.rate, None, None, found.n, "1/s")
    return figures


REQUEST_COLUMNS = [
    "request_id", "session", "warmup", "status", "start_ns", "first_token_ns", "first_answer_ns", "last_token_ns",
    "end_ns", "completion_tokens", "reasoning_tokens", "first_event_tokens", "tokens_to_answer", "n_events",
]  # fmt: skip
"""Columns that `goodput` needs."""


def goodput(requests: pa.Table, limits: dict[str, float]) -> Goodput | None:
    """Requests that met every limit (DistServe: Zhong et al. 2024, arXiv:2401.09670, section 2); None without any
    request.

    `limits` maps `ttft`, `ttfa`, `tpot`, `latency` to ms. A request without such a duration misses a limit on it,
    but for tpot, which an answer of one token can't have. Requests that a stop cancelled are left out.
    """
    measured = asked_once(requests.filter(pc.invert(requests["warmup"])))
    seconds = measured_seconds(measured)
    measured = measured.filter(pc.not_equal(measured["status"].cast(pa.string()), "cancelled"))
    if not measured.num_rows:
        return None
    good = succeeded(measured)
    met = np.ones(good.num_rows, dtype=bool)
    values = request_durations(good)
    short = np.asarray(pc.fill_null(pc.less_equal(good["completion_tokens"], 1), False).to_numpy(), dtype=bool)
    for name, limit in limits.items():
        met &= (values[name] <= limit) | (short & (name == "tpot"))
    count = int(met.sum())
    share = stats.proportion(count, measured.num_rows)
    return Goodput(share, count / seconds if seconds else None, measured.num_rows)
