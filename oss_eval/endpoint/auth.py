"""Authentication: keys, headers and certificates, from flags, the environment or a file of named endpoints.

None of it is ever stored or shown; `Endpoint.secrets` is removed from what a server says.
"""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass, field

from oss_eval.errors import UsageError

AZURE = tuple(
    f".{service}.{cloud}"
    for service in ("openai", "cognitiveservices", "services.ai", "models.ai")
    for cloud in ("azure.com", "azure.us", "azure.cn")
)
"""Host suffixes of Azure's AI services. Not .azure.com as a whole, where anybody can have a machine."""
OWN_HEADERS = frozenset(
    "host content-length transfer-encoding content-type connection te trailer upgrade keep-alive expect".split()
)
"""Headers that frame a request, or that the probe writes itself."""
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header's name: RFC 9110, section 5.6.2."""
ENTRA_SCOPE = "https://cognitiveservices.azure.com/.default"


@dataclass(frozen=True, slots=True)
class Auth:
    """Keys, headers and certificates for a server."""

    key: str | None = field(default=None, repr=False)
    key_header: str | None = None
    """Header of the key; None: `api-key` on Azure, else `Authorization: Bearer`."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    entra: bool = False
    """Use a Microsoft Entra ID token instead of a key."""
    ca_bundle: str | None = None
    insecure: bool = False

    def for_host(self, host: str) -> tuple[tuple[str, str], ...]:
        """Headers for a host. Raises UsageError for values that no header can hold."""
        azure = host.endswith(AZURE)
        names = ("AZURE_OPENAI_API_KEY", "OPENAI_API_KEY") if azure else ("OPENAI_API_KEY",)
        key = self.key or next((os.environ[name] for name in names if os.environ.get(name)), None)
        key = key.strip() if key else None
        found: list[tuple[str, str]] = []
        if self.entra:
            if not azure:
                raise UsageError(
                    f"--entra: {host} is none of Azure's AI services", "a key is sent with OPENAI_API_KEY"
                )
            found.append(("Authorization", f"Bearer {entra_token()}"))
        elif key:
            header = self.key_header or ("api-key" if azure else "Authorization")
            found.append((header, f"Bearer {key}" if header.lower() == "authorization" else key))
        for name, value in self.headers:  # explicit headers win, the last one over the first
            found = [(other, old) for other, old in found if other.lower() != name.lower()] + [(name, value)]
        for name, value in found:
            if name.lower() in OWN_HEADERS:
                raise UsageError(f"the header {name} belongs to the request itself", "leave it out")
            if not _TOKEN.fullmatch(name):
                raise UsageError(
                    f"{name[:60]!r} is no name of a header", "names hold letters, digits and - only: X-Team"
                )
            if not (value.isascii() and value.isprintable()):
                raise UsageError(
                    "the API key holds characters that no HTTP header can"
                    if name in ("Authorization", "api-key", self.key_header)
                    else f"the header {name} holds characters that no HTTP header can",
                    "check the variable it comes from",
                )
        return tuple(found)

    def tls_context(self) -> ssl.SSLContext:
        """The TLS context with the trusted certificates. Raises UsageError for a bundle that can't be read."""
        try:
            context = ssl.create_default_context(cafile=self.ca_bundle)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"--ca-bundle {self.ca_bundle}: {error.strerror or error}") from None
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def entra_token() -> str:
    """A token for Azure's AI services, from any identity of this machine. Raises UsageError."""
    try:
        from azure.core.exceptions import ClientAuthenticationError
        from azure.identity import DefaultAzureCredential
    except ImportError:
        raise UsageError("--entra needs the package azure-identity", "pip install 'oss-eval[azure]'") from None
    try:
        return str(DefaultAzureCredential().get_token(ENTRA_SCOPE).token)
    except ClientAuthenticationError as error:
        raise UsageError(f"no identity for Azure: {str(error).splitlines()[0]}", "az login signs you in") from None


def header(text: str) -> tuple[str, str]:
    """(name, value) of `--header 'K: V'`; a value that is $NAME comes from the environment. Raises UsageError."""
    name, colon, value = text.partition(":")
    if not colon:
        raise UsageError("a --header is not NAME: VALUE", "for example: --header 'X-Team: $TEAM'")
    return named_header(name.strip(" "), value)


def named_header(name: str, value: str) -> tuple[str, str]:
    """The same with name and value apart. Raises UsageError."""
    if not _TOKEN.fullmatch(name):
        raise UsageError(
            f"--header: {name[:60]!r} is no name of a header", "for example: --header 'X-Team: $TEAM'"
        )
    value = value.strip()
    if value.startswith("$"):
        if value[1:] not in os.environ:
            raise UsageError(f"--header {name}: there is no environment variable {value[1:]}")
        value = os.environ[value[1:]]
    return name, value
