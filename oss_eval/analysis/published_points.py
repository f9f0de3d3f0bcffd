"""Published speed figures as points of a load sweep, to be compared with measured ones."""

from __future__ import annotations

from typing import Any

from oss_eval.analysis.conditions import Mismatch
from oss_eval.analysis.figures import Metric, PointMetrics
from oss_eval.models.published_speed import PublishedSpeed, sweep_of

PREFIX = "published:"
"""Before the machine, where a command takes a run."""
UNITS = {"rps": "1/s", "output_tps": "tokens/s", "success_rate": ""}


def published_points(name: str, model: str) -> list[tuple[PublishedSpeed, PointMetrics]]:
    """The points that `published:MACHINE` names for a model. Raises UsageError."""
    return [(row, figures(row)) for row in sweep_of(name.removeprefix(PREFIX), model)]


def figures(row: PublishedSpeed) -> PointMetrics:
    """A published row as figures without intervals; what was published as a range is left out."""
    found = {}
    for name in row.metrics:
        value = row.value(name)
        metric, _, stat = name.removesuffix("_ms").rpartition("_") if name.endswith("_ms") else (name, "", "value")
        metric = f"{metric}_ms" if name.endswith("_ms") else metric
        if value is not None:
            unit = UNITS.get(metric, "ms" if name.endswith("_ms") else "tokens/s")
            found[metric, stat] = Metric(metric, stat, value, None, None, row.requests or 0, unit)
    for metric, tokens in (("prompt_tokens", row.prompt_tokens), ("completion_tokens", row.output_tokens)):
        if tokens is not None:
            found[metric, "mean"] = Metric(metric, "mean", float(tokens), None, None, row.requests or 0, "tokens")
    return PointMetrics(found)


def manifest(row: PublishedSpeed) -> dict[str, Any]:
    """What is known of the run that the figures are from, under the keys of a manifest."""
    labels = {"gpu": row.machine, "engine": row.engine, "engine_version": row.engine_version}
    return {
        "kind": "perf", "model": row.model, "labels": {k: v for k, v in labels.items() if v},
        "published": {"source": row.source, "date": row.date.isoformat(), "note": row.note},
    }  # fmt: skip


def origin(a: dict[str, Any], b: dict[str, Any]) -> list[Mismatch]:
    """That one of two manifests is of published figures: whose, and what is said of them."""

    def told(one: dict[str, Any]) -> str:
        said = one.get("published")
        if said is None:
            return "simulated" if (one.get("endpoint") or {}).get("simulated") else "measured"
        note = f"; {said['note']}" if said["note"] else ""
        return f"published {said['date']}, error unknown, {said['source']}{note}"

    return [Mismatch("source", "figures", told(a), told(b))] if told(a) != told(b) else []
