"""Which server software answers, and its version."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from oss_eval.endpoint.endpoint import Endpoint
from oss_eval.endpoint.http import get

IDENTIFY_SECONDS = 3.0
LONGEST = 100
"""Characters of a label: whatever a server says of itself ends up in tables."""
LABEL_SECONDS = 1.0
"""A run that ends does not wait longer for a server to say what it is."""


PATHS = (
    ("/version", "vLLM", "version"),
    ("/get_server_info", "SGLang", "version"),
    ("/props", "llama.cpp", "build_info"),
    ("/api/version", "Ollama", "version"),
    ("/info", "TGI", "version"),
)
"""Path, the server that has it, and the key of its version."""
OWNERS = {
    "vllm": "vLLM", "sglang": "SGLang", "llamacpp": "llama.cpp", "organization_owner": "LM Studio",
    "oss-eval": "oss-eval simulator",
}  # fmt: skip
"""Values of `owned_by` in the model lists of servers."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The software of a server."""

    name: str = ""
    """`vLLM`, `SGLang`, `llama.cpp`, `Ollama`, ...; empty when it does not say."""
    version: str = ""
    how: str = ""
    """How it was identified."""


def identify(endpoint: Endpoint) -> Identity:
    """Identify a server by paths that only one kind has, or by its model list or Server header. Never raises."""
    found = _by_paths(endpoint, IDENTIFY_SECONDS)
    return found if found.name else _by_models(endpoint)


def engine_labels(endpoint: Endpoint) -> dict[str, str]:
    """The labels `engine` and `engine_version` of a server, as far as it says what it is."""
    found = _by_paths(endpoint, LABEL_SECONDS)
    if found.name == "vLLM" and (owners := _owners(endpoint)) and "vllm" not in owners:
        return {}  # other servers have a /version too
    labels = {"engine": found.name, "engine_version": found.version}
    return {key: endpoint.redact(value)[:LONGEST] for key, value in labels.items() if value}


def _owners(endpoint: Endpoint) -> set[str]:
    """`owned_by` in the model list; empty without one."""
    listed = _json(endpoint, endpoint.at("/models"), LABEL_SECONDS)
    data = listed.get("data") if isinstance(listed, dict) else None
    models = data if isinstance(data, list) else []
    return {
        str(model["owned_by"]).lower() for model in models if isinstance(model, dict) and model.get("owned_by")
    }


def _by_paths(endpoint: Endpoint, seconds: float) -> Identity:
    """Identify a server by paths that only one kind has; takes twice `seconds` at most."""
    deadline = time.monotonic() + seconds
    for path, name, key in PATHS:
        if time.monotonic() > deadline:
            break
        payload = _json(endpoint, f"{endpoint.root}{path}", seconds)
        if isinstance(payload, dict) and isinstance(payload.get(key), str):
            return Identity(name, payload[key], f"GET {path}")
    return Identity()


def _by_models(endpoint: Endpoint) -> Identity:
    """Identify by the headers and fields of the model list."""
    try:
        got = get(endpoint, endpoint.at("/models"), IDENTIFY_SECONDS)
        data = list(json.loads(got.body).get("data") or [])
    except Exception:  # noqa: BLE001 (a server that does not say who it is)
        return Identity()
    owners = {str(model.get("owned_by", "")).lower() for model in data if isinstance(model, dict)}
    if "x-litellm-version" in got.headers:
        return Identity("LiteLLM", got.headers["x-litellm-version"], "header x-litellm-version")
    for owner, name in OWNERS.items():
        if owner in owners:
            return Identity(name, "", "owned_by in /models")
    server = got.headers.get("server", "")
    if server.partition("/")[0].lower() in ("uvicorn", "hypercorn", "nginx", "cloudflare", "envoy"):
        return Identity("", "", f"it does not say, behind {server}")
    return Identity(server.partition("/")[0], server.partition("/")[2], "Server header") if server else Identity()


def _json(endpoint: Endpoint, address: str, seconds: float) -> Any:
    try:
        return json.loads(get(endpoint, address, seconds).body)
    except Exception:  # noqa: BLE001 (whatever it is, it is no such server)
        return None
