"""The URL of an API: parsing, paths, and the destination of requests."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from oss_eval.endpoint.auth import AZURE, Auth
from oss_eval.errors import UsageError
from oss_eval.probe.apis import DIALECTS
from oss_eval.probe.error_body import MESSAGE_BYTES
from oss_eval.probe.target import Target, resolve
from oss_eval.system.redact import PUBLIC_QUERY, looks_secret, public_path, public_url, redacted, secret_forms
from oss_eval.system.text import cut


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server: the base URL of its API, the API, and the authentication."""

    base: SplitResult
    """Scheme, host and path up to and including `/v1`, or its equivalent."""
    api: str
    """A key of `probe.apis.DIALECTS`."""
    found: str = ""
    """How the endpoint was discovered, if the user did not name it: `vLLM's usual port`, `OPENAI_BASE_URL`."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Keys and whatever else the user wants sent; never shown."""
    auth: Auth = field(default=Auth(), repr=False)

    @property
    def url(self) -> str:
        """The base URL as it is shown and stored: without user name, password and what looks like a key."""
        return f"{self.base.scheme}://{location(self.base)}{public_path(self.base.path)}"

    @property
    def base_url(self) -> str:
        """The base URL that requests are sent to."""
        return f"{self.base.scheme}://{location(self.base)}{self.base.path}"

    @property
    def root(self) -> str:
        """The root URL, for versions and properties."""
        return f"{self.base.scheme}://{location(self.base)}{self._server_path()}"

    @property
    def port(self) -> int:
        """The given port, or the scheme's."""
        return self.base.port or (443 if self.base.scheme == "https" else 80)

    def at(self, path: str) -> str:
        """The URL of a path below the base, with the user's query string."""
        return f"{self.base_url}{path}{self.query}"

    @property
    def query(self) -> str:
        """The query string of the user's URL, such as `?api-version=...`."""
        return f"?{self.base.query}" if self.base.query else ""

    @property
    def api_key(self) -> str | None:
        """The key, for clients that build their own header."""
        return next((value.removeprefix("Bearer ") for name, value in self.headers if name in KEY_HEADERS), None)

    @property
    def deployment(self) -> str | None:
        """The model that an Azure OpenAI deployment's URL names."""
        match = re.search(r"/openai/deployments/([^/]+)", self.base.path)
        return match.group(1) if match else None

    @property
    def secrets(self) -> tuple[str, ...]:
        """What is removed when a server repeats it, in every form of `secret_forms`: values of headers and of the
        query, the password, keys in the path."""
        query = [value for name, value in parse_qsl(self.base.query) if name not in PUBLIC_QUERY]
        path = [part for part in re.split("[/;]", self.base.path) if looks_secret(part)]
        password = [unquote(self.base.password)] if self.base.password else []
        return secret_forms([*(value for _, value in self.headers), *query, *path, *password])

    def redact(self, text: str) -> str:
        """A server's error text without secrets, which some servers repeat; at most MESSAGE_BYTES of it."""
        return cut(redacted(text, self.secrets), MESSAGE_BYTES)

    def target(self) -> Target:
        """The destination of the measured requests, host name resolved."""
        host = self.base.hostname or ""
        below = DIALECTS[self.api].path
        below = below.removeprefix("/v1") if below.startswith("/v1/") else below
        path = (self.base.path if DIALECTS[self.api].path.startswith("/v1/") else self._server_path()) + below
        where = (host, self.port, self.base.scheme == "https", path + self.query)
        return Target(*where, self.headers, resolve(host, self.port), self.auth.ca_bundle, self.auth.insecure)

    def _server_path(self) -> str:
        return self.base.path.removesuffix("/v1")


KEY_HEADERS = ("Authorization", "api-key")
SUFFIXES = {
    "/chat/completions": "chat", "/completions": "completions", "/responses": "responses", "/api/chat": "ollama",
    "/api/generate": "ollama-generate",
}  # fmt: skip
"""Path suffixes of the APIs."""


def location(parts: SplitResult) -> str:
    """Host and port of a URL, without user and password."""
    return parts.netloc.rpartition("@")[2]


def parse_url(url: str, api: str, auth: Auth = Auth(), found: str = "") -> Endpoint:  # noqa: B008 (frozen)
    """An Endpoint from any usual form of URL: host root, `/v1`, or the full path of an API.

    `api` is the name of an API, or `openai` to take the one in the URL's path (else chat). The query string is
    kept, as Azure's `api-version` needs. Raises UsageError for a URL that is not http or https.
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
        auth.tls_context()  # fail now for a bundle that can't be read
    return Endpoint(parts._replace(path=path, fragment=""), chosen, found, auth.for_host(parts.hostname), auth)


# -- what can be wrong with a server, in words: for set-up calls and for the first measured request alike -------
