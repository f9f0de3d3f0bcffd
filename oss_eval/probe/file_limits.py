"""How many files, and so sockets, a process may hold open."""

from __future__ import annotations

import resource

SPARE = 64
"""Files for everything except measured connections."""


def lacking(connections: int) -> int | None:
    """The hard limit, if it is too low for this many connections; else None."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return hard if hard != resource.RLIM_INFINITY and hard < connections + SPARE else None


def allow(connections: int) -> None:
    """Raise the soft limit, up to the hard one, for this many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + SPARE if hard == resource.RLIM_INFINITY else min(hard, connections + SPARE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
