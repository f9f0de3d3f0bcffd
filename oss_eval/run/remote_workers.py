"""Workers on other machines, and what is said of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from oss_eval.analysis.checks import Finding
from oss_eval.config.task import DistributedTask

if TYPE_CHECKING:
    from oss_eval.load.workers.ray import NodeActor, RayCluster

CLOCK_MS = 5.0
"""An error of the nodes' clocks that is said."""


@contextlib.contextmanager
def cluster_of(task: DistributedTask, kind: type[NodeActor]) -> Iterator[RayCluster | None]:
    """The Ray cluster of a task, connected, with an actor of `kind` for each worker; None where its workers are on
    this machine. Raises UsageError."""
    if not task.on_ray:
        yield None
        return
    from oss_eval.load.workers.ray import RayCluster

    with RayCluster(task.ray_address, task.worker_count, kind) as cluster:
        yield cluster


def describe_cluster(cluster: RayCluster) -> str:
    """A line that names the nodes."""
    hosts: dict[str, int] = {}
    for _, node, _ in cluster.actors:
        name = f"{node.host} ({node.node_id[:6]})"
        hosts[name] = hosts.get(name, 0) + 1
    nodes = ", ".join(f"{count} on {name}" for name, count in hosts.items())
    return f"Ray cluster {cluster.address}: {cluster.count} workers, {nodes}"


def cluster_findings(manifest: dict[str, Any]) -> list[Finding]:
    """Findings of the whole run: clocks that are not known well."""
    workers = (manifest.get("ray") or {}).get("workers") or ()
    worst = max(workers, key=lambda worker: worker["clock_error_ms"], default=None)
    if worst is None or worst["clock_error_ms"] <= CLOCK_MS:
        return []
    text = f"the clock of {worst['host']} is known to within {worst['clock_error_ms']:.1f} ms"
    more = "durations of requests are exact, the time line and rates over all workers are not better than that"
    return [Finding("node_clocks", "note", f"{text}: {more}")]


def lost_workers(reasons: list[str], requests: int) -> Finding:
    """The finding of a point that went on without a worker."""
    text = "; ".join(reasons)
    return Finding(
        "lost_worker", "warn",
        f"{text}: {requests} of its requests failed, and those that it had not sent yet are missing; "
        "oss-eval resume --missing sends them",
    )  # fmt: skip
