"""The `openai` and `ollama` clients as the reference of the wire.

Our requests are held to what the clients send. The simulator answers both, streamed and not, and they read in its
answers what we read.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import ollama
import pytest
from azure.core.credentials import AccessToken
from azure.identity import get_bearer_token_provider
from openai import AzureOpenAI, NotFoundError, OpenAI, OpenAIError

from oss_eval.config.task import Task, validated
from oss_eval.diagnose.connect import open_session
from oss_eval.endpoint.auth import ENTRA_SCOPE, Auth
from oss_eval.endpoint.endpoint import Endpoint, parse_url
from oss_eval.probe.apis import DIALECTS, Generation
from tests.helpers.scripted_server import LAST_CHUNK, SSE_HEAD, ScriptedServer, body_of, chunk

MESSAGES: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
SETTINGS = Generation("m", max_tokens=64, temperature=0.5, top_p=0.9, seed=7, reasoning_effort="low")


def sent(call: Callable[[str], Any]) -> bytes:
    """The request that a call of the SDK sends to a server at this address."""
    with ScriptedServer(lambda number, request: [SSE_HEAD + chunk(b"data: [DONE]\n\n") + LAST_CHUNK]) as server:
        with contextlib.suppress(OpenAIError, ValueError):  # the answer is none
            for _ in call(server.url.removesuffix("/v1")):
                pass
        [request] = server.requests
    return request


def head_of(request: bytes) -> tuple[str, dict[str, str]]:
    """(request target, headers in lower case)."""
    first, *lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return first.split()[1], headers


@contextlib.contextmanager
def ollama_client(root: str) -> Iterator[ollama.Client]:
    client = ollama.Client(root)
    try:
        yield client
    finally:
        client._client.close()  # it has no other way


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


class Credential:
    """An identity of a test: one token, for one scope."""

    def get_token(self, *scopes: str, **settings: Any) -> AccessToken:
        assert scopes == (ENTRA_SCOPE,)
        return AccessToken("token-1234", 4_000_000_000)


@pytest.mark.parametrize("entra", [False, True], ids=["key", "Entra token"])
def test_an_azure_deployment(entra: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("azure.identity.DefaultAzureCredential", Credential)
    where: list[str] = []

    def call(root: str) -> Any:
        where.append(root)
        identity: dict[str, Any] = {"api_key": "k-1234"}
        if entra:
            identity = {"azure_ad_token_provider": get_bearer_token_provider(Credential(), ENTRA_SCOPE)}
        client = AzureOpenAI(
            azure_endpoint=root, azure_deployment="d", api_version="2025-04-01-preview", max_retries=0, **identity
        )
        return client.chat.completions.create(**FIELDS)

    request = sent(call)
    # The host decides on the header and on whether a token may be sent: the local server stands for Azure's.
    headers = Auth(key=None if entra else "k-1234", entra=entra).for_host("name.openai.azure.com")
    endpoint = parse_url(f"{where[0]}/openai/deployments/d?api-version=2025-04-01-preview", "chat")
    same(request, replace(endpoint, headers=headers))


def test_azures_v1() -> None:
    where: list[str] = []

    def call(root: str) -> Any:
        where.append(root)
        return OpenAI(base_url=f"{root}/openai/v1/", api_key="k-1234", max_retries=0).chat.completions.create(
            **FIELDS
        )

    request = sent(call)
    same(request, parse_url(f"{where[0]}/openai/v1", "chat", Auth(key="k-1234")))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_ollamas_chat(stream: bool) -> None:
    where: list[str] = []

    def call(root: str) -> Any:
        where.append(root)
        options = {"num_predict": 64, "temperature": 0.5, "top_p": 0.9, "seed": 7}
        with ollama_client(root) as client:
            yield from client.chat("m", MESSAGES, think="low", stream=stream, options=options)

    request = sent(call)
    endpoint, settings = parse_url(where[0], "ollama"), replace(SETTINGS, stream=stream, effort_style="think")
    target, headers, body = ours(endpoint, settings)
    their_target, theirs = head_of(request)
    assert (target, headers["content-type"]) == (their_target, theirs["content-type"])
    # The client names every field; these two are empty.
    assert body == {key: value for key, value in body_of(request).items() if value not in ([], None)}


# -- the simulator's answers ---------------------------------------------------------------------------------------

PROMPT = "How long is an answer?"


@dataclass(frozen=True)
class Read:
    """What a client reads in an answer. Tokens: prompt, completion."""

    text: str
    reasoning: str
    finish: str | None
    tokens: tuple[int | None, int | None]


def sdk_chat(root: str, model: str, limit: int, stream: bool) -> Read:
    client = OpenAI(base_url=f"{root}/v1", api_key="k", max_retries=0)
    asked: dict[str, Any] = {
        "model": model,
        "max_tokens": limit,
        "messages": [{"role": "user", "content": PROMPT}],
    }
    if not stream:
        whole = client.chat.completions.create(**asked, seed=7)
        [choice] = whole.choices
        said: Any = choice.message
        assert whole.usage is not None
        tokens = whole.usage.prompt_tokens, whole.usage.completion_tokens
        return Read(said.content or "", said.reasoning_content or "", choice.finish_reason, tokens)
    text = reasoning = ""
    finish, usage = None, None
    for piece in client.chat.completions.create(
        **asked, seed=7, stream=True, stream_options={"include_usage": True}
    ):
        usage = piece.usage or usage
        for choice in piece.choices:
            delta: Any = choice.delta
            text += delta.content or ""
            reasoning += getattr(delta, "reasoning_content", None) or ""
            finish = choice.finish_reason or finish
    assert usage is not None
    return Read(text, reasoning, finish, (usage.prompt_tokens, usage.completion_tokens))


def sdk_completions(root: str, model: str, limit: int, stream: bool) -> Read:
    client = OpenAI(base_url=f"{root}/v1", api_key="k", max_retries=0)
    asked: dict[str, Any] = {"model": model, "max_tokens": limit, "prompt": PROMPT, "seed": 7}
    if stream:
        pieces = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    else:
        pieces = [client.completions.create(**asked)]
    usage = pieces[-1].usage
    assert usage is not None
    choices = [choice for piece in pieces for choice in piece.choices]
    text, finish = "".join(choice.text for choice in choices), choices[-1].finish_reason
    return Read(text, "", finish, (usage.prompt_tokens, usage.completion_tokens))


def sdk_responses(root: str, model: str, limit: int, stream: bool) -> Read:
    client = OpenAI(base_url=f"{root}/v1", api_key="k", max_retries=0)
    asked: dict[str, Any] = {
        "model": model,
        "input": PROMPT,
        "max_output_tokens": limit,
        "extra_body": {"seed": 7},
    }
    if not stream:
        response = client.responses.create(**asked)
    elif limit < 100:
        response = list(client.responses.create(**asked, stream=True))[-1].response  # type: ignore[union-attr]
    else:
        # The helper builds the response from the events, wants each in its place and knows no incomplete ones.
        with client.responses.stream(**asked) as events:
            deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
            response = events.get_final_response()
        assert deltas == response.output_text
    reasoning = "".join(
        part.text for item in response.output if item.type == "reasoning" for part in item.content or ()
    )
    assert response.usage is not None
    assert response.usage.output_tokens_details.reasoning_tokens == len(reasoning.split())
    finish = "stop" if response.status == "completed" else "length"
    tokens = response.usage.input_tokens, response.usage.output_tokens
    return Read(response.output_text, reasoning, finish, tokens)


def ollama_chat(root: str, model: str, limit: int, stream: bool) -> Read:
    options = {"num_predict": limit, "seed": 7}
    messages = [{"role": "user", "content": PROMPT}]
    with ollama_client(root) as client:
        said = client.chat(model, messages, stream=stream, options=options)
        pieces: list[Any] = list(said) if stream else [said]
    text = "".join(piece.message.content or "" for piece in pieces)
    reasoning = "".join(piece.message.thinking or "" for piece in pieces)
    last = pieces[-1]
    assert last.done
    assert last.total_duration >= last.eval_duration >= 0
    return Read(text, reasoning, last.done_reason, (last.prompt_eval_count, last.eval_count))


def ollama_generate(root: str, model: str, limit: int, stream: bool) -> Read:
    options = {"num_predict": limit, "seed": 7}
    with ollama_client(root) as client:
        said = client.generate(model, PROMPT, stream=stream, options=options)
        pieces: list[Any] = list(said) if stream else [said]
    text = "".join(piece.response or "" for piece in pieces)
    reasoning = "".join(piece.thinking or "" for piece in pieces)
    last = pieces[-1]
    return Read(text, reasoning, last.done_reason, (last.prompt_eval_count, last.eval_count))


CLIENTS = {"chat": sdk_chat, "completions": sdk_completions, "responses": sdk_responses, "ollama": ollama_chat,
           "ollama-generate": ollama_generate}  # fmt: skip


@pytest.mark.parametrize("limit", [12, 4000], ids=["cut", "to its end"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("api", CLIENTS)
def test_clients_read_in_the_simulators_answers_what_we_read(
    api: str, stream: bool, limit: int, fast_simulator: str
) -> None:
    model, root = "gpt-oss-20b", fast_simulator.removesuffix("/v1")
    theirs = CLIENTS[api](root, model, limit, stream)
    settings: dict[str, Any] = {"seed": 7} if api != "responses" else {"extra_args": {"seed": 7}}
    task = validated(
        Task, {"url": root, "model": model, "api": api, "max_tokens": limit, "stream": stream, **settings}, "test"
    )
    with open_session(task, Auth()) as line:
        answer = line.ask(PROMPT, line.generation())
    record, reply = answer.record, answer.reply
    assert (record.status, record.error_message) == ("ok", None)
    tokens = record.prompt_tokens, record.completion_tokens
    assert Read(reply.text, reply.reasoning, record.finish_reason, tokens) == theirs
    assert theirs.finish == ("length" if limit == 12 else "stop")
    assert theirs.tokens[1] == len((theirs.reasoning + theirs.text).split())
    if stream:
        assert record.n_events == record.completion_tokens


def test_clients_list_the_simulators_model(fast_simulator: str) -> None:
    client = OpenAI(base_url=fast_simulator, api_key="k", max_retries=0)
    [model] = client.models.list().data
    assert client.models.retrieve(model.id).id == model.id
    with ollama_client(fast_simulator.removesuffix("/v1")) as native:
        [listed] = native.list().models
    assert listed.model == model.id


def test_clients_understand_the_simulators_refusals(fast_simulator: str) -> None:
    client = OpenAI(base_url=fast_simulator, api_key="k", max_retries=0)
    with pytest.raises(NotFoundError, match="does not exist"):
        client.responses.create(model="another", input="Hi")
    refused = pytest.raises(ollama.ResponseError, match="does not exist")
    with ollama_client(fast_simulator.removesuffix("/v1")) as native, refused:
        native.chat("another", MESSAGES)
