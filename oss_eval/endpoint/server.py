"""The server of a run: its endpoints, its model, and whether it is a simulator."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from oss_eval.config.task import Task
from oss_eval.endpoint.auth import Auth
from oss_eval.endpoint.discovery import SIMULATOR_URL, choose_model, find_endpoint, reach, server_header
from oss_eval.endpoint.endpoint import Endpoint, parse_url
from oss_eval.endpoint.local_model import SCHEME, LocalModel, parse_local_url, running_local
from oss_eval.errors import UsageError
from oss_eval.probe.decode_options import DecodeOptions
from oss_eval.probe.target import Target
from oss_eval.simulator.process import parse_sim_url, running
from oss_eval.simulator.profiles import SERVER


@dataclass(frozen=True, slots=True)
class Server:
    """The endpoints and the model. `simulator` is its sim:// URL when no real server is measured."""

    endpoints: tuple[Endpoint, ...]
    model: str
    simulator: str | None = None
    started: bool = False
    """Whether the simulator, or llama.cpp, is started for this run, and ends with it."""
    header: str | None = None
    """Its Server header."""
    local: LocalModel | None = None
    """The model that llama.cpp runs on this machine for the command."""

    @property
    def endpoint(self) -> Endpoint:
        """The first endpoint; there are several when servers share the load."""
        return self.endpoints[0]

    def redact(self, text: str) -> str:
        """A server's error text without any of the keys."""
        for endpoint in self.endpoints:
            text = endpoint.redact(text)
        return text

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets of all endpoints."""
        return tuple(dict.fromkeys(form for endpoint in self.endpoints for form in endpoint.secrets))

    def targets(self) -> tuple[Target, ...]:
        """Where requests go, host names resolved."""
        return tuple(endpoint.target() for endpoint in self.endpoints)

    def reading(self, task: Task, count_tokens: Callable[[str], int] | None = None) -> DecodeOptions:
        """How answers are decoded."""
        urls = tuple(endpoint.url for endpoint in self.endpoints)
        return DecodeOptions(self.endpoint.api, task.split_think, count_tokens, urls, task.max_response_bytes)


def resolve_endpoints(task: Task, auth: Auth) -> tuple[str | None, tuple[Endpoint, ...]]:
    """(simulator URL, ()) or (None, endpoints) of a task. Raises OssEvalError."""
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


def find_server(task: Task, auth: Auth) -> Server:
    """The server that a task names, or that answers on this machine, and its model.

    A simulator or a local model that has to be started has no endpoint yet, see `running_server`. Raises
    OssEvalError.
    """
    local = [url for url in task.url if url.startswith(SCHEME)]
    if local:
        if len(task.url) > 1:
            raise UsageError(f"--url names {local[0]} and something else", "a local model is asked alone")
        found = parse_local_url(local[0])
        return Server((), task.model or found.name, started=True, local=found)
    simulator, endpoints = resolve_endpoints(task, auth)
    if simulator:
        return Server((), task.model or parse_sim_url(simulator).profile.model, simulator, started=True)
    return Server(endpoints, choose_model(endpoints[0], task.model))


def connected(server: Server, timeout: float) -> Server:
    """The server, after connecting to every endpoint: to fail before data is loaded. Raises EndpointError."""
    for endpoint in server.endpoints:
        reach(endpoint, timeout)
    return server


def recognised(server: Server, timeout: float) -> Server:
    """The same, marked if its Server header says that it is this project's simulator and no real model."""
    server = connected(server, timeout)
    if server.simulator or server.local:
        return server
    return replace(server, simulator=simulator_named(server_header(server.endpoint, timeout) or ""))


@contextlib.contextmanager
def running_server(
    server: Server, api: str, truth: Path | None = None, answers: Path | None = None
) -> Iterator[Server]:
    """The server; a simulator or a local model that has to be started runs while the context is open.

    `truth` is where the simulator writes its truth log, `answers` the answer key that it reads.
    """
    if server.local is not None and not server.endpoints:
        with running_local(server.local) as url:
            yield replace(server, endpoints=(parse_url(url, api),))
        return
    if server.endpoints or server.simulator is None:
        yield server
        return
    with running(server.simulator, truth, answers) as url:
        yield replace(server, endpoints=(parse_url(url, api),))


def simulator_named(header: str) -> str | None:
    """The sim:// URL in the Server header of our simulator; None for any other server."""
    return f"sim://{header.removeprefix(SERVER)}" if header.startswith(SERVER) else None


def describe_server(server: Server, named: bool) -> str:
    """A line that names the server; `named`: whether the user gave its URL."""
    if server.simulator:
        why = "" if named else "no server answers on the usual local ports: "
        return f"{why}SIMULATED by {server.simulator}, no model is run"
    if server.local is not None:
        return f"{server.local.url}: {server.model} on {server.local.description}"
    found = f" (found: {server.endpoint.found})" if server.endpoint.found else ""
    urls = " ".join(endpoint.url for endpoint in server.endpoints)
    return f"endpoint {urls}{found}, {server.endpoint.api} API, model {server.model}"
