"""Servers as they really answer: bodies sent and records decoded, byte for byte; access; ask and doctor.

Shapes after the servers' documentation and sources, named beside each.
"""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import trustme

from oss_eval.config.task import Task, validated
from oss_eval.diagnose.connect import open_session
from oss_eval.endpoint.auth import Auth, header
from oss_eval.endpoint.capabilities import Capabilities
from oss_eval.endpoint.endpoint import parse_url
from oss_eval.endpoint.identify import identify
from oss_eval.endpoint.profiles import profile
from oss_eval.errors import UsageError
from oss_eval.load.client import Answer
from oss_eval.probe.apis import DIALECTS, Delta, Generation
from oss_eval.probe.think_tags import ThinkSplitter
from oss_eval.results.reader import read_manifest
from oss_eval.system.redact import public_url
from tests.conftest import Command, bad
from tests.scripted import (
    LAST_CHUNK,
    MODELS,
    SSE_HEAD,
    ScriptedServer,
    answering,
    body_of,
    chunk,
    json_reply,
    saying,
    talking,
)


def sse(*events: Any, done: bool = True) -> bytes:
    """A whole stream of server-sent events."""
    lines = [b"data: %s\n\n" % (e if isinstance(e, bytes) else json.dumps(e).encode()) for e in events]
    return SSE_HEAD + chunk(b"".join(lines) + (b"data: [DONE]\n\n" if done else b"")) + LAST_CHUNK


def typed(*events: Any) -> bytes:
    """Server-sent events with an event line, as the Responses API sends them."""
    lines = [b"event: %s\ndata: %s\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events]
    return SSE_HEAD + chunk(b"".join(lines)) + LAST_CHUNK


def lines(*events: Any) -> bytes:
    """JSON lines, as Ollama sends them."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(chunk(json.dumps(event).encode() + b"\n") for event in events) + LAST_CHUNK


def piece(**delta: Any) -> dict[str, Any]:
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
    }


def last(reason: str, **more: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": reason}], **more}


USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


@dataclass
class Contract:
    """A server's way of answering, and what is to be made of it."""

    reply: bytes
    text: str = "Hi there"
    reasoning: str = "hmm ok"
    finish: str = "stop"
    tokens: int | None = 5
    source: str = "usage"
    events: int = 4
    api: str = "chat"
    reasoning_tokens: int | None = None


CONTRACTS = {
    # vLLM: role first, reasoning_content, usage alone in the last chunk
    # https://docs.vllm.ai/en/latest/features/reasoning_outputs.html
    "vLLM": Contract(
        sse(piece(role="assistant", content=""), piece(reasoning_content="hmm"), piece(reasoning_content=" ok"),
            piece(content="Hi"), piece(content=" there"), last("stop"),
            {"choices": [], "usage": {**USAGE, "completion_tokens_details": {"reasoning_tokens": 2}}}),
        reasoning_tokens=2,
    ),
    # vLLM with continuous_usage_stats: usage in every chunk
    "vLLM, usage in every chunk": Contract(
        sse(*({**piece(**{key: text}), "usage": {"prompt_tokens": 7, "completion_tokens": n}} for n, (key, text) in enumerate(
            [("reasoning", "hmm"), ("reasoning", " ok"), ("content", "Hi"), ("content", " there")], 1)),
            last("stop", usage={"prompt_tokens": 7, "completion_tokens": 5})),
    ),
    # SGLang: null contents beside the delta's one channel https://docs.sglang.ai/basic_usage/openai_api_completions.html
    "SGLang": Contract(
        sse(piece(role="assistant", content="", reasoning_content=None, tool_calls=None),
            piece(content=None, reasoning_content="hmm"), piece(content=None, reasoning_content=" ok"),
            piece(content="Hi", reasoning_content=None), piece(content=" there", reasoning_content=None),
            last("stop", usage=None), {"choices": [], "usage": {**USAGE, "reasoning_tokens": 2}}),
    ),
    # llama.cpp: timings instead of usage where usage was not asked for
    # https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
    "llama.cpp": Contract(
        sse(piece(role="assistant", content=None), piece(reasoning_content="hmm"), piece(reasoning_content=" ok"),
            piece(content="Hi"), piece(content=" there"),
            last("stop", timings={"prompt_n": 7, "predicted_n": 5, "predicted_ms": 80.5, "predicted_per_second": 62.1})),
    ),
    # LM Studio and Ollama's OpenAI address: `reasoning` https://lmstudio.ai/docs/app/api/endpoints/openai
    "LM Studio": Contract(
        sse(piece(role="assistant", reasoning="hmm"), piece(reasoning=" ok"), piece(content="Hi"), piece(content=" there"),
            last("stop"), {"choices": [], "usage": USAGE}),
    ),
    # OpenRouter: comments to keep the connection, reasoning twice, usage in the last chunk with choices
    # https://openrouter.ai/docs/use-cases/reasoning-tokens
    "OpenRouter": Contract(
        SSE_HEAD + chunk(b": OPENROUTER PROCESSING\n\n") + chunk(b"".join(b"data: %s\n\n" % json.dumps(e).encode() for e in (
            piece(role="assistant", content="", reasoning="hmm", reasoning_details=[{"type": "reasoning.text", "text": "hmm"}]),
            piece(content="", reasoning_details=[{"type": "reasoning.summary", "summary": " ok"}]),
            piece(content="Hi"), piece(content=" there"), last("stop", usage=USAGE))) + b"data: [DONE]\n\n") + LAST_CHUNK,
    ),
    # Groq: usage under x_groq https://console.groq.com/docs/text-chat
    "Groq": Contract(
        sse({**piece(role="assistant", content=""), "x_groq": {"id": "req_1"}}, piece(reasoning="hmm"), piece(reasoning=" ok"),
            piece(content="Hi"), piece(content=" there"), last("stop", x_groq={"id": "req_1", "usage": USAGE})),
    ),
    # DeepSeek: keep-alive comments, reasoning_content null once the answer begins
    # https://api-docs.deepseek.com/guides/reasoning_model
    "DeepSeek": Contract(
        SSE_HEAD + chunk(b": keep-alive\n\n: keep-alive\n\n") + chunk(b"".join(b"data: %s\n\n" % json.dumps(e).encode() for e in (
            piece(role="assistant", content=None, reasoning_content=""), piece(content=None, reasoning_content="hmm"),
            piece(content=None, reasoning_content=" ok"), piece(content="Hi", reasoning_content=None),
            piece(content=" there", reasoning_content=None),
            last("stop", usage={**USAGE, "completion_tokens_details": {"reasoning_tokens": 2}}))) + b"data: [DONE]\n\n")
        + LAST_CHUNK,
        reasoning_tokens=2,
    ),
    # Azure OpenAI: a first chunk with prompt_filter_results and no choices
    # https://learn.microsoft.com/azure/ai-services/openai/concepts/content-streaming
    "Azure OpenAI": Contract(
        sse({"choices": [], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}]},
            piece(role="assistant", content="", refusal=None), piece(content="Hi"), piece(content=" there"),
            last("stop", usage=None), {"choices": [], "usage": {**USAGE, "completion_tokens_details": {"reasoning_tokens": 3}}}),
        reasoning="", events=2, reasoning_tokens=3,
    ),
    # TGI: usage null until the end, no [DONE] in older versions
    # https://huggingface.co/docs/text-generation-inference/messages_api
    "TGI": Contract(
        sse({**piece(role="assistant", content="Hi"), "usage": None}, {**piece(role="assistant", content=" there"), "usage": None},
            last("stop", usage=USAGE), done=False),
        reasoning="", events=2,
    ),
    # transformers serve: no usage in the stream https://huggingface.co/docs/transformers/serving
    "transformers serve": Contract(
        sse(piece(role="assistant"), piece(content="Hi"), piece(content=" there"), last("stop"), done=False),
        reasoning="", events=2, tokens=2, source="chunks",
    ),
    # OpenAI with n = 2: two answers in one stream, told apart by their index
    # https://platform.openai.com/docs/api-reference/chat/streaming
    "OpenAI, two choices": Contract(
        sse({"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hi"}}]},
            {"choices": [{"index": 1, "delta": {"role": "assistant", "content": " there"}}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": USAGE}),
        text="Hi", reasoning="", events=2,
    ),
    # A refusal is an answer https://platform.openai.com/docs/guides/structured-outputs#refusals
    "OpenAI, refusal": Contract(
        sse(piece(role="assistant", content=None, refusal="Hi"), piece(refusal=" there"), last("stop"),
            {"choices": [], "usage": USAGE}),
        reasoning="", events=2,
    ),
    # vLLM, SGLang, llama.cpp: plain completions https://platform.openai.com/docs/api-reference/completions
    "Completions": Contract(
        sse({"choices": [{"index": 0, "text": "Hi", "finish_reason": None}]},
            {"choices": [{"index": 0, "text": " there", "finish_reason": None}]},
            {"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}, {"choices": [], "usage": USAGE}),
        api="completions", reasoning="", events=2, finish="length",
    ),
    # LiteLLM in front of something: reasoning_content, usage in a chunk with an empty choice
    # https://docs.litellm.ai/docs/reasoning_content
    "LiteLLM": Contract(
        sse(piece(role="assistant", reasoning_content="hmm", provider_specific_fields=None), piece(reasoning_content=" ok"),
            piece(content="Hi"), piece(content=" there"), last("stop"),
            {"choices": [{"index": 0, "delta": {}}], "usage": USAGE}),
    ),
    # OpenAI's Responses API https://platform.openai.com/docs/api-reference/responses-streaming
    "Responses": Contract(
        typed({"type": "response.created", "response": {"status": "in_progress"}},
              {"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning"}},
              {"type": "response.reasoning_text.delta", "output_index": 0, "delta": "hmm"},
              {"type": "response.reasoning_summary_text.delta", "output_index": 0, "delta": " ok"},
              {"type": "response.output_text.delta", "output_index": 1, "delta": "Hi"},
              {"type": "response.output_text.delta", "output_index": 1, "delta": " there"},
              {"type": "response.output_text.done", "output_index": 1, "text": "Hi there"},
              {"type": "response.completed", "response": {"object": "response", "status": "completed", "usage": {
                  "input_tokens": 7, "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 2},
                  "input_tokens_details": {"cached_tokens": 0}}}}),
        api="responses", reasoning_tokens=2,
    ),
    "Responses, cut": Contract(
        typed({"type": "response.output_text.delta", "delta": "Hi"}, {"type": "response.output_text.delta", "delta": " there"},
              {"type": "response.incomplete", "response": {"status": "incomplete", "usage": {"input_tokens": 7, "output_tokens": 5},
                                                           "incomplete_details": {"reason": "max_output_tokens"}}}),
        api="responses", reasoning="", events=2, finish="length",
    ),
    # Ollama's own API https://github.com/ollama/ollama/blob/main/docs/api.md, docs.ollama.com/capabilities/thinking
    "Ollama": Contract(
        lines({"model": "m", "message": {"role": "assistant", "content": "", "thinking": "hmm"}, "done": False},
              {"model": "m", "message": {"role": "assistant", "content": "", "thinking": " ok"}, "done": False},
              {"model": "m", "message": {"role": "assistant", "content": "Hi"}, "done": False},
              {"model": "m", "message": {"role": "assistant", "content": " there"}, "done": False},
              {"model": "m", "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop",
               "total_duration": 4935886791, "load_duration": 534986708, "prompt_eval_count": 7,
               "prompt_eval_duration": 107345000, "eval_count": 5, "eval_duration": 4289432000}),
        api="ollama",
    ),
    "Ollama generate": Contract(
        lines({"model": "m", "response": "", "thinking": "hmm", "done": False}, {"model": "m", "thinking": " ok", "done": False},
              {"model": "m", "response": "Hi", "done": False}, {"model": "m", "response": " there", "done": False},
              {"model": "m", "response": "", "done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 5}),
        api="ollama-generate",
    ),
}  # fmt: skip


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


def once(server: ScriptedServer, prompt: Any = "Hello", access: Auth | None = None, **settings: Any) -> Answer:
    """One question through the whole client."""
    task = validated(Task, {"url": server.url, "model": "m", **settings}, "test")
    with open_session(task, access or Auth()) as line:
        return line.ask(prompt, line.generation())


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


# -- what is sent -----------------------------------------------------------------------------------------------

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


def test_a_server_is_asked_in_its_own_terms(oss_eval: Command, tmp_path: Path) -> None:
    """OpenAI's reasoning models: max_completion_tokens, no temperature; another server: no stream_options."""

    def answer(body: dict[str, Any]) -> bytes:
        words = None
        if "max_tokens" in body:
            words = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        elif "stream_options" in body:
            words = "Extra inputs are not permitted: stream_options"
        elif "temperature" in body:
            words = "Unsupported value: 'temperature' does not support 0.5 with this model."
        if words:
            return json_reply(json.dumps({"error": {"message": words}}).encode(), "400 Bad Request")
        return saying("\\boxed{2}")

    with ScriptedServer(talking(answer)) as server:
        words = ("--url", server.url, "--max-tokens", "50", "--temperature", "0.5")
        done = oss_eval("perf", *words, "--parallel", "2", "--number", "4", "--prompt", "Hi")
        assert done.returncode == 0, done.stderr
        assert "max_completion_tokens instead of max_tokens" in done.stderr
        graded = oss_eval("bench", "demo", *words, "--repeats", "1", "--limit", "6")
        assert graded.returncode == 0, graded.stderr
        final = body_of(server.requests[-1])
    assert final["max_completion_tokens"] == 50
    assert not {"max_tokens", "stream_options", "temperature"} & set(final)
    for run in (tmp_path / "results").iterdir():
        request = read_manifest(run)["request"]
        assert request["limit_field"] == "max_completion_tokens"
        assert request["left_out"] == ["temperature"]
        assert not bad(run)
    samples = next((tmp_path / "results").glob("*bench*/samples"))
    assert set(pd.read_parquet(samples).attempts) == {1}


def test_a_refused_effort_names_the_styles(oss_eval: Command) -> None:
    refusal = json_reply(b'{"error":{"message":"unknown field reasoning_effort"}}', "400 Bad Request")
    with ScriptedServer(talking(lambda body: refusal)) as server:
        done = oss_eval(
            "perf", "--url", server.url, "--parallel", "1", "--reasoning-effort", "low", "--prompt", "x"
        )
    assert done.returncode == 2
    assert "--effort-style" in done.stderr


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


def test_llama_cpp_is_asked_through_its_template(oss_eval: Command, tmp_path: Path) -> None:
    def script(number: int, request: bytes) -> list[bytes]:
        if request.startswith(b"GET /props"):
            return [json_reply(b'{"build_info":"b6123"}')]
        if request.startswith(b"GET"):
            return [MODELS if b"/models" in request else json_reply(b"{}", "404 Not Found")]
        return [saying("ok")]

    with ScriptedServer(script) as server:
        done = oss_eval("perf", "--url", server.url, "--parallel", "1", "--number", "2", "--reasoning-effort", "low",
                        "--prompt", "x")  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert body_of(server.requests[-1])["chat_template_kwargs"] == {"reasoning_effort": "low"}


# -- text in the wrong place ------------------------------------------------------------------------------------


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


# -- failures ---------------------------------------------------------------------------------------------------

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


def test_redirects_are_followed_for_set_up_and_refused_for_measured_requests(oss_eval: Command) -> None:
    def script(number: int, request: bytes) -> list[bytes]:
        if request.startswith(b"GET /v1/models"):
            return [b"HTTP/1.1 302 Found\r\nLocation: /other/models\r\nContent-Length: 0\r\n\r\n"]
        if request.startswith(b"GET /other/models"):
            assert b"Bearer sk-1234" in request  # the same host may have the key
            return [MODELS]
        return [b"HTTP/1.1 308 Permanent Redirect\r\nLocation: https://x/\r\nContent-Length: 0\r\n\r\n"]

    with ScriptedServer(script) as server:
        done = oss_eval("perf", "--url", server.url, "--parallel", "1", OPENAI_API_KEY="sk-1234")
    assert done.returncode == 2
    assert "redirects measured requests (HTTP 308)" in done.stderr


def test_a_key_does_not_follow_to_another_host(oss_eval: Command) -> None:
    with ScriptedServer(answering()) as other:
        away = b"HTTP/1.1 302 Found\r\nLocation: %s/models\r\nContent-Length: 0\r\n\r\n" % other.url.encode()
        with ScriptedServer(lambda number, request: [away]) as server:
            oss_eval("perf", "--url", server.url, "--parallel", "1", OPENAI_API_KEY="sk-1234")
        assert other.requests
        assert b"sk-1234" not in b"".join(other.requests)


# -- access -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "api", "path"),
    [
        ("http://h:8000", "openai", "/v1/chat/completions"),
        ("http://h:8000/v1/", "openai", "/v1/chat/completions"),
        ("http://h/v1/completions", "openai", "/v1/completions"),
        ("http://h/v1/responses", "openai", "/v1/responses"),
        ("http://h:11434", "ollama", "/api/chat"),
        ("http://h:11434/v1", "ollama", "/api/chat"),
        ("http://h:11434/api/generate", "openai", "/api/generate"),
        ("https://openrouter.ai/api/v1", "openai", "/api/v1/chat/completions"),
        ("https://r.openai.azure.com/openai/deployments/gpt-oss/chat/completions?api-version=2024-10-21", "openai",
         "/openai/deployments/gpt-oss/chat/completions?api-version=2024-10-21"),
        ("https://r.openai.azure.com", "openai", "/openai/v1/chat/completions"),
        ("https://r.services.ai.azure.com/models/chat/completions?api-version=2024-05-01-preview", "openai",
         "/models/chat/completions?api-version=2024-05-01-preview"),
    ],
)  # fmt: skip
def test_addresses(url: str, api: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oss_eval.endpoint.endpoint.resolve", lambda host, port: ())
    assert parse_url(url, api).target().path == path


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


def test_keys_stay_with_their_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-1")
    assert parse_url("http://somebody.example.com", "chat").headers == ()
    monkeypatch.setenv("OPENAI_API_KEY", "open-1")
    machine = parse_url("http://myvm.eastus.cloudapp.azure.com:8000", "chat")
    assert machine.headers == (("Authorization", "Bearer open-1"),)
    with pytest.raises(UsageError, match="none of Azure's"):
        parse_url("http://somebody.example.com", "chat", Auth(entra=True))
    given = Auth(headers=(("authorization", "Bearer mine"),))
    assert parse_url("http://h", "chat", given).headers == (("authorization", "Bearer mine"),)


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


def test_nothing_secret_is_kept(oss_eval: Command, tmp_path: Path) -> None:
    echo = talking(lambda body: json_reply(b'{"error":"sk-flag-77 and team-88 are wrong"}', "400 Bad") if body["max_tokens"] == 77
                   else saying("ok"))  # fmt: skip
    with ScriptedServer(echo) as server:
        done = oss_eval("perf", "--url", server.url.replace("http://", "http://user:pw-99@"), "--parallel", "1", "--number", "3",
                        "--prompt", "x", "--api-key", "sk-flag-77", "--header", "X-Team: team-88", "--max-tokens", "77")  # fmt: skip
        sent = server.requests[-1]
    assert b"Bearer sk-flag-77" in sent
    assert b"X-Team: team-88" in sent
    assert "can be seen by others" in done.stderr
    files = [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
    assert files
    everything = b"".join(path.read_bytes() for path in files) + (done.stdout + done.stderr).encode()
    for secret in (b"sk-flag-77", b"team-88", b"pw-99"):
        assert secret not in everything, secret


def test_certificates(oss_eval: Command, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with ScriptedServer(talking(lambda body: saying("ok")), context) as server:
        words = ("perf", "--url", server.url, "--parallel", "1", "--number", "2", "--prompt", "x")
        untrusted = oss_eval(*words)
        assert untrusted.returncode == 2
        assert "certificate" in untrusted.stderr
        assert oss_eval(*words, "--ca-bundle", "ca.pem").returncode == 0
        assert oss_eval(*words, "--insecure").returncode == 0
        assert "--ca-bundle none.pem" in oss_eval(*words, "--ca-bundle", "none.pem").stderr


def test_servers_take_turns(oss_eval: Command, tmp_path: Path) -> None:
    with (
        ScriptedServer(talking(lambda b: [0.02, saying("ok")])) as one,
        ScriptedServer(talking(lambda b: [0.02, saying("ok")])) as two,
    ):
        words = ("--url", one.url, "--url", two.url)
        done = oss_eval("perf", *words, "--parallel", "1", "--number", "20", "--prompt", "x")
        assert done.returncode == 0, done.stderr
        graded = oss_eval("bench", "demo", *words, "--repeats", "1", "--parallel", "4")
        assert graded.returncode == 0, graded.stderr
    for run in (tmp_path / "results").iterdir():
        rows = pd.read_parquet(run / "requests").query("not warmup")
        shares = rows.url.value_counts(normalize=True)
        assert set(shares.index) == {one.url, two.url}
        assert shares.min() >= 0.45


def test_named_endpoints(oss_eval: Command, tmp_path: Path) -> None:
    with ScriptedServer(talking(lambda body: saying("ok"))) as server:
        (tmp_path / "endpoints.yaml").write_text(
            f"prod-h100:\n  url: {server.url}\n  model: m\n  api_key_env: PROD_KEY\n  api-key-header: X-Key\n"
            "  effort_style: system\n  headers: {X-Team: red}\n  prices: {input: 0.1, output: 0.4}\n  labels: {gpu: H100}\n"
        )
        words = (
            "perf",
            "--endpoint",
            "prod-h100",
            "--parallel",
            "1",
            "--number",
            "2",
            "--prompt",
            "x",
            "--reasoning-effort",
            "low",
        )
        done = oss_eval(*words, PROD_KEY="k-prod-1")
        assert done.returncode == 0, done.stderr
        request = server.requests[-1]
        assert b"X-Key: k-prod-1" in request
        assert b"X-Team: red" in request
        assert body_of(request)["messages"][0] == {"role": "system", "content": "Reasoning: low"}
        manifest = read_manifest(next((tmp_path / "results").iterdir()))
        assert manifest["endpoint"]["name"] == "prod-h100"
        assert manifest["endpoint"]["prices"] == {"input": 0.1, "output": 0.4}
        assert manifest["labels"] == {"gpu": "H100"}
        assert "PROD_KEY is not set" in oss_eval(*words).stderr
        assert "did you mean prod-h100" in oss_eval("perf", "--endpoint", "prod-h10").stderr


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


# -- ask and doctor ---------------------------------------------------------------------------------------------


def test_ask(oss_eval: Command) -> None:
    with ScriptedServer(talking(lambda body: saying("Four.", reasoning="two and two", tokens=(9, 6)))) as server:
        done = oss_eval("ask", "What is 2 + 2?", "--url", server.url, "--reasoning-effort", "low")
        assert done.returncode == 0, done.stderr
        assert done.stdout == "Four.\n"
        assert "two and two" in done.stderr
        assert "TTFT" in done.stderr
        assert "6 tokens" in done.stderr
        assert body_of(server.requests[-1])["reasoning_effort"] == "low"
        whole = json.loads(oss_eval("ask", "x", "--url", server.url, "-v").stdout)
        assert whole["response"]["answer"] == "Four."
        assert whole["record"]["completion_tokens"] == 6
        (refused,) = [oss_eval("ask", "x", "--url", server.url, "--api", "telepathy")]
        assert refused.returncode == 2
    models = json_reply(b'{"data":[{"id":"a"},{"id":"b"}]}')
    with ScriptedServer(lambda number, request: [models]) as server:
        several = oss_eval("ask", "x", "--url", server.url)
        assert several.returncode == 2
        assert "serves 2 models" in several.stderr
        assert "--model a" in several.stderr
    assert "can't reach" in oss_eval("ask", "x", "--url", "http://127.0.0.1:9").stderr


def test_doctor_on_a_good_server(oss_eval: Command) -> None:
    def script(number: int, request: bytes) -> list[bytes]:
        if request.startswith(b"GET /version"):
            return [json_reply(b'{"version":"0.11.2"}')]
        if request.startswith(b"GET"):
            listed = b'{"data":[{"id":"m","max_model_len":131072,"owned_by":"vllm"}]}'
            return [json_reply(listed) if b"/models" in request else json_reply(b"{}", "404 Not Found")]
        body = body_of(request)
        if body.get("ignore_eos"):
            return [saying("x " * 30, finish="length", tokens=(5, body["max_tokens"]))]
        if "messages" not in body:
            return [json_reply(b"{}", "404 Not Found")]
        assert body["max_tokens"] > 40
        words = {"low": 20, "high": 90}.get(body.get("reasoning_effort"), 40)
        return [saying("yes", reasoning="so", tokens=(5, words))]

    with ScriptedServer(script) as server:
        done = oss_eval("doctor", "--url", server.url, "--json")
        asked = sum(request.startswith(b"POST") for request in server.requests)
    assert done.returncode == 0, done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert checks["server"]["seen"].startswith("vLLM 0.11.2")
    assert "131,072" in checks["model"]["seen"]
    assert checks["effort"]["verdict"] == "pass"
    assert "4.5 times" in checks["effort"]["seen"]
    assert checks["fixed lengths"]["verdict"] == "pass"
    assert "reasoning_content" in checks["reasoning"]["seen"]
    assert checks["keep-alive"]["verdict"] == "pass"
    assert asked <= 20


def test_doctor_sees_a_buffered_stream(oss_eval: Command) -> None:
    whole = sse(*[piece(content="x") for _ in range(30)], last("stop", usage=USAGE))
    with ScriptedServer(
        talking(lambda body: [0.2, whole] if "messages" in body else json_reply(b"{}", "404 Not Found"))
    ) as server:
        done = oss_eval("doctor", "--url", server.url)
    assert done.returncode == 1
    assert "the stream comes in one piece" in " ".join(done.stdout.split())


def test_doctor_on_an_odd_server(oss_eval: Command) -> None:
    """No usage, the reasoning in the answer, effort ignored as a field and honoured as a system line."""

    def answer(body: dict[str, Any]) -> bytes:
        if "messages" not in body:
            return json_reply(b"{}", "404 Not Found")
        if "reasoning_effort" in body or "ignore_eos" in body:
            return json_reply(b'{"error":"unknown field"}', "400 Bad Request")
        system = body["messages"][0]["content"] if body["messages"][0]["role"] == "system" else ""
        count = {"Reasoning: low": 3, "Reasoning: high": 9}.get(system, 4)
        return sse(*[piece(content="<think>" if n == 0 else "x") for n in range(count)], last("stop"))

    with ScriptedServer(talking(answer)) as server:
        done = oss_eval("doctor", "--url", server.url)
        asked = sum(request.startswith(b"POST") for request in server.requests)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "no usage in the answer" in text
    assert "--split-think" in text
    assert "use --effort-style system" in text
    assert "ignore_eos are refused" in text
    assert asked <= 20


@pytest.mark.parametrize(
    "words",
    [
        "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 3 instead.",
        "The model `ByteDance-Seed/Seed-OSS-36B` has a maximum context length of 4096 tokens",
        "'max_tokens' or 'max_completion_tokens' is too large: 9000. This model's maximum context length is 4096",
        "min_tokens must be less than or equal to max_tokens",
        "temperature must be between 0 and 2, other values are not supported",
    ],
)
def test_refused_values_are_the_users(words: str) -> None:
    assert (
        Capabilities().after_refusal(
            400, words, Generation("m", max_tokens=5, temperature=3.0, seed=1, min_tokens=9)
        )
        is None
    )


def test_the_refused_field_is_the_one_left_out() -> None:
    sent = Generation("m", temperature=1.0, top_p=0.9, seed=1)
    changed = Capabilities().after_refusal(400, "Unrecognized request argument supplied: seed", sent)
    assert changed is not None
    assert changed.without == ("seed",)


def test_adaptation_knows_when_to_stop() -> None:
    sent = Generation("m", max_tokens=5, temperature=1.0)
    assert Capabilities().after_refusal(400, "context length exceeded", sent) is None
    assert Capabilities().after_refusal(500, "temperature", sent) is None
    first = Capabilities().after_refusal(
        400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", sent
    )
    assert first is not None
    assert first.after_refusal(400, "max_completion_tokens is too large", sent) is None
