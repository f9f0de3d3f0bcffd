"""What every command that makes a run shares: the order it carries out, who is asked, what came of it."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oss_eval.access import Access
from oss_eval.config import Task
from oss_eval.endpoints import SIMULATOR_URL, Endpoint, find_endpoint, parse_url, server_header
from oss_eval.errors import BrokenOff, StoreError, UsageError
from oss_eval.interrupts import Interrupts
from oss_eval.load.process import Limits
from oss_eval.load.replies import Reading
from oss_eval.probe.target import Target
from oss_eval.provenance import public_url, public_values
from oss_eval.simulate.profiles import SERVER

if TYPE_CHECKING:  # a mistake of the user's should not wait for what writes Parquet
    from oss_eval.writer import RunWriter

GRACE = 10.0
"""Below the 30 s that Kubernetes and Slurm give a process between SIGTERM and SIGKILL."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a command adds to a task: where results go, what they are called, who may ask."""

    out: Path = Path("results")
    name: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    access: Access = field(default_factory=Access)
    profile: str | None = None
    """The name of the endpoint that was chosen from endpoints.yaml."""
    prices: dict[str, float] | None = None
    """What a million tokens cost, as the profile says."""
    log_every: int | None = None
    grace: float = GRACE
    """Seconds that requests in flight get to finish after the first Ctrl-C."""


@dataclass(frozen=True, slots=True)
class Server:
    """Who will be asked. `simulator` is the sim:// URL when nobody real is."""

    endpoints: tuple[Endpoint, ...]
    model: str
    simulator: str | None = None
    started: bool = False
    """Whether the simulator is ours: started for this run, and gone with it."""
    header: str | None = None
    """What the server calls itself."""

    @property
    def endpoint(self) -> Endpoint:
        """The only one, or the first of several that share the load."""
        return self.endpoints[0]

    def hide(self, text: str) -> str:
        """A server's words without any of the keys."""
        for endpoint in self.endpoints:
            text = endpoint.hide(text)
        return text

    def targets(self) -> tuple[Target, ...]:
        """Where requests go, addresses resolved."""
        return tuple(endpoint.target() for endpoint in self.endpoints)

    def described(self, order: Order, before: dict[str, Any] | None) -> dict[str, Any]:
        """For the manifest: who was asked, how it was found, what its tokens cost.

        `before` is what a resumed run says of it: its named endpoint and prices hold where none is named now.
        """
        kept = before if before and order.profile is None else {"name": order.profile, "prices": order.prices}
        return {
            "url": self.endpoint.url, "urls": [endpoint.url for endpoint in self.endpoints],
            "name": kept.get("name"), "prices": kept.get("prices"), "api": self.endpoint.api,
            "simulated": self.simulator is not None, "simulator": self.simulator,
            "started": self.started, "server": self.header, "found": self.endpoint.found or None,
        }  # fmt: skip

    def reading(self, task: Task, count_tokens: Callable[[str], int] | None = None) -> Reading:
        """How answers are read."""
        urls = tuple(endpoint.url for endpoint in self.endpoints)
        return Reading(self.endpoint.api, task.split_think, count_tokens, urls, task.max_response_bytes)


@dataclass(frozen=True, slots=True)
class Made:
    """A stored run: where it is, and whether it `finished`, was `interrupted`, or `failed`."""

    path: Path
    status: str
    reason: str = ""
    """Why it did not finish, where there is more to say than that."""
    hurried: bool = False
    """Whether it was stopped in a hurry: rows are stored, figures were not computed."""


def stopping(in_flight: int, grace: float) -> str:
    """What the first Ctrl-C does."""
    left = f"{in_flight} {'request' if in_flight == 1 else 'requests'} in flight"
    return f"stopping: {left} may finish within {grace:g} s (--grace); Ctrl-C again gives them up"


def put_aside(writer: RunWriter) -> list[str]:
    """Lines about the damaged parts of a run that was opened again."""
    return [f"damaged, put aside, and asked for again: {name}" for name in writer.set_aside]


def go_on(path: Path) -> str:
    """What to do with a run that ended too early."""
    where = "" if path.parent == Path("results") else f" --out {shlex.quote(str(path.parent))}"
    return f"finished work is stored; go on with: oss-eval resume {path.name}{where}"


def close(
    writer: RunWriter,
    made: Made,
    interrupts: Interrupts,
    store: Callable[[Made], Made],
    held: contextlib.ExitStack,
) -> Made:
    """End a run: `store` computes and writes its figures, what it `held` is let go; how it ended. Raises BrokenOff
    when the disk refuses.

    Ctrl-C is not heeded here unless it is the second one: then rows are stored, and that is all.
    """
    with interrupts.counted():
        try:
            return _stored(writer, made, interrupts, store)
        except StoreError as error:
            with contextlib.suppress(StoreError):
                writer.leave()
            reason = error.message if made.reason in ("", error.message) else f"{made.reason}; {error.message}"
            raise BrokenOff(reason, go_on(writer.path)) from None
        finally:
            held.close()


def _stored(writer: RunWriter, made: Made, interrupts: Interrupts, store: Callable[[Made], Made]) -> Made:
    with contextlib.suppress(KeyboardInterrupt), interrupts.counted(raises_at=2):
        if interrupts.count < 2:
            return store(made)
    writer.leave()
    return replace(made, status="interrupted", reason="interrupted", hurried=True)


def whom_to_ask(task: Task, access: Access) -> tuple[str | None, tuple[Endpoint, ...]]:
    """(simulator URL, ()) or (None, endpoints). Raises OssEvalError."""
    simulators = [url for url in task.url if url.startswith("sim://")]
    if simulators:
        if len(task.url) > 1:
            raise UsageError("--url names a simulator and something else", "a simulator is asked alone")
        return simulators[0], ()
    if len(task.url) > 1:
        found = tuple(parse_url(url, task.api, access) for url in task.url)
        if len({endpoint.api for endpoint in found}) > 1:
            raise UsageError("the servers of --url are asked through different APIs", "choose one: --api chat")
        return None, found
    endpoint = find_endpoint(task.url[0] if task.url else None, task.api, access)
    return (SIMULATOR_URL, ()) if endpoint is None else (None, (endpoint,))


def simulator_behind(endpoint: Endpoint, timeout: float) -> str | None:
    """The sim:// URL of a server that calls itself our simulator: it must not be taken for a model."""
    return simulator_named(server_header(endpoint, timeout) or "")


def simulator_named(header: str) -> str | None:
    """The sim:// URL of our simulator by what it calls itself; None for any other server."""
    return f"sim://{header.removeprefix(SERVER)}" if header.startswith(SERVER) else None


def limits(task: Task, grace: float = 0.0) -> Limits:
    """How long requests of a task are waited for; `grace` is for those in flight when the run is stopped."""
    first = task.first_token_timeout if task.stream else None
    return Limits(task.connect_timeout, task.read_timeout, task.total_timeout, first, grace)


def public_task(task: Task) -> dict[str, Any]:
    """A task as the manifest holds it: URLs without what may be secret."""
    values = {**task.model_dump(mode="json"), "url": [public_url(url) for url in task.url]}
    for key in ("extra_args", "dataset_args"):
        if key in values:
            values[key] = public_values(values[key])
    if values.get("judge_url"):
        values["judge_url"] = public_url(values["judge_url"])
    return values


def introduce(server: Server, named: bool) -> str:
    """The line that says who is asked; `named` is whether the user chose."""
    if server.simulator:
        why = "" if named else "no server answers on the usual local ports: "
        return f"{why}SIMULATED by {server.simulator}, no model is run"
    found = f" (found: {server.endpoint.found})" if server.endpoint.found else ""
    urls = " ".join(endpoint.url for endpoint in server.endpoints)
    return f"endpoint {urls}{found}, {server.endpoint.api} API, model {server.model}"
