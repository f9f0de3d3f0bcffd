"""What a command adds to a task."""

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
    """What a command adds to a task: where results go, what they are called, who may ask."""

    out: Path = Path("results")
    name: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    auth: Auth = field(default_factory=Auth)
    profile: str | None = None
    """The name of the endpoint that was chosen from endpoints.yaml."""
    prices: dict[str, float] | None = None
    """What a million tokens cost, as the profile says."""
    log_every: int | None = None
    grace: float = GRACE
    """Seconds that requests in flight get to finish after the first Ctrl-C."""


def limits(task: Task, grace: float = 0.0) -> Limits:
    """How long requests of a task are waited for; `grace` is for those in flight when the run is stopped."""
    first = task.first_token_timeout if task.stream else None
    return Limits(task.connect_timeout, task.read_timeout, task.total_timeout, first, grace)
