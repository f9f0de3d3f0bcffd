"""A point as the server saw it, from its own metrics, and how far this client's figures are from it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from oss_eval.records import SERVER_SHARES

Key = tuple[str, str]
"""Metric and stat."""


def server_figures(
    rows: pa.Table, answers: int, means_ms: Mapping[str, float]
) -> dict[Key, tuple[float, int, str]]:
    """(metric, stat) -> (value, n, unit) of one point's rows of `server_metrics`.

    Means are those of the server's histograms over the point: the difference of their sums by that of their
    counts. `answers` and `means_ms` (`ttft`, `latency`) are this client's: `server_ttft_difference_ms` and
    `server_latency_difference_ms` are the client's mean less the server's. They are there only where the server
    has noted as many answers as the client, as else they are not of the same requests.
    """
    begin, end, gauges = _collect(rows)
    found: dict[Key, tuple[float, int, str]] = {}
    grown = {name: end[name] - begin[name] for name in end if name in begin and end[name] >= begin[name]}
    for name in [key.removesuffix("_s_count") for key in grown if key.endswith("_s_count")]:
        count = grown[f"{name}_s_count"]
        if count > 0:
            mean = grown.get(f"{name}_s_sum", 0.0) / count * 1000
            found[f"server_{name}_ms", "mean"] = mean, int(count), "ms"
    noted = grown.get("latency_s_count")
    if noted is not None:
        found["server_requests", "value"] = noted, int(noted), ""
        for name in ("ttft", "latency"):
            own, theirs = means_ms.get(name), found.get((f"server_{name}_ms", "mean"))
            if own is not None and theirs is not None and int(noted) == answers == theirs[1]:
                found[f"server_{name}_difference_ms", "mean"] = own - theirs[0], answers, "ms"
    for name in ("prompt_tokens", "output_tokens"):
        if name in grown:
            found[f"server_{name}", "total"] = grown[name], int(noted or 0), "tokens"
    if "preemptions" in grown:
        found["server_preemptions", "value"] = grown["preemptions"], int(noted or 0), ""
    whole = grown.get("prefix_queries") or 0.0
    if whole and "prefix_hits" in grown:
        found["server_prefix_hits", "value"] = grown["prefix_hits"] / whole, int(whole), ""
    drafted, drafts = grown.get("draft_tokens") or 0.0, grown.get("drafts") or 0.0
    if drafted and "accepted_tokens" in grown:
        found["acceptance_rate", "value"] = grown["accepted_tokens"] / drafted, int(drafted), ""
    if drafts and "accepted_tokens" in grown:
        # The token that the model itself adds to each draft counts.
        found["accepted_length", "mean"] = 1 + grown["accepted_tokens"] / drafts, int(drafts), "tokens"
    for name in ("running", "waiting", "kv_usage", "accepted_length"):
        values = gauges.get(name)
        if values and not (name == "accepted_length" and ("accepted_length", "mean") in found):
            metric = name if name == "accepted_length" else f"server_{name}"
            found[metric, "mean"] = float(np.mean(values)), len(values), ""
            found[metric, "max"] = float(np.max(values)), len(values), ""
    return found


def by_time(rows: Iterable[dict[str, Any]]) -> dict[str, dict[int, float]]:
    """Values of all servers together, by metric and time_ns: sums, and means of SERVER_SHARES."""
    values: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        values[row["metric"]][row["time_ns"]].append(row["value"])
    return {
        metric: {when: sum(some) / (len(some) if metric in SERVER_SHARES else 1) for when, some in at.items()}
        for metric, at in values.items()
    }


def _collect(rows: pa.Table) -> tuple[dict[str, float], dict[str, float], dict[str, list[float]]]:
    """Values at the begin and at the end of the last session, summed over servers, and those in between."""
    data = rows.to_pylist()
    last = max((row["session"] for row in data), default=1)
    begin, end, between = (
        {
            metric: list(at.values())
            for metric, at in by_time(r for r in data if (r["session"], r["moment"]) == (last, moment)).items()
        }
        for moment in ("begin", "end", None)
    )
    return (
        {metric: values[-1] for metric, values in begin.items()},
        {metric: values[-1] for metric, values in end.items()},
        between,
    )
