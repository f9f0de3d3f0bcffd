"""Published scores, with their sources."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml


@dataclass(frozen=True)
class PublishedScore:
    """One published score."""

    model: str
    task: str
    effort: str
    score: float
    tokens: float | None
    source: str
    url: str


@lru_cache(maxsize=1)
def _all() -> tuple[PublishedScore, ...]:
    entries = yaml.safe_load((Path(__file__).parent / "published_scores.yaml").read_text(encoding="utf-8"))
    return tuple(
        PublishedScore(
            entry["model"],
            entry["task"],
            effort,
            score,
            entry.get("tokens", {}).get(effort),
            entry["source"],
            entry["url"],
        )
        for entry in entries
        for effort, score in entry["scores"].items()
    )


def published(model: str, task: str) -> list[PublishedScore]:
    """Published scores of a model, under any of its names (`openai/gpt-oss-20b`, `gpt-oss:20b`), on a task."""
    name = model.lower().replace(":", "-").replace("_", "-")
    return [reference for reference in _all() if reference.task == task and reference.model in name]
