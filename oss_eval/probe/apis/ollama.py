"""Ollama's own API: JSON lines, and its own account of its time (https://github.com/ollama/ollama/blob/main/docs/api.md;
thinking: https://docs.ollama.com/capabilities/thinking)."""

from __future__ import annotations

from typing import Any

from oss_eval.probe.apis.base import (
    Delta,
    Dialect,
    Generation,
    Prompt,
    count,
    error_text,
    messages_of,
    put_effort,
    text_of,
    with_system_effort,
)

DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
"""Nanoseconds, in the last line."""
OPTIONS = {"max_tokens": "num_predict", "temperature": "temperature", "top_p": "top_p", "seed": "seed"}


def _body(generation: Generation) -> dict[str, Any]:
    body: dict[str, Any] = {"model": generation.model}
    options = {theirs: getattr(generation, ours) for ours, theirs in OPTIONS.items()}
    options = {name: value for name, value in options.items() if value is not None}
    extra = dict(generation.extra)
    options |= extra.pop("options", {})
    if options:
        body["options"] = options
    put_effort(body, generation)
    return {**body, "stream": generation.stream, **extra}


def chat_body(prompt: Prompt, generation: Generation) -> dict[str, Any]:
    """Fields of /api/chat."""
    messages = messages_of(prompt)
    if generation.reasoning_effort and generation.effort_style == "system":
        messages = with_system_effort(messages, generation.reasoning_effort)
    return {**_body(generation), "messages": messages}


def generate_body(prompt: Prompt, generation: Generation) -> dict[str, Any]:
    """Fields of /api/generate."""
    return {**_body(generation), "prompt": text_of(prompt)}


def read(payload: Any) -> Delta:
    """Read a line of a stream, or a whole response, of either address."""
    delta = Delta()
    if not isinstance(payload, dict):
        delta.error = f"a line that is no JSON object: {str(payload)[:200]}"
        return delta
    if payload.get("error"):
        delta.error = error_text(payload["error"])
        return delta
    message = payload.get("message")
    part = message if isinstance(message, dict) else payload
    answer, thinking = part.get("content") or part.get("response"), part.get("thinking")
    if answer and isinstance(answer, str):
        delta.is_token = delta.is_answer = True
        delta.text = answer
    if thinking and isinstance(thinking, str):
        delta.is_token = True
        delta.reasoning = thinking
    calls = part.get("tool_calls")
    if isinstance(calls, list) and calls:
        delta.is_token = delta.is_answer = True
        delta.tool_calls = calls
    if payload.get("done") is True:
        delta.done = True
        delta.finish_reason = str(payload.get("done_reason") or "stop")
        delta.timings = {name: payload[name] for name in DURATIONS if isinstance(payload.get(name), int)} or None
        delta.usage = {
            "prompt_tokens": count(payload, "prompt_eval_count"),
            "completion_tokens": count(payload, "eval_count"),
        }
    return delta


OLLAMA = Dialect("ollama", "/api/chat", chat_body, read, lines=True, default_style="think")
OLLAMA_GENERATE = Dialect(
    "ollama-generate", "/api/generate", generate_body, read, lines=True, default_style="think"
)
