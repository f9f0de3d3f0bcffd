"""Titles and order of points."""

from __future__ import annotations

RANKS = {None: -1, "none": 0, "minimal": 1, "low": 2, "medium": 3, "high": 4, "xhigh": 5, "max": 6}


def level_name(parallel: int | None, rate: float | None) -> str | None:
    """The load of a point: `c64` of a closed loop, `2.5/s` of an open one."""
    if rate is not None:
        return f"{rate:g}/s"
    return None if parallel is None else f"c{parallel}"


def level_text(parallel: int | None, rate: float | None) -> str:
    """The same in a sentence."""
    return f"concurrency {parallel}" if rate is None else f"{rate:g} requests/s"


def point_title(
    task: str | None,
    effort: str | None,
    parallel: int | None,
    workers: int | None = None,
    rate: float | None = None,
) -> str:
    """The title of a point: a benchmark's by task and effort, a sweep's by effort and load."""
    level = level_name(parallel, rate)
    if level is None:
        return " ".join(filter(None, (task, effort)))
    return " ".join(filter(None, (effort, f"w{workers}" if workers else None, level)))


def effort_rank(effort: str | None) -> tuple[int, str]:
    """Position of an effort; unknown ones last."""
    return RANKS.get(effort, 9), effort or ""
