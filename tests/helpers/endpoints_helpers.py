"""What the tests of endpoints share."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from oss_eval.config.task import Task, validated
from oss_eval.diagnose.connect import open_session
from oss_eval.endpoint.auth import Auth
from oss_eval.load.client import Answer
from tests.helpers.scripted_server import (
    LAST_CHUNK,
    SSE_HEAD,
    ScriptedServer,
    chunk,
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
    events: int = 5
    """With the stop token, which the servers count."""
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


def once(server: ScriptedServer, prompt: Any = "Hello", access: Auth | None = None, **settings: Any) -> Answer:
    """One question through the whole client."""
    task = validated(Task, {"url": server.url, "model": "m", **settings}, "test")
    with open_session(task, access or Auth()) as line:
        return line.ask(prompt, line.generation())
