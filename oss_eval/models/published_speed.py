"""Speed figures that others have published, with their sources. Nobody here has measured them."""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from oss_eval.errors import UsageError
from oss_eval.models.card import find_card, plain

FILE = Path(__file__).parent / "reference" / "published_speed.yaml"

Figure = Literal[
    "rps", "output_tps", "total_tps", "prefill_tps", "success_rate",
    "latency_mean_ms", "latency_p50_ms", "latency_p90_ms", "latency_p99_ms",
    "ttft_mean_ms", "ttft_p50_ms", "ttft_p90_ms", "ttft_p99_ms",
    "tpot_mean_ms", "tpot_p50_ms", "tpot_p99_ms",
]  # fmt: skip
Range = Annotated[tuple[float, float], Field(description="published as a range")]


class PublishedSpeed(BaseModel):
    """One published measurement; what was not published is None."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str
    machine: str
    engine: str
    engine_version: str | None = None
    parallel: int
    """Concurrent requests."""
    requests: int | None = None
    """How many the figures are from."""
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    metrics: dict[Figure, float | Range]
    """As published, rounded by their authors; (lowest, highest) where a range was."""
    source: str
    date: date
    note: str | None = None

    def value(self, figure: Figure) -> float | None:
        """A figure; None where it was not published or only as a range."""
        found = self.metrics.get(figure)
        return None if found is None or isinstance(found, tuple) else found


@lru_cache(maxsize=1)
def _all() -> tuple[PublishedSpeed, ...]:
    return tuple(map(PublishedSpeed.model_validate, yaml.safe_load(FILE.read_text(encoding="utf-8"))))


def sweep_of(machine: str, served: str) -> list[PublishedSpeed]:
    """Figures of a model on a machine at each concurrency: `H20-96GB`, or `H20-96GB/vllm` for one engine.

    Raises UsageError where there are none, or several for one concurrency.
    """
    rows = published_speed(served)
    name, _, engine = machine.partition("/")
    found = [row for row in rows if plain(row.machine) == plain(name) and (not engine or row.engine == engine)]
    if not found:
        there = sorted({row.machine for row in rows})
        raise UsageError(
            f"no figures of {served} on {machine} have been published, as far as oss-eval knows",
            f"there are some on {', '.join(there)}" if there else "oss-eval knows none of this model",
        )
    if len({row.parallel for row in found}) < len(found):
        engines = sorted({row.engine for row in found})
        raise UsageError(
            f"several figures of {served} on {machine} have been published", f"name one: {name}/{engines[0]}"
        )
    return found


def published_speed(served: str) -> list[PublishedSpeed]:
    """Published figures of a model, under any name that a server gives it."""
    found = find_card(served)
    names = {plain(served)} | ({plain(found[0].name)} if found else set())
    return [row for row in _all() if plain(row.model) in names]
