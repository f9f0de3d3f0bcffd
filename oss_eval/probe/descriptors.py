"""How many files, and so sockets, this process may hold open."""

from __future__ import annotations

import resource

SPARE = 64
"""For everything that is no measured connection."""


def allow(connections: int) -> int | None:
    """Raise the soft limit so that so many connections fit; the hard limit where it is too low, else None."""
    needed = connections + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        return hard
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return None
