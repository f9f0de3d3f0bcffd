"""Which server, which model: out of a URL, the environment, or what answers on this machine."""

from __future__ import annotations

import json
import os
import socket
import ssl
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from oss_eval.errors import AccessRefused, EndpointError, UsageError
from oss_eval.probe.dialects import PATHS, error_text
from oss_eval.probe.target import Target, resolve

LOCAL_PORTS = {"vLLM": 8000, "SGLang": 30000, "Ollama": 11434, "llama.cpp": 8080, "LM Studio": 1234}
"""The usual ports of local servers, tried in this order when no URL is given."""

SETUP_TIMEOUT = 5.0
LOCAL_TIMEOUT = 0.7

# Measured requests connect directly, so set-up calls do too: with a proxy they would see another server.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
SIMULATOR_URL = "sim://gpt-oss-20b-h20"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server as the user meant it: where its API begins and which API is asked."""

    base: SplitResult
    """Scheme, host and path up to and including `/v1`."""
    api: str
    """`chat` or `completions`."""
    found: str = ""
    """How the endpoint was found, when the user did not name it: `vLLM's usual port`, `OPENAI_BASE_URL`."""
    api_key: str | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """The base URL as it may be shown and stored: without user name and password."""
        return f"{self.base.scheme}://{_location(self.base)}{self.base.path}"

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        """Headers that carry the key, if there is one."""
        return (("Authorization", f"Bearer {self.api_key}"),) if self.api_key else ()

    def hide(self, text: str) -> str:
        """A server's words without the key, which some repeat."""
        return text.replace(self.api_key, "***") if self.api_key else text

    def target(self) -> Target:
        """The measured request's destination, addresses resolved."""
        tls = self.base.scheme == "https"
        host, port = self.base.hostname or "", self.base.port or (443 if tls else 80)
        query = f"?{self.base.query}" if self.base.query else ""
        path = self.base.path + PATHS[self.api] + query
        return Target(host, port, tls, path, self.headers, resolve(host, port))


def _location(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def parse_url(url: str, api: str, api_key: str | None = None, found: str = "") -> Endpoint:
    """An Endpoint out of any usual spelling: host root, `/v1`, or a full path to one of the APIs.

    `api` is `chat`, `completions`, or `openai` to follow the URL's path (chat when it names none).
    Raises UsageError for what is no http(s) URL.
    """
    if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
        raise UsageError("the API key holds characters that no HTTP header can", "check OPENAI_API_KEY")
    text = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(text.strip())
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        port_ok, parts = False, urlsplit("")
    if not text.isascii() or not port_ok or parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            f"--url {url!r} is no usable address",
            "give one like http://127.0.0.1:8000/v1, or sim://gpt-oss-20b-h20 for the simulator",
        )
    path = parts.path.rstrip("/")
    named = next((name for name, suffix in PATHS.items() if path.endswith(suffix)), None)
    if named:
        path = path.removesuffix(PATHS[named])
    if api != "openai" and named and named != api:
        raise UsageError(
            f"--api {api} contradicts --url {url}, which names {PATHS[named]}",
            f"leave out one of them, or end the URL in {PATHS[api]}",
        )
    chosen = api if api != "openai" else (named or "chat")
    return Endpoint(parts._replace(path=path or "/v1", fragment=""), chosen, found, api_key)


def find_endpoint(url: str | None, api: str, api_key: str | None) -> Endpoint | None:
    """The endpoint to measure: the URL given, OPENAI_BASE_URL, or the one local server that answers.

    None when nothing answers on the usual local ports. Raises EndpointError when several do.
    """
    key = (api_key or os.environ.get("OPENAI_API_KEY") or "").strip() or None
    if url:
        return parse_url(url, api, key)
    if os.environ.get("OPENAI_BASE_URL"):
        return parse_url(os.environ["OPENAI_BASE_URL"], api, key, "OPENAI_BASE_URL")
    candidates = [
        parse_url(f"http://127.0.0.1:{port}/v1", api, key, f"{name}'s usual port")
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
    host, port = (
        endpoint.base.hostname or "",
        endpoint.base.port or (443 if endpoint.base.scheme == "https" else 80),
    )
    try:
        socket.create_connection((host, port), timeout).close()
    except OSError as error:
        raise unreachable(endpoint, _reason(error), timeout) from None


def server_header(endpoint: Endpoint, timeout: float) -> str | None:
    """What the server calls itself, asked by a call that costs it nothing; None when it does not say."""
    address = f"{endpoint.base.scheme}://{_location(endpoint.base)}{endpoint.base.path}/models"
    try:
        with _direct.open(urllib.request.Request(address, headers=dict(endpoint.headers)), timeout=timeout) as got:
            return str(got.headers.get("Server") or "") or None
    except urllib.error.HTTPError as error:
        return str(error.headers.get("Server") or "") or None
    except Exception:  # noqa: BLE001 (whatever is wrong will be said by the first question)
        return None


def choose_model(endpoint: Endpoint, wanted: str | None) -> str:
    """The model to ask: the one wanted, or the only one served. Raises EndpointError listing several."""
    if wanted:
        return wanted
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
    address = f"{endpoint.base.scheme}://{_location(endpoint.base)}{endpoint.base.path}/models"
    request = urllib.request.Request(address, headers=dict(endpoint.headers))
    try:
        with _direct.open(request, timeout=timeout) as response:
            body = response.read(8_000_000)
    except urllib.error.HTTPError as error:
        words = _own_words(error)
        if error.code in (404, 405, 501) and not words:
            raise not_openai(endpoint, f"GET /models answers HTTP {error.code}") from None
        raise http_error(endpoint, error.code, words) from None
    except (OSError, ValueError) as error:
        raise unreachable(endpoint, _reason(error), timeout) from None
    except Exception as error:  # noqa: BLE001 (http.client raises its own kind for what is not HTTP)
        raise not_openai(endpoint, f"its answer is not HTTP ({type(error).__name__})") from None
    try:
        data = json.loads(body)["data"]
        return [str(model["id"]) for model in data]
    except (ValueError, KeyError, TypeError):
        raise not_openai(endpoint, "GET /models did not return a list of models") from None


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
    return error_text(payload.get("error", payload) if isinstance(payload, dict) else payload)[:300]


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
        "start the server, or correct --url; oss-eval perf --url sim://gpt-oss-20b-h20 needs none",
    )


def not_openai(endpoint: Endpoint, reason: str) -> EndpointError:
    """Something answers, in another language."""
    return EndpointError(
        f"{endpoint.url} is no OpenAI-compatible server: {reason}",
        "check host, port and path of --url; it usually ends in /v1",
    )


def http_error(endpoint: Endpoint, status: int, words: str) -> EndpointError:
    """The server refused a request."""
    said = f": {endpoint.hide(words)}" if words else ""
    if status in (401, 403):
        hint = "set OPENAI_API_KEY to a valid key" if not endpoint.api_key else "check the key in OPENAI_API_KEY"
        return AccessRefused(f"{endpoint.url} refused access (HTTP {status}){said}", hint)
    if status == 404:
        hint = "check the path of --url (it usually ends in /v1) and --model"
        return EndpointError(f"{endpoint.url} does not know this address or model (HTTP 404){said}", hint)
    hint = "the server's own log says more" if status >= 500 else "change the request accordingly"
    return EndpointError(f"{endpoint.url} refused the request (HTTP {status}){said}", hint)
