"""How many files, and so sockets, a process may hold open."""

from __future__ import annotations

import resource

SPARE = 64
"""For everything that is no measured connection."""


def lacking(connections: int) -> int | None:
    """The hard limit, if so many connections do not fit under it; else None."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return hard if hard != resource.RLIM_INFINITY and hard < connections + SPARE else None


def allow(connections: int) -> None:
    """Raise the soft limit, as far as the hard one allows, so that so many connections fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + SPARE if hard == resource.RLIM_INFINITY else min(hard, connections + SPARE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
