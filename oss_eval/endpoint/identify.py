"""Which server software answers, and its version."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from oss_eval.endpoint.endpoint import Endpoint
from oss_eval.endpoint.http import get

IDENTIFY_SECONDS = 3.0


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
    """Identify a server by paths that only one kind has, or by its Server header. Never raises."""
    for path, name, key in (
        ("/version", "vLLM", "version"),
        ("/get_server_info", "SGLang", "version"),
        ("/props", "llama.cpp", "build_info"),
        ("/api/version", "Ollama", "version"),
        ("/info", "TGI", "version"),
    ):
        payload = _json(endpoint, f"{endpoint.root}{path}")
        if isinstance(payload, dict) and isinstance(payload.get(key), str):
            return Identity(name, payload[key], f"GET {path}")
    return _by_models(endpoint)


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


def _json(endpoint: Endpoint, address: str) -> Any:
    try:
        return json.loads(get(endpoint, address, IDENTIFY_SECONDS).body)
    except Exception:  # noqa: BLE001 (whatever it is, it is no such server)
        return None
