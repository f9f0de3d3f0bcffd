"""Titles and order of points."""

from __future__ import annotations

RANKS = {None: -1, "none": 0, "minimal": 1, "low": 2, "medium": 3, "high": 4, "xhigh": 5, "max": 6}


def point_title(task: str | None, effort: str | None, parallel: int | None, workers: int | None = None) -> str:
    """The title of a point: a benchmark's by task and effort, a sweep's by effort and concurrency."""
    if parallel is None:
        return " ".join(filter(None, (task, effort)))
    return " ".join(filter(None, (effort, f"w{workers}" if workers else None, f"c{parallel}")))


def effort_rank(effort: str | None) -> tuple[int, str]:
    """Position of an effort; unknown ones last."""
    return RANKS.get(effort, 9), effort or ""
