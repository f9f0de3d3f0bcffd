"""Finding a server that answers, and the model that it serves."""

from __future__ import annotations

import json
import os
import socket
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from oss_eval.endpoint.auth import Auth
from oss_eval.endpoint.endpoint import Endpoint, parse_url
from oss_eval.endpoint.http import failure_reason, get
from oss_eval.endpoint.messages import (
    error_body_text,
    http_error,
    not_openai,
    unreachable,
)
from oss_eval.errors import AuthRefused, EndpointError, OssEvalError

LOCAL_PORTS = {"vLLM": 8000, "SGLang": 30000, "Ollama": 11434, "llama.cpp": 8080, "LM Studio": 1234}
"""Default ports of local servers, tried in this order when no URL is given."""


SETUP_TIMEOUT = 5.0


LOCAL_TIMEOUT = 0.7


LISTED, LONGEST_NAME = 20, 200
"""Models that a message lists, and characters of a name in it."""


SIMULATOR_URL = "sim://gpt-oss-20b-h20"


def find_endpoint(url: str | None, api: str, auth: Auth) -> Endpoint | None:
    """The endpoint to measure: the given URL, OPENAI_BASE_URL or AZURE_OPENAI_ENDPOINT, else the server on a usual
    local port.

    None when no local server answers. Raises EndpointError when several do.
    """
    if url:
        return parse_url(url, api, auth)
    for name in ("OPENAI_BASE_URL", "AZURE_OPENAI_ENDPOINT"):
        if os.environ.get(name):
            return parse_url(os.environ[name], api, auth, name)
    candidates = [
        parse_url(f"http://127.0.0.1:{port}/v1", api, auth, f"{name}'s usual port")
        for name, port in LOCAL_PORTS.items()
    ]
    with ThreadPoolExecutor(len(candidates)) as pool:
        answering = [c for c, answers in zip(candidates, pool.map(_answers, candidates), strict=True) if answers]
    if len(answering) > 1:
        listed = "\n".join(f"  {endpoint.url}  ({endpoint.found})" for endpoint in answering)
        raise EndpointError(
            f"several servers answer on this machine:\n{listed}", f"choose one: --url {answering[0].url}"
        )
    return answering[0] if answering else None


def _answers(endpoint: Endpoint) -> bool:
    """Whether an OpenAI-compatible server listens there; HTTP 401 counts too."""
    try:
        models(endpoint, LOCAL_TIMEOUT)
    except AuthRefused:
        return True
    except EndpointError:
        return False
    return True


def reach(endpoint: Endpoint, timeout: float) -> None:
    """Raise EndpointError if no server accepts connections there."""
    host = endpoint.base.hostname or ""
    try:
        with socket.create_connection((host, endpoint.port), timeout) as plain:
            if endpoint.base.scheme == "https":
                endpoint.auth.tls_context().wrap_socket(plain, server_hostname=host).close()
    except OSError as error:
        raise unreachable(endpoint, failure_reason(error), timeout) from None


def server_header(endpoint: Endpoint, timeout: float) -> str | None:
    """The Server header of `GET /models`; None without one."""
    try:
        return get(endpoint, endpoint.at("/models"), timeout).headers.get("server") or None
    except urllib.error.HTTPError as error:
        return str(error.headers.get("Server") or "") or None
    except Exception:  # noqa: BLE001 (whatever is wrong will be said by the first question)
        return None


def choose_model(endpoint: Endpoint, wanted: str | None) -> str:
    """The model to measure: the one wanted, or the only one served. Raises EndpointError that lists several."""
    if wanted or endpoint.deployment:
        return wanted or str(endpoint.deployment)
    served = models(endpoint, SETUP_TIMEOUT)
    if len(served) == 1:
        return served[0]
    if not served:
        raise EndpointError(f"{endpoint.url} serves no model", "load one, or name it: --model NAME")
    names = [f"  {name[:LONGEST_NAME]}" for name in served[:LISTED]]
    if len(served) > LISTED:
        names.append(f"  and {len(served) - LISTED:,} more")
    raise EndpointError(
        "\n".join([f"{endpoint.url} serves {len(served):,} models:", *names]),
        f"choose one: --model {served[0][:LONGEST_NAME]}",
    )


def models(endpoint: Endpoint, timeout: float) -> list[str]:
    """Model names from `GET /models`. Raises EndpointError for a server that can't be reached or is not
    OpenAI-compatible."""
    try:
        body = get(endpoint, endpoint.at("/models"), timeout).body
    except urllib.error.HTTPError as error:
        words = error_body_text(error)
        if error.code in (404, 405, 501) and not words:
            raise not_openai(endpoint, f"GET /models answers HTTP {error.code}") from None
        raise http_error(endpoint, error.code, words) from None
    except OssEvalError:
        raise
    except (OSError, ValueError) as error:
        raise unreachable(endpoint, failure_reason(error), timeout) from None
    except Exception as error:  # noqa: BLE001 (http.client raises its own kind for what is not HTTP)
        raise not_openai(endpoint, f"its answer is not HTTP ({type(error).__name__})") from None
    found = model_names(body)
    if found is None:
        raise not_openai(endpoint, "GET /models did not return a list of models")
    return found


def model_names(body: bytes) -> list[str] | None:
    """The names in the body of a response to `GET /models`; None for what is no list of models."""
    try:
        return [str(model["id"]) for model in json.loads(body)["data"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
