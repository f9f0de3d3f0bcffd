"""Servers as they really answer: bodies sent and records decoded, byte for byte; access; ask and doctor.

Shapes after the servers' documentation and sources, named beside each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from oss_eval.endpoint.auth import Auth, header
from oss_eval.endpoint.endpoint import parse_url
from oss_eval.endpoint.identify import identify
from oss_eval.endpoint.profiles import profile
from oss_eval.errors import UsageError
from oss_eval.probe.apis import DIALECTS, Delta, Generation
from oss_eval.probe.think_tags import ThinkSplitter
from oss_eval.system.redact import public_url
from tests.helpers.endpoints_helpers import (
    CONTRACTS,
    USAGE,
    last,
    once,
    piece,
    sse,
)
from tests.helpers.scripted_server import (
    LAST_CHUNK,
    SSE_HEAD,
    ScriptedServer,
    answering,
    body_of,
    chunk,
    json_reply,
)

ASKED = [{"role": "user", "content": "Hello"}]


OPENAI = {"model": "m", "max_tokens": 9, "stream": True, "stream_options": {"include_usage": True}}


SENT = {
    "chat": ("/v1/chat/completions", {**OPENAI, "messages": ASKED}),
    "completions": ("/v1/completions", {**OPENAI, "prompt": "Hello"}),
    "responses": ("/v1/responses", {"model": "m", "input": ASKED, "max_output_tokens": 9, "stream": True}),
    "ollama": ("/api/chat", {"model": "m", "messages": ASKED, "options": {"num_predict": 9}, "stream": True}),
    "ollama-generate": ("/api/generate", {"model": "m", "prompt": "Hello", "options": {"num_predict": 9}, "stream": True}),
}  # fmt: skip
"""Where `once` asks with max_tokens 9, and what."""


@pytest.mark.parametrize("name", CONTRACTS)
def test_contract(name: str) -> None:
    contract = CONTRACTS[name]
    with ScriptedServer(answering(contract.reply)) as server:
        answer = once(server, api=contract.api, max_tokens=9)
        posted = [request for request in server.requests if request.startswith(b"POST")]
    record, reply = answer.record, answer.reply
    assert (record.status, record.error_message) == ("ok", None)
    assert (reply.text, reply.reasoning) == (contract.text, contract.reasoning)
    assert record.finish_reason == contract.finish
    assert (record.completion_tokens, record.token_source) == (contract.tokens, contract.source)
    assert record.n_events == contract.events
    assert record.reasoning_tokens == contract.reasoning_tokens
    assert record.start_ns is not None
    assert record.first_token_ns is not None
    assert record.first_answer_ns is not None
    assert record.start_ns < record.first_token_ns <= record.first_answer_ns
    path, body = SENT[contract.api]
    assert posted[-1].startswith(b"POST %s HTTP/1.1\r\n" % path.encode())
    assert body_of(posted[-1]) == body


def test_servers_own_durations_are_kept() -> None:
    with ScriptedServer(answering(CONTRACTS["Ollama"].reply)) as server:
        timings = json.loads(once(server, api="ollama").record.server_timings or "{}")
    assert timings["eval_duration"] == 4289432000
    with ScriptedServer(answering(CONTRACTS["llama.cpp"].reply)) as server:
        assert json.loads(once(server).record.server_timings or "{}")["predicted_ms"] == 80.5


WHOLE = {
    "chat": {"choices": [{"message": {"role": "assistant", "content": "Hi", "reasoning": "hmm"}, "finish_reason": "stop"}],
             "usage": USAGE},
    "completions": {"choices": [{"text": "Hi", "finish_reason": "stop"}], "usage": USAGE},
    "responses": {"object": "response", "status": "completed", "usage": {"input_tokens": 7, "output_tokens": 5}, "output": [
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hmm"}]},
        {"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}]},
    "ollama": {"message": {"content": "Hi", "thinking": "hmm"}, "done": True, "done_reason": "stop", "eval_count": 5},
    "ollama-generate": {"response": "Hi", "thinking": "hmm", "done": True, "done_reason": "stop", "eval_count": 5},
}  # fmt: skip


@pytest.mark.parametrize("api", WHOLE)
def test_whole_replies(api: str) -> None:
    with ScriptedServer(answering(json_reply(json.dumps(WHOLE[api]).encode()))) as server:
        answer = once(server, api=api, stream=False)
    assert answer.record.status == "ok", answer.record
    assert (answer.reply.text, answer.record.completion_tokens, answer.record.finish_reason) == ("Hi", 5, "stop")
    assert answer.reply.reasoning == ("" if api == "completions" else "hmm")
    assert answer.record.first_token_ns is None


MESSAGE = [{"role": "user", "content": "Hello"}]


FULL = Generation("m", max_tokens=9, temperature=0.5, top_p=0.9, seed=3, reasoning_effort="high")


@pytest.mark.parametrize(
    ("api", "style", "expected"),
    [
        ("chat", "top-level", {"messages": MESSAGE, "max_tokens": 9, "seed": 3, "reasoning_effort": "high",
                               "stream_options": {"include_usage": True}}),
        ("chat", "chat-template", {"messages": MESSAGE, "chat_template_kwargs": {"reasoning_effort": "high"}}),
        ("chat", "extra-body", {"messages": MESSAGE, "extra_body": {"reasoning_effort": "high"}}),
        ("chat", "think", {"think": "high"}),
        ("chat", "system", {"messages": [{"role": "system", "content": "Reasoning: high"}, *MESSAGE]}),
        ("chat", "none", {"messages": MESSAGE}),
        ("completions", "top-level", {"prompt": "Hello", "reasoning_effort": "high"}),
        ("responses", "top-level", {"input": MESSAGE, "max_output_tokens": 9, "reasoning": {"effort": "high"}}),
        ("ollama", "think", {"messages": MESSAGE, "think": "high",
                             "options": {"num_predict": 9, "temperature": 0.5, "top_p": 0.9, "seed": 3}}),
        ("ollama-generate", "think", {"prompt": "Hello", "think": "high"}),
    ],
)  # fmt: skip
def test_bodies(api: str, style: str, expected: dict[str, Any]) -> None:
    from dataclasses import replace

    body = DIALECTS[api].body("Hello", replace(FULL, effort_style=style))
    assert {key: body.get(key) for key in expected} == expected
    assert body["model"] == "m"
    assert body["stream"] is True
    efforts = ("reasoning_effort", "chat_template_kwargs", "extra_body", "think", "reasoning")
    assert [key for key in efforts if key in body] == [key for key in efforts if key in expected]


@pytest.mark.parametrize(
    ("path", "reply", "name", "version"),
    [
        ("/version", {"version": "0.11.2"}, "vLLM", "0.11.2"),
        ("/get_server_info", {"version": "0.5.3", "model_path": "x"}, "SGLang", "0.5.3"),
        ("/props", {"build_info": "b6123-abc", "default_generation_settings": {}}, "llama.cpp", "b6123-abc"),
        ("/api/version", {"version": "0.13.1"}, "Ollama", "0.13.1"),
    ],
)
def test_who_is_it(path: str, reply: dict[str, Any], name: str, version: str) -> None:
    def script(number: int, request: bytes) -> list[bytes]:
        if request.split(b" ")[1] == path.encode():
            return [json_reply(json.dumps(reply).encode())]
        return [json_reply(b'{"detail":"Not Found"}', "404 Not Found")]

    with ScriptedServer(script) as server:
        found = identify(parse_url(server.url, "chat"))
    assert (found.name, found.version) == (name, version)


def test_think_tags_are_split_wherever_they_are_cut() -> None:
    text = " \n<think>b</think>c < d <th>e, as <think> says"
    for size in (1, 2, 3, 5, 40):
        splitter, answer, reasoning = ThinkSplitter(), "", ""
        for start in range(0, len(text), size):
            delta = Delta(is_token=True, is_answer=True, text=text[start : start + size])
            splitter.split(delta)
            answer, reasoning = answer + delta.text, reasoning + delta.reasoning
        assert (answer + splitter.rest(), reasoning) == (" \nc < d <th>e, as <think> says", "b"), size


def test_split_think_moves_the_first_answer() -> None:
    reply = [SSE_HEAD]
    for text in ("<think>", "so", "</think>", "yes", "."):
        reply += [chunk(b"data: %s\n\n" % json.dumps(piece(content=text)).encode()), 0.02]
    reply.append(chunk(b"data: %s\n\ndata: [DONE]\n\n" % json.dumps(last("stop")).encode()) + LAST_CHUNK)
    with ScriptedServer(answering(*reply)) as server:
        split, whole = once(server, split_think=True), once(server)
    assert (split.reply.text, split.reply.reasoning) == ("yes.", "so")
    assert split.record.first_answer_ns - split.record.first_token_ns > 40e6  # type: ignore[operator]
    assert (whole.record.leaked, whole.record.first_answer_ns) == (True, whole.record.first_token_ns)


def test_tool_calls_are_put_together() -> None:
    parts = [
        piece(
            tool_calls=[
                {"index": 0, "id": "call_1", "type": "function", "function": {"name": "add", "arguments": ""}}
            ]
        ),
        piece(tool_calls=[{"index": 0, "function": {"arguments": '{"a":'}}]),
        piece(tool_calls=[{"index": 0, "function": {"arguments": " 1}"}}]),
        piece(tool_calls=[{"index": 1, "id": "call_2", "function": {"name": "sub", "arguments": "{}"}}]),
        last("tool_calls"),
    ]
    with ScriptedServer(answering(sse(*parts))) as server:
        answer = once(server)
    calls = [
        (call["id"], call["function"]["name"], call["function"]["arguments"]) for call in answer.reply.tool_calls
    ]
    assert calls == [("call_1", "add", '{"a": 1}'), ("call_2", "sub", "{}")]
    assert (answer.record.finish_reason, answer.record.n_events) == ("tool_calls", 3)


BIG = "x" * 5000


@pytest.mark.parametrize(
    ("reply", "kind", "status", "words"),
    [
        ([sse(piece(content="Hi"), {"error": {"message": "out of memory", "code": 500}})], "stream_error", 200, "out of memory"),
        ([sse()], "empty", 200, "no token"),
        ([sse(piece(content="Hi"), done=False)], "stream_broken", 200, "without a stop reason"),
        ([json_reply(b'{"error":"slow"}', "429 Too Many Requests")], "http_429", 429, "slow"),
        ([json_reply(b'{"message":"nope"}', "403 Forbidden")], "http_4xx", 403, "nope"),
        ([json_reply(b"<html><h1>Bad gateway</h1></html>", "502 Bad Gateway")], "http_5xx", 502, "Bad gateway"),
        ([json_reply(json.dumps({"error": BIG}).encode(), "400 Bad Request")], "http_4xx", 400, "xxx"),
        ([sse(b"{not json}")], "decode", 200, "not JSON"),
        ([b"SSH-2.0-OpenSSH_9\r\n"], "decode", None, "not HTTP"),
        ([b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n"], "http_3xx", 307, "307"),
        ([SSE_HEAD, chunk(b": wait\n\n"), 5.0], "timeout_first_token", 200, "no token within 0.6 s"),
        ([SSE_HEAD, chunk(b"data: %s\n\n" % json.dumps(piece(content="Hi")).encode()), 5.0], "timeout_idle", 200, "no further token within 1.5 s"),
    ],
)  # fmt: skip
def test_failures(reply: list[Any], kind: str, status: int | None, words: str) -> None:
    with ScriptedServer(answering(*reply)) as server:
        record = once(server, first_token_timeout=0.6, read_timeout=1.5).record
    assert (record.error_kind, record.http_status) == (kind, status)
    assert words in (record.error_message or "")
    assert len((record.error_message or "").encode()) <= 2048
    assert record.status == ("timeout" if kind.startswith("timeout") else "error")


def test_keys_and_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "open-1")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-1")
    assert parse_url("http://h", "chat").headers == (("Authorization", "Bearer open-1"),)
    azure = parse_url("https://r.openai.azure.com/openai/deployments/oss/chat/completions?api-version=1", "openai")
    assert azure.headers == (("api-key", "azure-1"),)
    assert azure.deployment == "oss"
    own = Auth(key="k-1234", key_header="X-Key", headers=(header("X-Team: red"),))
    assert parse_url("http://h", "chat", own).headers == (("X-Key", "k-1234"), ("X-Team", "red"))
    monkeypatch.setenv("TEAM", "blue")
    assert header("X-Team: $TEAM") == ("X-Team", "blue")
    assert parse_url("http://h", "chat", own).redact("no k-1234 for red") == "no *** for red"
    for wrong in ("X-Team", "X Team: red", ": red", "X: $NOT_SET_AT_ALL"):
        with pytest.raises(UsageError, match="--header"):
            header(wrong)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://u:pw@h:1/v1", "http://***@h:1/v1"),
        ("u:pw@h:1/v1", "***@h:1/v1"),
        ("127.0.0.1:8000/v1", "127.0.0.1:8000/v1"),
        ("https://h/v1?code=x&api-version=2024-10-21", "https://h/v1?code=***&api-version=2024-10-21"),
        ("http://h?key=x", "http://h?key=***"),
        ("sim://gpt-oss-20b-h20?speed=20", "sim://gpt-oss-20b-h20?speed=20"),
    ],
)
def test_urls_as_they_are_shown(url: str, shown: str) -> None:
    assert public_url(url) == shown


def test_a_key_is_hidden_before_words_are_cut() -> None:
    endpoint = parse_url("http://h", "chat", Auth(key="sk-a/b+SECRET"))
    assert "SECRET" not in endpoint.redact("x" * 2043 + "sk-a/b+SECRET")
    assert "SECRET" not in endpoint.redact("called with key=sk-a%2Fb%2BSECRET")
    assert "q-SECRET" not in parse_url("http://h/v1?code=q-SECRET", "chat").redact("no route /v1?code=q-SECRET")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {url: 'http://h', api_key: sk-1}", "unknown key 'api_key'"),
        ("a: {model: m}", "has no url"),
        ("a: http://h", "must hold `name:`"),
        ("a: [", "is not valid YAML"),
        ("b: {url: 'http://h'}", "there are: b"),
    ],
)
def test_mistakes_in_endpoints(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "endpoints.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        profile("a")
    assert message in f"{caught.value.message} {caught.value.hint}"
