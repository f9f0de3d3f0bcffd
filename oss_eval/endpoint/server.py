"""The server of a run: its endpoints, its model, and whether it is a simulator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from oss_eval.config.task import Task
from oss_eval.endpoint.auth import Auth
from oss_eval.endpoint.discovery import SIMULATOR_URL, find_endpoint, server_header
from oss_eval.endpoint.endpoint import Endpoint, parse_url
from oss_eval.errors import UsageError
from oss_eval.probe.decode_options import DecodeOptions
from oss_eval.probe.target import Target
from oss_eval.simulator.profiles import SERVER


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

    def redact(self, text: str) -> str:
        """A server's words without any of the keys."""
        for endpoint in self.endpoints:
            text = endpoint.redact(text)
        return text

    def targets(self) -> tuple[Target, ...]:
        """Where requests go, addresses resolved."""
        return tuple(endpoint.target() for endpoint in self.endpoints)

    def reading(self, task: Task, count_tokens: Callable[[str], int] | None = None) -> DecodeOptions:
        """How answers are read."""
        urls = tuple(endpoint.url for endpoint in self.endpoints)
        return DecodeOptions(self.endpoint.api, task.split_think, count_tokens, urls, task.max_response_bytes)


def resolve_endpoints(task: Task, auth: Auth) -> tuple[str | None, tuple[Endpoint, ...]]:
    """(simulator URL, ()) or (None, endpoints). Raises OssEvalError."""
    simulators = [url for url in task.url if url.startswith("sim://")]
    if simulators:
        if len(task.url) > 1:
            raise UsageError("--url names a simulator and something else", "a simulator is asked alone")
        return simulators[0], ()
    if len(task.url) > 1:
        found = tuple(parse_url(url, task.api, auth) for url in task.url)
        if len({endpoint.api for endpoint in found}) > 1:
            raise UsageError("the servers of --url are asked through different APIs", "choose one: --api chat")
        return None, found
    endpoint = find_endpoint(task.url[0] if task.url else None, task.api, auth)
    return (SIMULATOR_URL, ()) if endpoint is None else (None, (endpoint,))


def simulator_behind(endpoint: Endpoint, timeout: float) -> str | None:
    """The sim:// URL of a server that calls itself our simulator: it must not be taken for a model."""
    return simulator_named(server_header(endpoint, timeout) or "")


def simulator_named(header: str) -> str | None:
    """The sim:// URL of our simulator by what it calls itself; None for any other server."""
    return f"sim://{header.removeprefix(SERVER)}" if header.startswith(SERVER) else None


def describe_server(server: Server, named: bool) -> str:
    """The line that says who is asked; `named` is whether the user chose."""
    if server.simulator:
        why = "" if named else "no server answers on the usual local ports: "
        return f"{why}SIMULATED by {server.simulator}, no model is run"
    found = f" (found: {server.endpoint.found})" if server.endpoint.found else ""
    urls = " ".join(endpoint.url for endpoint in server.endpoints)
    return f"endpoint {urls}{found}, {server.endpoint.api} API, model {server.model}"
