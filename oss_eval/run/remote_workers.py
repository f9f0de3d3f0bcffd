"""Workers on other machines, and what is said of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from statistics import median
from typing import TYPE_CHECKING, Any

from oss_eval.analysis.checks import Finding
from oss_eval.analysis.slow_workers import slow_workers
from oss_eval.config.task import DistributedTask

if TYPE_CHECKING:
    from oss_eval.load.workers.node_actor import NodeActor
    from oss_eval.load.workers.ray import RayCluster
    from oss_eval.results.writer import RunWriter

CLOCK_MS = 5.0
"""An error of the nodes' clocks that is said."""
FAR, FAR_MS = 2.0, 1.0
"""A node is far from the server if a handshake takes this many times the others' median, and so much more."""


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
    """Findings of the whole run: clocks that are not known well, and nodes that are far from the server."""
    workers = (manifest.get("ray") or {}).get("workers") or ()
    found = []
    worst = max(workers, key=lambda worker: worker["clock_error_ms"], default=None)
    if worst is not None and worst["clock_error_ms"] > CLOCK_MS:
        text = f"the clock of {worst['host']} is known to within {worst['clock_error_ms']:.1f} ms"
        more = "durations of requests are exact, the time line and rates over all workers are not better than that"
        found.append(Finding("node_clocks", "note", f"{text}: {more}"))
    for worker in workers:
        others = [one.get("connect_ms") for one in workers if one is not worker]
        known = [value for value in others if value is not None]
        own = worker.get("connect_ms")
        if own is not None and known and own > FAR * median(known) + FAR_MS:
            text = f"worker {worker['worker']} on {worker['host']} is {own:.1f} ms from the server, the others"
            text += f" {median(known):.1f} ms: the TTFT of its requests is longer by that"
            found.append(Finding("slow_node", "warn", text))
    return found


def worker_findings(
    run: RunWriter, point_id: str, cluster: RayCluster | None, lost: list[str] | None = None, failed: int = 0
) -> list[Finding]:
    """Findings of a point about single workers of this session: slow ones, and those that it went on without, for
    the reasons `lost`, with `failed` requests."""
    found = []
    if cluster is not None:
        workers = [(node.worker, node.host) for _, node, _ in cluster.actors]
        several = len(run.manifest["endpoint"].get("urls") or ()) > 1
        found = slow_workers(run.path, point_id, run.session, workers, several)
    if lost:
        text = (
            f"{'; '.join(lost)}: {failed} of its requests failed, and those that it had not sent yet are missing"
        )
        found.append(Finding("lost_worker", "warn", f"{text}; oss-eval resume --missing sends them"))
    return found
