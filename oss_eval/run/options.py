"""Options of a run that are not part of its task."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from oss_eval.config.task import Task
from oss_eval.endpoint.auth import Auth
from oss_eval.load.workers.process import Limits

GRACE = 10.0
"""Below the 30 s that Kubernetes and Slurm give a process between SIGTERM and SIGKILL."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Where results go, the names of the run, the authentication."""

    out: Path = Path("results")
    name: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    auth: Auth = field(default_factory=Auth)
    profile: str | None = None
    """Name of the endpoint from endpoints.yaml."""
    prices: dict[str, float] | None = None
    """Price of a million tokens, from the profile."""
    log_every: int | None = None
    grace: float = GRACE
    """Seconds that requests in flight get to finish after the first Ctrl-C."""


def limits(task: Task, grace: float = 0.0) -> Limits:
    """Timeouts of a task's requests; `grace` is for those in flight when the run is stopped."""
    first = task.first_token_timeout if task.stream else None
    return Limits(task.connect_timeout, task.read_timeout, task.total_timeout, first, grace)
