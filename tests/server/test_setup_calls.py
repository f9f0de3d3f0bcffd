"""Set-up calls to servers that dribble, redirect elsewhere, nest, or list without end."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import trustme

from oss_eval.endpoint.auth import Auth
from oss_eval.endpoint.discovery import choose_model, models
from oss_eval.endpoint.endpoint import Endpoint, parse_url
from oss_eval.endpoint.identify import identify
from oss_eval.errors import EndpointError
from tests.helpers.scripted_server import CLOSE, ScriptedServer, Step, json_reply


def endpoint_of(server: ScriptedServer, auth: Auth | None = None) -> Endpoint:
    return parse_url(server.url, "chat", auth or Auth(key="k"))


DRIBBLES: dict[str, list[Step]] = {
    "status line": [step for byte in b"HTTP/1.1 200 OK" for step in (bytes([byte]), 0.3)],
    "header": [b"HTTP/1.1 200 OK\r\nX: ", *[step for _ in range(60) for step in (b"x", 0.3)]],
    "body": [b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", *[step for _ in range(60) for step in (b"[", 0.3)]],
    "error body": [b"HTTP/1.1 500 No\r\nContent-Length: 1000\r\n\r\n", *[step for _ in range(60) for step in (b"[", 0.3)]],
    "chunks": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
               *[step for _ in range(60) for step in (b"1\r\n \r\n", 0.3)]],
}  # fmt: skip


@pytest.mark.parametrize("steps", DRIBBLES.values(), ids=DRIBBLES)
def test_a_call_ends_when_its_time_is_over(steps: list[Step]) -> None:
    with ScriptedServer(lambda number, request: steps) as server:
        begun = time.monotonic()
        with pytest.raises(EndpointError, match="within 1 s: no answer in time"):
            models(endpoint_of(server), 1.0)
        assert time.monotonic() - begun < 2.0


def test_a_tls_server_that_dribbles(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with ScriptedServer(lambda number, request: DRIBBLES["body"], context) as server:
        endpoint = parse_url(
            server.url.replace("http://", "https://"), "chat", Auth(ca_bundle=str(tmp_path / "ca.pem"))
        )
        begun = time.monotonic()
        with pytest.raises(EndpointError, match="no answer in time"):
            models(endpoint, 1.0)
        assert time.monotonic() - begun < 2.0


@pytest.mark.parametrize("where", ["ftp://127.0.0.1:1/x", "file:///etc/passwd", "data:,x"])
def test_a_redirect_leads_to_http_only(where: str) -> None:
    redirect = b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % where.encode()
    with ScriptedServer(lambda number, request: [redirect]) as server, pytest.raises(EndpointError):
        models(endpoint_of(server), 2.0)


def test_a_redirect_within_the_server_is_followed_with_the_key() -> None:
    def script(number: int, request: bytes) -> Sequence[Step]:
        if b"/v1/models" in request.partition(b"\r\n")[0]:
            return [b"HTTP/1.1 307 Moved\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n"]
        return [json_reply(b'{"data": [{"id": "m"}]}')]

    with ScriptedServer(script) as server:
        assert models(endpoint_of(server), 2.0) == ["m"]
        assert b"Authorization: Bearer k" in server.requests[-1]


@pytest.mark.parametrize(
    "body", [b"[" * 1_000_000, b'{"data":' * 100_000, b'{"data": [[[[', b'{"data": 5}', b"\xff\xfe"]
)
def test_a_list_that_is_none(body: bytes) -> None:
    for status in ("200 OK", "500 Internal Server Error"):
        with ScriptedServer(lambda number, request, status=status: [json_reply(body, status), CLOSE]) as server:  # type: ignore[misc]
            with pytest.raises(EndpointError):
                models(endpoint_of(server), 5.0)
            assert identify(endpoint_of(server)) is not None


def test_a_list_without_end_is_shown_in_part() -> None:
    body = json.dumps({"data": [{"id": f"model-{number}" + "x" * 300} for number in range(20_000)]}).encode()
    with (
        ScriptedServer(lambda number, request: [json_reply(body)]) as server,
        pytest.raises(EndpointError) as caught,
    ):
        choose_model(endpoint_of(server), None)
    assert len(caught.value.message) < 6000
    assert "and 19,980 more" in caught.value.message
