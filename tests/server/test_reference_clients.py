"""The `openai` SDK as the reference of the wire: our requests are held to what it sends, and our simulator answers it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from openai import AzureOpenAI, OpenAI, OpenAIError

from oss_eval.endpoint.auth import Auth
from oss_eval.endpoint.endpoint import Endpoint, parse_url
from oss_eval.probe.apis import DIALECTS, Generation
from tests.helpers.scripted_server import LAST_CHUNK, SSE_HEAD, ScriptedServer, body_of, chunk

MESSAGES: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
SETTINGS = Generation("m", max_tokens=64, temperature=0.5, top_p=0.9, seed=7, reasoning_effort="low")


def sent(call: Callable[[str], Any]) -> bytes:
    """The request that a call of the SDK sends to a server at this address."""
    with ScriptedServer(lambda number, request: [SSE_HEAD + chunk(b"data: [DONE]\n\n") + LAST_CHUNK]) as server:
        with contextlib.suppress(OpenAIError):
            for _ in call(server.url.removesuffix("/v1")):
                pass
        [request] = server.requests
    return request


def head_of(request: bytes) -> tuple[str, dict[str, str]]:
    """(request target, headers in lower case)."""
    first, *lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return first.split()[1], headers


def ours(endpoint: Endpoint, settings: Generation) -> tuple[str, dict[str, str], dict[str, Any]]:
    """The same of our own request."""
    target, headers = head_of(endpoint.target().head() + b"\r\n")
    return target, headers, json.loads(json.dumps(DIALECTS[endpoint.api].body(MESSAGES, settings)))


def same(request: bytes, endpoint: Endpoint, settings: Generation = SETTINGS) -> None:
    """Hold our request to the SDK's: address, authorization, type, and each field of the body."""
    target, headers, body = ours(endpoint, settings)
    their_target, theirs = head_of(request)
    assert target == their_target
    for name in ("authorization", "api-key", "content-type"):
        assert headers.get(name) == theirs.get(name), name
    assert body == body_of(request)


FIELDS: dict[str, Any] = {
    "model": "m", "messages": MESSAGES, "max_tokens": 64, "temperature": 0.5, "top_p": 0.9, "seed": 7,
    "reasoning_effort": "low", "stream": True, "stream_options": {"include_usage": True},
}  # fmt: skip


def test_chat_completions() -> None:
    where: list[str] = []

    def call(root: str) -> Any:
        where.append(root)
        return OpenAI(base_url=f"{root}/v1", api_key="k-1234", max_retries=0).chat.completions.create(**FIELDS)

    request = sent(call)
    same(request, parse_url(f"{where[0]}/v1", "chat", Auth(key="k-1234")))


def test_max_completion_tokens_without_a_stream() -> None:
    where: list[str] = []

    def call(root: str) -> Any:
        where.append(root)
        fields = {
            key: value for key, value in FIELDS.items() if key not in ("max_tokens", "stream", "stream_options")
        }
        client = OpenAI(base_url=f"{root}/v1", api_key="k-1234", max_retries=0)
        return client.chat.completions.create(**fields, max_completion_tokens=64, stream=False)

    request = sent(call)
    settings = Generation("m", 64, None, 0.5, 0.9, 7, False, "low", limit_field="max_completion_tokens")
    same(request, parse_url(f"{where[0]}/v1", "chat", Auth(key="k-1234")), settings)


def test_completions() -> None:
    where: list[str] = []

    def call(root: str) -> Any:
        where.append(root)
        return OpenAI(base_url=f"{root}/v1", api_key="k-1234", max_retries=0).completions.create(
            model="m", prompt="Be brief.\nHi", max_tokens=64, temperature=0.5, top_p=0.9, seed=7, stream=True,
            stream_options={"include_usage": True},
        )  # fmt: skip

    request = sent(call)
    endpoint = parse_url(f"{where[0]}/v1", "completions", Auth(key="k-1234"))
    same(request, endpoint, Generation("m", 64, None, 0.5, 0.9, 7))


def test_responses() -> None:
    where: list[str] = []

    def call(root: str) -> Any:
        where.append(root)
        return OpenAI(base_url=f"{root}/v1", api_key="k-1234", max_retries=0).responses.create(
            model="m", input=MESSAGES, max_output_tokens=64, temperature=0.5, top_p=0.9, reasoning={"effort": "low"},
            stream=True,
        )  # fmt: skip

    request = sent(call)
    same(request, parse_url(f"{where[0]}/v1", "responses", Auth(key="k-1234")))


@pytest.mark.parametrize("entra", [False, True], ids=["key", "entra token"])
def test_an_azure_deployment(entra: bool) -> None:
    where: list[str] = []

    def call(root: str) -> Any:
        where.append(root)
        identity: dict[str, Any] = (
            {"azure_ad_token_provider": lambda: "token-1234"} if entra else {"api_key": "k-1234"}
        )
        client = AzureOpenAI(
            azure_endpoint=root, azure_deployment="d", api_version="2025-04-01-preview", max_retries=0, **identity
        )
        return client.chat.completions.create(**FIELDS)

    request = sent(call)
    auth = Auth(key="token-1234") if entra else Auth(key="k-1234", key_header="api-key")
    same(request, parse_url(f"{where[0]}/openai/deployments/d?api-version=2025-04-01-preview", "chat", auth))


def test_azures_v1() -> None:
    where: list[str] = []

    def call(root: str) -> Any:
        where.append(root)
        return OpenAI(base_url=f"{root}/openai/v1/", api_key="k-1234", max_retries=0).chat.completions.create(
            **FIELDS
        )

    request = sent(call)
    same(request, parse_url(f"{where[0]}/openai/v1", "chat", Auth(key="k-1234")))


def test_the_simulator_answers_the_sdk(fast_simulator: str) -> None:
    client = OpenAI(base_url=fast_simulator, api_key="k", max_retries=0)
    model = client.models.list().data[0].id
    whole = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=20)
    assert whole.usage is not None
    assert whole.usage.completion_tokens <= 20
    text, usage, finish = "", None, None
    for piece in client.chat.completions.create(
        model=model, messages=MESSAGES, max_tokens=20, stream=True, stream_options={"include_usage": True}
    ):
        usage = piece.usage or usage
        for choice in piece.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    assert usage is not None
    assert 0 < usage.completion_tokens <= 20
    assert finish in ("stop", "length")
    said = client.completions.create(model=model, prompt="Hi", max_tokens=5)
    assert said.choices[0].finish_reason in ("stop", "length")
