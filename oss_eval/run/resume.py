"""Resuming a stored run of any kind: its task, and the server that may continue it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from typing import Any, TypeVar

from oss_eval.config.perf_task import PerfTask
from oss_eval.config.task import Task, validated
from oss_eval.endpoint.discovery import models
from oss_eval.endpoint.endpoint import Endpoint
from oss_eval.endpoint.server import Server
from oss_eval.errors import EndpointError, UsageError
from oss_eval.load.prompts.prompts import read_prompt
from oss_eval.simulator.process import parse_sim_url

T = TypeVar("T", bound=Task)

MASKED = ("url", "judge_url", "extra_args", "dataset_args")
"""Settings that are stored without their secret part."""
FREE_SETTINGS = frozenset(
    "url connect_timeout first_token_timeout read_timeout total_timeout max_response_bytes description".split()
)
"""Settings that do not change the answers: the URL and the timeouts."""


def stored_and_current_task(
    kind: type[T], manifest: dict[str, Any], stored: dict[str, Any], typed: dict[str, Any], where: str
) -> tuple[T, T]:
    """The stored task, and the same with the settings that are given now. Raises UsageError."""
    values = {key: stored[key] for key in kind.model_fields if key in stored}
    if not values.get("url"):  # it was discovered; a new search might find another server
        endpoint = manifest["endpoint"]
        started = endpoint.get("simulator") if endpoint.get("started", "started" not in endpoint) else None
        values["url"] = [started] if started else endpoint.get("urls") or [endpoint["url"]]
    values["model"] = manifest["model"]
    hidden = [key for key in MASKED if "***" in str({**values, **typed}.get(key))]
    if hidden:
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in hidden)
        raise UsageError(
            f"{manifest['run_id']} holds {flags} without its secret part", f"give {flags} again to resume it"
        )
    return validated(kind, values, where), validated(kind, {**values, **typed}, where)


def differences(before: Task, now: Task, may_change: Iterable[str]) -> list[str]:
    """Lines that say which settings differ, apart from those that may."""
    return [
        f"  {now.name}: --{key.replace('_', '-')} was {getattr(before, key)!r}, now {getattr(now, key)!r}"
        for key in type(now).model_fields
        if key not in may_change and getattr(before, key) != getattr(now, key)
    ]


def settings_differ(manifest: dict[str, Any], lines: list[str]) -> UsageError:
    """The error for settings that would mix answers that are not comparable."""
    return UsageError(
        f"{manifest['run_id']} can't be resumed with other settings: its answers would not be comparable:\n"
        + "\n".join(lines),
        "leave the flag out, or start a new run",
    )


def check_server(manifest: dict[str, Any], task: Task, server: Server) -> None:
    """Raise UsageError when the server is not like the one that answered before: a model or a simulator, the API
    and its prompts, the model."""
    _check_simulated(manifest, server.simulator is not None)
    _check_api(manifest, task, server.endpoints)
    _check_model(server, task.connect_timeout)


def _check_simulated(manifest: dict[str, Any], simulated: bool) -> None:
    """Raise UsageError rather than mix a model's answers with a simulator's."""
    before = bool(manifest["endpoint"].get("simulated"))
    if before != simulated:
        raise UsageError(
            f"the answers of {manifest['run_id']} are {'simulated' if before else 'from a real server'}, and "
            f"{'a real server' if before else 'a simulator'} would answer now",
            "name the server with --url, or start a new run",
        )


def _check_model(server: Server, timeout: float) -> None:
    """Raise UsageError when the server lists its models and the run's is not among them."""
    served: list[str] = []
    if not server.endpoints and server.simulator is not None:
        served = [parse_sim_url(server.simulator).profile.model]
    elif not server.endpoints and server.local is not None:
        served = [server.local.name]
    elif server.endpoint.deployment is None:
        with contextlib.suppress(EndpointError):
            served = models(server.endpoint, timeout)
    # gpt-oss-20b, openai/gpt-oss-20b and gpt-oss-20b:latest: a server may take names that it does not list.
    model = server.model
    if served and not any(model in name or name in model for name in served):
        raise UsageError(
            f"the run's answers are from {model!r}, and the server has {', '.join(map(repr, served[:5]))}",
            "name the server of that model with --url, or start a new run",
        )


def _check_api(manifest: dict[str, Any], task: Task, endpoints: tuple[Endpoint, ...]) -> None:
    """Raise UsageError for another API, or a prompt file that says something else now."""
    before = manifest["endpoint"].get("api")
    if endpoints and before and endpoints[0].api != before:
        raise settings_differ(manifest, [f"  the {before} API was asked, now the {endpoints[0].api} API (--url)"])
    if isinstance(task, PerfTask) and manifest.get("prompt_hash") not in (None, prompt_hash(task)):
        raise settings_differ(manifest, [f"  the prompt {task.prompt} is another one now"])


def prompt_hash(task: PerfTask) -> str | None:
    """What tells whether a prompt file is still the same one."""
    return None if task.prompt is None else hashlib.sha256(read_prompt(task.prompt).encode()).hexdigest()[:16]
