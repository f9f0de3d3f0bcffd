"""Errors of an endpoint: what is wrong, and what to type next."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

from oss_eval.endpoint.endpoint import Endpoint
from oss_eval.errors import AuthRefused, EndpointError
from oss_eval.probe.apis import error_text
from oss_eval.records import RequestRecord

UNREACHABLE = ("connect", "timeout_connect", "tls")
"""Error kinds of requests that could not reach the server."""


def error_body_text(error: urllib.error.HTTPError) -> str:
    """The error text in a response; empty for an HTML page."""
    try:
        payload = json.loads(error.read(4096))
    except Exception:  # noqa: BLE001 (reading it can break in as many ways as the request itself)
        return ""
    return error_text(payload.get("error", payload) if isinstance(payload, dict) else payload)


EFFORT_WORDS = ("reasoning_effort", "chat_template_kwargs", "reasoning effort", "reasoning.effort")


def unreachable(endpoint: Endpoint, reason: str, timeout: float) -> EndpointError:
    """The error for a server that can't be reached."""
    if endpoint.base.scheme == "https" and "SSL" in reason:
        return EndpointError(
            f"{endpoint.url} does not answer in TLS: {reason}",
            "if the server speaks plain HTTP, write http:// in --url",
        )
    return EndpointError(
        f"can't reach {endpoint.url} within {timeout:g} s: {reason}",
        "start the server, or correct --url; --url sim://gpt-oss-20b-h20 needs none",
    )


def not_openai(endpoint: Endpoint, reason: str) -> EndpointError:
    """The error for a server that is not OpenAI-compatible."""
    return EndpointError(
        f"{endpoint.url} is no OpenAI-compatible server: {reason}",
        "check host, port and path of --url; it usually ends in /v1",
    )


def http_error(endpoint: Endpoint, status: int, words: str) -> EndpointError:
    """The error for an HTTP error status."""
    said = f": {endpoint.redact(words)[:300]}" if words else ""
    if status in (401, 403):
        hint = "set OPENAI_API_KEY to a valid key" if not endpoint.api_key else "check the key in OPENAI_API_KEY"
        return AuthRefused(f"{endpoint.url} refused access (HTTP {status}){said}", hint)
    if 300 <= status < 400:
        return EndpointError(
            f"{endpoint.url} redirects measured requests (HTTP {status}){said}",
            "a redirect would be measured as the server's time: give --url as it is in the end",
        )
    if status in (400, 422) and any(word in words.lower() for word in EFFORT_WORDS):
        return EndpointError(
            f"{endpoint.url} does not take the effort in this way (HTTP {status}){said}",
            "try another --effort-style: chat-template (llama.cpp, SGLang), system (gpt-oss anywhere), or none",
        )
    if status == 404:
        hint = "check the path of --url (it usually ends in /v1) and --model"
        return EndpointError(f"{endpoint.url} does not know this address or model (HTTP 404){said}", hint)
    hint = "the server's own log says more" if status >= 500 else "change the request accordingly"
    return EndpointError(f"{endpoint.url} refused the request (HTTP {status}){said}", hint)


def in_words(endpoint: Endpoint, record: RequestRecord, timeout: float) -> EndpointError:
    """The error for a failed request; `timeout` is that of connections."""
    message, kind = record.error_message or "", record.error_kind or ""
    if record.http_status is not None and record.http_status != 200:
        return http_error(endpoint, record.http_status, message)
    if kind in UNREACHABLE:
        return unreachable(endpoint, message, timeout)
    if kind in ("decode", "empty"):
        return not_openai(endpoint, message)
    return EndpointError(f"{endpoint.url} failed a request ({kind}): {message}", "the server's own log says more")
