"""Which server, which model: out of a URL, the environment, or what answers on this machine."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from oss_eval.access import AZURE, Access, hide
from oss_eval.errors import AccessRefused, EndpointError, OssEvalError, UsageError
from oss_eval.probe.decode import MESSAGE_BYTES
from oss_eval.probe.dialects import DIALECTS, error_text
from oss_eval.probe.target import Target, resolve
from oss_eval.provenance import PUBLIC_QUERY, public_url
from oss_eval.records import RequestRecord

LOCAL_PORTS = {"vLLM": 8000, "SGLang": 30000, "Ollama": 11434, "llama.cpp": 8080, "LM Studio": 1234}
"""The usual ports of local servers, tried in this order when no URL is given."""

SETUP_TIMEOUT = 5.0
LOCAL_TIMEOUT = 0.7

SIMULATOR_URL = "sim://gpt-oss-20b-h20"
UNREACHABLE = ("connect", "timeout_connect", "tls")
"""Kinds of failures of requests that found no server."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server as the user meant it: where its API begins, which API is asked, and how it is convinced."""

    base: SplitResult
    """Scheme, host and path up to and including `/v1`, or what stands for it."""
    api: str
    """A name of `dialects.DIALECTS`."""
    found: str = ""
    """How the endpoint was found, when the user did not name it: `vLLM's usual port`, `OPENAI_BASE_URL`."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Keys and whatever else the user wants sent; never shown."""
    access: Access = field(default=Access(), repr=False)

    @property
    def url(self) -> str:
        """The base URL as it may be shown and stored: without user name and password."""
        return f"{self.base.scheme}://{_location(self.base)}{self.base.path}"

    @property
    def root(self) -> str:
        """The server itself, where versions and properties are asked for."""
        return f"{self.base.scheme}://{_location(self.base)}{self._server_path()}"

    @property
    def port(self) -> int:
        """The one given, or the scheme's."""
        return self.base.port or (443 if self.base.scheme == "https" else 80)

    def at(self, path: str) -> str:
        """The address of something below the base, the user's query string kept."""
        return f"{self.url}{path}{self.query}"

    @property
    def query(self) -> str:
        """`?api-version=...` as the user gave it; empty without one."""
        return f"?{self.base.query}" if self.base.query else ""

    @property
    def api_key(self) -> str | None:
        """The key alone, for clients that make their own header of it."""
        return next((value.removeprefix("Bearer ") for name, value in self.headers if name in KEY_HEADERS), None)

    @property
    def deployment(self) -> str | None:
        """The model that an Azure OpenAI deployment's URL names."""
        match = re.search(r"/openai/deployments/([^/]+)", self.base.path)
        return match.group(1) if match else None

    def hide(self, text: str) -> str:
        """A server's words without the key, which some repeat; at most MESSAGE_BYTES of them."""
        query = tuple(("", value) for name, value in parse_qsl(self.base.query) if name not in PUBLIC_QUERY)
        shown = hide(text, (*self.headers, *query)).encode("utf-8", "replace")[:MESSAGE_BYTES]
        return shown.decode("utf-8", "ignore")

    def target(self) -> Target:
        """The measured request's destination, addresses resolved."""
        host = self.base.hostname or ""
        below = DIALECTS[self.api].path
        below = below.removeprefix("/v1") if below.startswith("/v1/") else below
        path = (self.base.path if DIALECTS[self.api].path.startswith("/v1/") else self._server_path()) + below
        where = (host, self.port, self.base.scheme == "https", path + self.query)
        return Target(*where, self.headers, resolve(host, self.port), self.access.ca_bundle, self.access.insecure)

    def _server_path(self) -> str:
        return self.base.path.removesuffix("/v1")


KEY_HEADERS = ("Authorization", "api-key")
SUFFIXES = {
    "/chat/completions": "chat", "/completions": "completions", "/responses": "responses", "/api/chat": "ollama",
    "/api/generate": "ollama-generate",
}  # fmt: skip
"""How a full path to an API ends."""


def _location(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def parse_url(url: str, api: str, access: Access = Access(), found: str = "") -> Endpoint:  # noqa: B008 (frozen)
    """An Endpoint out of any usual spelling: host root, `/v1`, or a full path to one of the APIs.

    `api` is a dialect's name, or `openai` to follow the URL's path (chat when it names none). The query string is
    kept, as Azure's `api-version` needs. Raises UsageError for what is no http(s) URL.
    """
    text = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(text.strip())
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        port_ok, parts = False, urlsplit("")
    if not text.isascii() or not port_ok or parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            f"--url {public_url(url)!r} is no usable address",
            "give one like http://127.0.0.1:8000/v1, or sim://gpt-oss-20b-h20 for the simulator",
        )
    path = parts.path.rstrip("/")
    suffix = next((suffix for suffix in SUFFIXES if path.endswith(suffix)), None)
    named = SUFFIXES[suffix] if suffix else None
    if suffix:
        path = path.removesuffix(suffix)
    if api != "openai" and named and named != api:
        raise UsageError(
            f"--api {api} contradicts --url {public_url(url)}, which names {suffix}",
            f"leave out one of them, or end the URL in {next(s for s, name in SUFFIXES.items() if name == api)}",
        )
    azure = parts.hostname.endswith(AZURE)
    if azure and path in ("", "/openai") and not suffix:
        path = "/openai/v1"
    elif (not path and not suffix) or (path == "/api" and api.startswith("ollama")):
        path = "/v1"
    chosen = api if api != "openai" else (named or "chat")
    if parts.scheme == "https":
        access.tls_context()  # a bundle that can't be read is said now
    return Endpoint(parts._replace(path=path, fragment=""), chosen, found, access.for_host(parts.hostname), access)


def find_endpoint(url: str | None, api: str, access: Access) -> Endpoint | None:
    """The endpoint to measure: the URL given, OPENAI_BASE_URL or AZURE_OPENAI_ENDPOINT, else what answers here.

    None when nothing answers on the usual local ports. Raises EndpointError when several do.
    """
    if url:
        return parse_url(url, api, access)
    for name in ("OPENAI_BASE_URL", "AZURE_OPENAI_ENDPOINT"):
        if os.environ.get(name):
            return parse_url(os.environ[name], api, access, name)
    candidates = [
        parse_url(f"http://127.0.0.1:{port}/v1", api, access, f"{name}'s usual port")
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
    """Whether something that looks like an OpenAI-compatible server listens there; a 401 counts as one."""
    try:
        models(endpoint, LOCAL_TIMEOUT)
    except AccessRefused:
        return True
    except EndpointError:
        return False
    return True


def reach(endpoint: Endpoint, timeout: float) -> None:
    """Raise EndpointError if nothing takes connections there: before data is loaded, not after."""
    host = endpoint.base.hostname or ""
    try:
        with socket.create_connection((host, endpoint.port), timeout) as plain:
            if endpoint.base.scheme == "https":
                endpoint.access.tls_context().wrap_socket(plain, server_hostname=host).close()
    except OSError as error:
        raise unreachable(endpoint, _reason(error), timeout) from None


def server_header(endpoint: Endpoint, timeout: float) -> str | None:
    """What the server calls itself, asked by a call that costs it nothing; None when it does not say."""
    try:
        return get(endpoint, endpoint.at("/models"), timeout).headers.get("server") or None
    except urllib.error.HTTPError as error:
        return str(error.headers.get("Server") or "") or None
    except Exception:  # noqa: BLE001 (whatever is wrong will be said by the first question)
        return None


def choose_model(endpoint: Endpoint, wanted: str | None) -> str:
    """The model to ask: the one wanted, or the only one served. Raises EndpointError listing several."""
    if wanted or endpoint.deployment:
        return wanted or str(endpoint.deployment)
    served = models(endpoint, SETUP_TIMEOUT)
    if len(served) == 1:
        return served[0]
    if not served:
        raise EndpointError(f"{endpoint.url} serves no model", "load one, or name it: --model NAME")
    listed = "\n".join(f"  {name}" for name in served)
    raise EndpointError(
        f"{endpoint.url} serves {len(served)} models:\n{listed}", f"choose one: --model {served[0]}"
    )


def models(endpoint: Endpoint, timeout: float) -> list[str]:
    """Names from `GET /models`. Raises EndpointError for a server that can't be reached or is no OpenAI one."""
    try:
        body = get(endpoint, endpoint.at("/models"), timeout).body
    except urllib.error.HTTPError as error:
        words = _own_words(error)
        if error.code in (404, 405, 501) and not words:
            raise not_openai(endpoint, f"GET /models answers HTTP {error.code}") from None
        raise http_error(endpoint, error.code, words) from None
    except OssEvalError:
        raise
    except (OSError, ValueError) as error:
        raise unreachable(endpoint, _reason(error), timeout) from None
    except Exception as error:  # noqa: BLE001 (http.client raises its own kind for what is not HTTP)
        raise not_openai(endpoint, f"its answer is not HTTP ({type(error).__name__})") from None
    try:
        data = json.loads(body)["data"]
        return [str(model["id"]) for model in data]
    except (ValueError, KeyError, TypeError):
        raise not_openai(endpoint, "GET /models did not return a list of models") from None


@dataclass(frozen=True, slots=True)
class Got:
    """An answer to a set-up call."""

    status: int
    body: bytes
    headers: dict[str, str]
    """Names in lower case."""


def get(endpoint: Endpoint, address: str, timeout: float, body: bytes | None = None) -> Got:
    """A set-up call (POST with a JSON body), without proxies; redirects are followed, with our headers on the same
    host only.

    Raises urllib's and http.client's errors.
    """
    request = urllib.request.Request(address, body)
    if body is not None:
        request.add_header("Content-Type", "application/json")
    for name, value in endpoint.headers:
        request.add_unredirected_header(name, value)
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({}), _SameHost(endpoint)]
    if endpoint.base.scheme == "https":
        handlers.append(urllib.request.HTTPSHandler(context=endpoint.access.tls_context()))
    with urllib.request.build_opener(*handlers).open(request, timeout=timeout) as response:
        body = response.read(8_000_000)
        return Got(response.status, body, {name.lower(): value for name, value in response.headers.items()})


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Redirects keep a key as long as they stay on the host that it is meant for."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """urllib: the request that follows a redirect."""
        again = super().redirect_request(req, fp, code, msg, headers, newurl)
        base, new = self._endpoint.base, urlsplit(newurl)
        if again is not None and (new.scheme, new.netloc) == (base.scheme, _location(base)):
            for name, value in self._endpoint.headers:
                again.add_unredirected_header(name, value)
        return again


def _reason(error: BaseException) -> str:
    inner = getattr(error, "reason", error)
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {inner.verify_message}"
    if isinstance(inner, socket.gaierror):
        return f"the host name is unknown ({inner.strerror})"
    if isinstance(inner, TimeoutError):
        return "no answer in time"
    return getattr(inner, "strerror", None) or str(inner)


def _own_words(error: urllib.error.HTTPError) -> str:
    """What the server says of its refusal; empty for a page instead of a JSON object."""
    try:
        payload = json.loads(error.read(4096))
    except Exception:  # noqa: BLE001 (reading it can break in as many ways as the request itself)
        return ""
    return error_text(payload.get("error", payload) if isinstance(payload, dict) else payload)


EFFORT_WORDS = ("reasoning_effort", "chat_template_kwargs", "reasoning effort", "reasoning.effort")


# -- what can be wrong with a server, in words: for set-up calls and for the first measured request alike -------


def unreachable(endpoint: Endpoint, reason: str, timeout: float) -> EndpointError:
    """Nothing listens there, or not in time."""
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
    """Something answers, in another language."""
    return EndpointError(
        f"{endpoint.url} is no OpenAI-compatible server: {reason}",
        "check host, port and path of --url; it usually ends in /v1",
    )


def http_error(endpoint: Endpoint, status: int, words: str) -> EndpointError:
    """The server refused a request."""
    said = f": {endpoint.hide(words)[:300]}" if words else ""
    if status in (401, 403):
        hint = "set OPENAI_API_KEY to a valid key" if not endpoint.api_key else "check the key in OPENAI_API_KEY"
        return AccessRefused(f"{endpoint.url} refused access (HTTP {status}){said}", hint)
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
    """Why a request failed, and what to do about it; `timeout` is how long a connection was waited for."""
    message, kind = record.error_message or "", record.error_kind or ""
    if record.http_status is not None and record.http_status != 200:
        return http_error(endpoint, record.http_status, message)
    if kind in UNREACHABLE:
        return unreachable(endpoint, message, timeout)
    if kind in ("decode", "empty"):
        return not_openai(endpoint, message)
    return EndpointError(f"{endpoint.url} failed a request ({kind}): {message}", "the server's own log says more")
