"""Worker processes on the nodes of a Ray cluster: each is held by an actor, which passes on what the two ends say.

The worker is the same program as on this machine. An actor starts it on its node, keeps the request files there,
and moves bytes between it and this process. Where bytes are not fetched in time the worker pauses, as it does when
the main process is slow. Ray places the actors (https://docs.ray.io/en/latest/ray-core/scheduling/index.html).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from oss_eval import __version__
from oss_eval.errors import UsageError
from oss_eval.load.workers.clock_offset import ClockOffset, clock_offset
from oss_eval.load.workers.messages import Batch, Go, Inbox, More, Prepare, Setup, encode
from oss_eval.load.workers.node_actor import CONNECT_SECONDS, NodeActor
from oss_eval.probe.target import Target
from oss_eval.system.address import is_loopback

STAMPS = (1, 2)
"""Columns of a read that are timestamps: see `probe.reads`."""
FETCHES = 2
"""Fetches that are asked for at once: one is answered while the other is on its way."""
START_SECONDS = 60.0
INSTALL = "pip install 'oss-eval[ray]' on this machine and on every node"


def _actor_class(kind: type[NodeActor]) -> Any:
    """The class of the actors; `fetch` has a thread of its own."""
    import ray

    class Node(kind):  # type: ignore[misc, valid-type]
        @ray.method(concurrency_group="data")  # type: ignore[untyped-decorator]
        def fetch(self) -> Any:
            return super().fetch()

    return ray.remote(num_cpus=1, concurrency_groups={"data": 1})(Node)


@dataclass(frozen=True, slots=True)
class RayNode:
    """Where a worker runs."""

    worker: int
    node_id: str
    host: str
    address: str
    """Its IP address, as Ray knows it."""
    cores: int
    version: str
    clock_offset_ms: float
    clock_error_ms: float
    connect_ms: float | None = None
    """Shortest TCP handshake with the server; None before the nodes have looked."""


class ClockedInbox(Inbox):
    """Messages whose timestamps are of another machine's clock, moved to ours: durations stay what they were."""

    def __init__(self, offset_ns: int) -> None:
        super().__init__()
        self._offset = offset_ns

    def feed(self, data: bytes) -> list[Any]:
        """The messages that these bytes complete."""
        found = super().feed(data)
        return [moved(message, self._offset) if isinstance(message, Batch) else message for message in found]


def moved(batch: Batch, offset_ns: int) -> Batch:
    """A batch with timestamps that are `offset_ns` earlier."""
    if not offset_ns:
        return batch
    import numpy as np

    rows = np.frombuffer(batch.rows, dtype=np.int64).reshape(-1, 5).copy()
    for column in STAMPS:
        known = rows[:, column] > 0
        rows[known, column] -= offset_ns

    def earlier(when: int | None) -> int | None:
        return None if when is None else when - offset_ns

    starts = [(tag, n, start - offset_ns, server, earlier(due)) for tag, n, start, server, due in batch.started]

    return Batch(
        starts,
        rows.tobytes(),
        batch.data,
        [
            (tag, attempt, earlier(start), end - offset_ns, kind, message, server, earlier(due))
            for tag, attempt, start, end, kind, message, server, due in batch.ended
        ],
    )  # fmt: skip


class _Exit:
    """In the place of a process: why the worker has ended."""

    def __init__(self) -> None:
        self.reason = "its actor has ended"

    def wait(self, timeout: float | None = None) -> str:
        """The reason."""
        return self.reason


class RayWorker:
    """A worker on a node, with the interface of WorkerProcess."""

    expendable = True
    """A point goes on without it."""

    def __init__(self, cluster: RayCluster, number: int, setup: Setup) -> None:
        import ray

        self._cluster, self.number = cluster, number
        self._actor, self.node, offset = cluster.actors[number]
        self._offset = offset.applied_ns
        self.inbox = ClockedInbox(self._offset)
        self.process = _Exit()
        self.socket, self._ours = socket.socketpair()
        self._scratch = Path(cluster.scratch[number])
        self._said = 0
        try:
            ray.get(self._actor.start.remote(setup))
        except ray.exceptions.RayError as error:
            raise _lost(error) from None
        self._thread = threading.Thread(target=self._pump, name=f"ray-worker-{number}", daemon=True)
        self._thread.start()

    def send(self, message: Any) -> None:
        """Hand over a message, with its files. A node that is gone is noticed when it is read from."""
        file: tuple[Any, ...] = ()
        if isinstance(message, (Prepare, More)):
            file = message.request_file.name, self._cluster.file(message.request_file)
            message = replace(message, request_file=self._scratch / message.request_file.name)
        if isinstance(message, Prepare):
            message = replace(message, counter=self._scratch / message.counter.name, own_share=True)
        if isinstance(message, Go):
            message = replace(message, start_ns=message.start_ns + self._offset)
        with contextlib.suppress(Exception):  # the actor is gone: see `_pump`
            self._actor.say.remote(self._said, encode(message), *file)
        self._said += 1

    def _pump(self) -> None:
        """Move the worker's bytes into our end of the socket pair, as fast as they are read there."""
        import ray

        pending: deque[Any] = deque()
        try:
            pending.extend(self._actor.fetch.remote() for _ in range(FETCHES))
            while (data := ray.get(pending.popleft())) is not None:
                pending.append(self._actor.fetch.remote())
                if data:
                    self._ours.sendall(data)
        except OSError:
            pass  # the run is over
        except Exception as error:  # noqa: BLE001 (whatever Ray says of a node that is gone)
            self.process.reason = f"{type(error).__name__} on {self.node.host}"
        finally:
            self._ours.close()

    def close(self, patience: float = 3.0) -> None:
        """End the worker and its actor."""
        import ray

        self.socket.close()
        with contextlib.suppress(Exception):
            ray.get(self._actor.close.remote(), timeout=patience)
        with contextlib.suppress(Exception):
            ray.kill(self._actor)


def _no_cluster(address: str, reason: str) -> UsageError:
    return UsageError(
        f"no Ray cluster at --ray-address {address}: {reason}",
        "start one (ray start --head), or name it: --ray-address HOST:6379 or ray://HOST:10001",
    )


def _check_reachable(address: str) -> None:
    """Raise UsageError if nothing listens at HOST:PORT; Ray itself tries for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return  # auto, local
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, getattr(error, "strerror", None) or str(error)) from None


def _lost(error: Exception) -> UsageError:
    return UsageError(f"a node of the cluster can't run a worker: {reason_of(error)}", INSTALL)


def reason_of(error: Exception) -> str:
    """Why a call of an actor failed, in a line: an exception there, or what Ray says of an actor that is gone."""
    cause = getattr(error, "cause", None)
    error = cause if isinstance(cause, Exception) else error
    lines = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip()[:200] if lines else ''}"


def _now(actor: Any) -> int:
    import ray

    return int(ray.get(actor.now.remote()))


class RayCluster:
    """The actors of a run."""

    def __init__(self, address: str, count: int | None, kind: type[NodeActor]) -> None:
        """Connect to the cluster at `address` (`auto`: the one of this machine) and place `count` actors, by
        default one for each node. Raises UsageError."""
        try:
            import ray
        except ImportError:
            raise UsageError("--workers ray needs Ray, which is not installed", INSTALL) from None
        _check_reachable(address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # of actors that end with the run
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address=address, log_to_driver=False, configure_logging=False, ignore_reinit_error=True)
        except Exception as error:  # noqa: BLE001 (several kinds, by version and address)
            reason = str(error).strip().partition("\n")[0][:200]
            raise _no_cluster(address, reason) from None
        finally:
            if threading.current_thread() is threading.main_thread() and handler is not None:
                signal.signal(signal.SIGTERM, handler)  # Ray's own would end the run without its summary
        # A head without CPUs, as KubeRay's, takes no worker.
        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        self.address, self.count, self._kind = address, count or max(1, len(nodes)), kind
        self.actors: list[tuple[Any, RayNode, ClockOffset]] = []
        self.scratch: list[str] = []
        self._files: dict[Path, Any] = {}
        try:
            self._place()
        except ray.exceptions.RayError as error:
            self.close()
            raise _lost(error) from None
        except BaseException:
            self.close()
            raise

    def _place(self) -> None:
        import ray

        kind = _actor_class(self._kind)
        spread = [kind.options(scheduling_strategy="SPREAD", max_restarts=0).remote(n) for n in range(self.count)]
        try:
            told = ray.get([actor.describe.remote() for actor in spread], timeout=START_SECONDS)
        except ray.exceptions.GetTimeoutError:
            for actor in spread:
                ray.kill(actor)
            cpus = ray.cluster_resources().get("CPU", 0)
            text = f"the cluster did not start {self.count} workers of 1 CPU in {START_SECONDS:.0f} s"
            raise UsageError(
                f"{text}: it has {cpus:g} CPUs",
                f"ask for fewer: --workers ray:{max(1, int(cpus) - 1)}",
            ) from None
        where = {entry["NodeID"]: entry for entry in ray.nodes()}
        for number, (actor, one) in enumerate(zip(spread, told, strict=True)):
            if one["version"] != __version__:
                text = f"{one['host']} has oss-eval {one['version']}, and this machine {__version__}"
                raise UsageError(f"{text}: their workers do not mix", INSTALL)
            offset = clock_offset(partial(_now, actor))
            node_id = ray.get(actor.node_id.remote())
            entry = where.get(node_id, {})
            node = RayNode(
                number, node_id, entry.get("NodeManagerHostname") or one["host"],
                entry.get("NodeManagerAddress", ""), one["cores"], one["version"], offset.offset_ns / 1e6,
                offset.error_ns / 1e6,
            )  # fmt: skip
            self.actors.append((actor, node, offset))
            self.scratch.append(one["scratch"])

    def look_at(self, targets: Sequence[Target]) -> None:
        """Note how far each node is from the first server. Raises UsageError for a node that can't reach it."""
        import ray

        others = [node.host for _, node, _ in self.actors if node.host != socket.gethostname()]
        local = [target.host for target in targets if is_loopback(target.host)]
        if others and local:
            raise UsageError(
                f"the server is at {local[0]}, and {others[0]} is another machine, where that is itself",
                "give --url the address that the nodes reach the server at",
            )
        addresses = list(targets[0].addresses)
        try:
            times = ray.get([actor.connect_ms.remote(addresses) for actor, _, _ in self.actors])
        except ray.exceptions.RayError as error:
            raise _lost(error) from None
        away = [node for (_, node, _), connect_ms in zip(self.actors, times, strict=True) if connect_ms is None]
        if away:
            where = f"{away[0].host} ({away[0].address})"
            raise UsageError(
                f"the node {where} can't connect to {targets[0].host}:{targets[0].port}",
                "give --url an address that every node reaches, or leave that node out",
            )
        self.actors = [
            (actor, replace(node, connect_ms=connect_ms), offset)
            for (actor, node, offset), connect_ms in zip(self.actors, times, strict=True)
        ]

    def start(self, number: int, setup: Setup) -> RayWorker:
        """Start a worker on its node. Raises UsageError."""
        if number == 0:
            self.look_at(setup.targets)
        return RayWorker(self, number, setup)

    def file(self, path: Path) -> Any:
        """A request file in Ray's object store, put there once."""
        import ray

        if path not in self._files:
            self._files[path] = ray.put(path.read_bytes())
        return self._files[path]

    def as_manifest(self) -> dict[str, Any]:
        """The manifest's `ray`."""
        return {"address": self.address, "workers": [asdict(node) for _, node, _ in self.actors]}

    def close(self) -> None:
        """Leave the cluster; it goes on without us."""
        import ray

        for actor, _, _ in self.actors:
            with contextlib.suppress(Exception):
                ray.kill(actor)
        ray.shutdown()

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
