"""Tasks, grids, endpoints and prompts: everything that is decided before a request is sent."""

from __future__ import annotations

import pytest

from oss_eval.endpoint.auth import Auth
from oss_eval.endpoint.discovery import choose_model, find_endpoint
from oss_eval.endpoint.endpoint import parse_url
from oss_eval.errors import AuthRefused, EndpointError
from tests.helpers.scripted_server import MODELS, ScriptedServer, answering, json_reply


def test_local_servers_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        ScriptedServer(answering()) as one,
        ScriptedServer(lambda n, r: [json_reply(b"{}", "401 Unauthorized")]) as two,
        ScriptedServer(lambda n, r: [json_reply(b"<html>")]) as web,
        ScriptedServer(lambda n, r: [b"SSH-2.0\r\n"]) as ssh,
    ):
        ports = {"vLLM": one.port, "web": web.port, "ssh": ssh.port, "Ollama": 1}
        monkeypatch.setattr("oss_eval.endpoint.discovery.LOCAL_PORTS", ports)
        found = find_endpoint(None, "openai", Auth())
        assert (found.url, found.found) == (one.url, "vLLM's usual port")
        monkeypatch.setattr("oss_eval.endpoint.discovery.LOCAL_PORTS", {**ports, "SGLang": two.port})
        with pytest.raises(EndpointError, match="several servers") as several:
            find_endpoint(None, "openai", Auth())
        assert one.url in several.value.message
        assert two.url in several.value.message
        monkeypatch.setattr("oss_eval.endpoint.discovery.LOCAL_PORTS", {"web": web.port})
        assert find_endpoint(None, "openai", Auth()) is None


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (json_reply(b'{"data":[{"id":"a"},{"id":"b"}]}'), EndpointError, "serves 2 models:\n  a\n  b"),
        (json_reply(b'{"data":[]}'), EndpointError, "serves no model"),
        (json_reply(b'{"error":{"message":"bad key"}}', "401 Unauthorized"), AuthRefused, "HTTP 401): bad key"),
        (json_reply(b'{"error":{"message":"nothing"}}', "404 Not Found"), EndpointError, "HTTP 404): nothing"),
        (json_reply(b"<html>", "404 Not Found"), EndpointError, "no OpenAI-compatible server"),
        (json_reply(b"{}", "500 Internal Server Error"), EndpointError, "HTTP 500"),
        (json_reply(b"[1]"), EndpointError, "did not return a list of models"),
        (b"SSH-2.0-OpenSSH\r\n", EndpointError, "not HTTP"),
    ],
)
def test_what_model_listing_can_meet(reply: bytes, kind: type[EndpointError], words: str) -> None:
    with ScriptedServer(lambda n, r: [reply, "close"]) as server, pytest.raises(kind) as error:
        choose_model(parse_url(server.url, "openai"), None)
    assert words in error.value.message
    assert error.value.hint


def test_the_only_model_is_taken() -> None:
    with ScriptedServer(lambda n, r: [MODELS]) as server:
        assert choose_model(parse_url(server.url, "openai"), None) == "m"
