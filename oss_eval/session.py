"""What every command that makes a run shares: the order it carries out, who is asked, what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from oss_eval.endpoints import SIMULATOR_URL, Endpoint, find_endpoint


@dataclass(frozen=True, slots=True)
class Order:
    """What a command adds to a task: where results go, what they are called, who may ask."""

    out: Path = Path("results")
    name: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    api_key: str | None = field(default=None, repr=False)
    log_every: int | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """Who will be asked. `simulator` is the sim:// URL when nobody real is."""

    endpoint: Endpoint
    model: str
    simulator: str | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """A stored run: where it is, and whether it `finished`, was `interrupted`, or `failed`."""

    path: Path
    status: str


def whom_to_ask(url: str | None, api: str, api_key: str | None) -> tuple[str | None, Endpoint | None]:
    """(simulator URL, None) or (None, endpoint). Raises OssEvalError."""
    if url and url.startswith("sim://"):
        return url, None
    endpoint = find_endpoint(url, api, api_key)
    return (SIMULATOR_URL, None) if endpoint is None else (None, endpoint)


def introduce(server: Server, named: bool) -> str:
    """The line that says who is asked; `named` is whether the user chose."""
    if server.simulator:
        why = "" if named else "no server answers on the usual local ports: "
        return f"{why}SIMULATED by {server.simulator}, no model is run"
    found = f" (found: {server.endpoint.found})" if server.endpoint.found else ""
    return f"endpoint {server.endpoint.url}{found}, {server.endpoint.api} API, model {server.model}"
