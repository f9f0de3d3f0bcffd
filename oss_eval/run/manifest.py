"""Manifest entries that perf and bench share."""

from __future__ import annotations

from typing import Any

from oss_eval.config.task import Task
from oss_eval.endpoint.identify import engine_labels
from oss_eval.endpoint.local_model import LocalModel
from oss_eval.endpoint.server import Server
from oss_eval.probe.reads import reader_kind
from oss_eval.run.options import RunOptions
from oss_eval.system.environment import environment
from oss_eval.system.redact import public_args, public_url, public_values


def public_task(task: Task) -> dict[str, Any]:
    """A task as the manifest holds it: URLs and settings without secrets."""
    values = {**task.model_dump(mode="json"), "url": [public_url(url) for url in task.url]}
    for key, public in (("extra_args", public_args), ("dataset_args", public_values)):
        if key in values:
            values[key] = public(values[key])
    for key in ("judge_url", "server_metrics", "gpu_telemetry"):
        if values.get(key):
            values[key] = public_url(values[key])
    return values


def environment_entry() -> dict[str, Any]:
    """The manifest's `environment`: the machine, the versions, and what reads the streams."""
    return {**environment(), "reader": reader_kind()}


def labels_entry(before: dict[str, Any], server: Server, gpu: str | None = None) -> dict[str, str]:
    """The labels of a run that ends: those of its manifest `before`, and what is known and was not given: `gpu`,
    and `engine` and `engine_version` of a server that says what it is."""
    given = before.get("labels") or {}
    found: dict[str, str] = {}
    if server.local is not None:
        found = {"engine": "llama.cpp", "engine_version": server.local.version}
        gpu = f"{environment()['cpu'] or 'CPU'}, threads {server.local.threads}"
    elif server.simulator is None and "engine" not in given:
        found = engine_labels(server.endpoint)
    return {**found, **({} if gpu is None else {"gpu": gpu}), **given}


def _local_entry(model: LocalModel) -> dict[str, Any]:
    return {"url": model.url, "description": model.description, "threads": model.threads, "slots": model.slots}


def endpoint_entry(server: Server, options: RunOptions, before: dict[str, Any] | None) -> dict[str, Any]:
    """The manifest's `endpoint`: the server, how it was found, the price of its tokens.

    `before` is the entry of a resumed run: its named endpoint and prices hold when no endpoint is named now.
    """
    named = before if before and options.profile is None else {"name": options.profile, "prices": options.prices}
    return {
        "url": server.endpoint.url, "urls": [endpoint.url for endpoint in server.endpoints],
        "name": named.get("name"), "prices": named.get("prices"), "api": server.endpoint.api,
        "simulated": server.simulator is not None, "simulator": server.simulator,
        "started": server.started, "server": server.header, "found": server.endpoint.found or None,
        **({} if server.local is None else {"local": _local_entry(server.local)}),
    }  # fmt: skip
