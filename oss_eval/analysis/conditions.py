"""Conditions in which two runs differ, so that a difference may come from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from oss_eval.results.manifest import made_by


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A condition in which two runs differ."""

    kind: str
    """`host`, `workload` or `instrument`."""
    name: str
    a: str
    b: str


_HOST = ("host", "cpu", "cores", "system", "python")
_WORKLOAD = (
    "max_tokens",
    "min_tokens",
    "temperature",
    "top_p",
    "stream",
    "dataset",
    "prompt",
    "min_prompt_length",
    "max_prompt_length",
    "prefix_length",
    "extra_args",
    "effort_style",
    "split_think",
)
_BENCH = (
    "samples_hash",
    "repeats",
    "limit",
    "prompt",
    "system_prompt",
    "scorer",
    "max_tokens",
    "temperature",
    "top_p",
)


def mismatches(a: dict[str, Any], b: dict[str, Any]) -> list[Mismatch]:
    """Conditions that differ between two manifests, apart from model and endpoint."""
    found: list[Mismatch] = []

    def look(kind: str, name: str, one: Any, two: Any) -> None:
        if one != two:
            found.append(Mismatch(kind, name, _said(one), _said(two)))

    for name in _HOST:
        look("host", name, *(m.get("environment", {}).get(name) for m in (a, b)))
    look("instrument", "oss-eval", made_by(a), made_by(b))
    look("instrument", "clock", *(m.get("clock_source") for m in (a, b)))
    look("instrument", "workers", *(sorted({p.get("workers") or 0 for p in m.get("points", [])}) for m in (a, b)))
    look("instrument", "simulated", *(bool((m.get("endpoint") or {}).get("simulated")) for m in (a, b)))
    if "tasks" in a and "tasks" in b:
        for task in [name for name in a["tasks"] if name in b["tasks"]]:
            for name in _BENCH:
                look("workload", f"{task} {name}", a["tasks"][task].get(name), b["tasks"][task].get(name))
        look("workload", "in flight", *((m.get("parallel") or {}).get("asked") for m in (a, b)))
    else:
        tasks = [m.get("task") or {} for m in (a, b)]
        for name in _WORKLOAD:
            look("workload", name, *(task.get(name) for task in tasks))
    return found


def _said(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(str, value))
    return str(value)[:80]
