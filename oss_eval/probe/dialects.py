"""What servers are asked, and how their answers are read: the OpenAI wire formats.

Sources: the OpenAI API reference for Chat Completions (https://platform.openai.com/docs/api-reference/chat)
and Completions (https://platform.openai.com/docs/api-reference/completions), streaming included;
`reasoning_content` and `reasoning` deltas as vLLM documents them
(https://docs.vllm.ai/en/latest/features/reasoning_outputs.html).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

PATHS = {"chat": "/chat/completions", "completions": "/completions"}


@dataclass(frozen=True, slots=True)
class Generation:
    """Sampling settings of a request; None leaves a field out, so that the server's default holds."""

    model: str
    max_tokens: int | None = None
    min_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stream: bool = True
    reasoning_effort: str | None = None
    extra: tuple[tuple[str, Any], ...] = ()


def request_body(api: str, prompt: str | list[dict[str, Any]], generation: Generation) -> bytes:
    """JSON body of one request. `prompt` is a text, or chat messages for the chat API."""
    body: dict[str, Any] = {"model": generation.model}
    if api == "chat":
        body["messages"] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    else:
        body["prompt"] = prompt
    for name in ("max_tokens", "min_tokens", "temperature", "top_p", "seed", "reasoning_effort"):
        value = getattr(generation, name)
        if value is not None:
            body[name] = value
    body["stream"] = generation.stream
    if generation.stream:
        body["stream_options"] = {"include_usage": True}
    body.update(generation.extra)
    return orjson.dumps(body)


@dataclass(slots=True)
class Delta:
    """What one event or one whole response says. `is_token` is DESIGN's token event: text on any channel."""

    is_token: bool = False
    is_answer: bool = False
    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    error: str | None = None
    tool_calls: list[Any] | None = None
    """Pieces of tool calls, as the server sent them."""


def read_event(payload: Any) -> Delta:
    """Read a chunk of a stream (`delta`), or a whole response (`message`), of either API.

    An object without choices, usage or error is an empty Delta: role-only, ping and vendor events are no
    token events.
    """
    delta = Delta()
    if not isinstance(payload, dict):
        delta.error = f"an event that is no JSON object: {str(payload)[:200]}"
        return delta
    if payload.get("error"):
        delta.error = error_text(payload["error"])
    usage = payload.get("usage")
    if isinstance(usage, dict):
        delta.usage = usage
    choices = payload.get("choices")
    if not isinstance(choices, list):
        return delta
    for choice in choices:
        if not isinstance(choice, dict):
            continue
        if choice.get("finish_reason"):
            delta.finish_reason = str(choice["finish_reason"])
        part = choice.get("delta") or choice.get("message") or choice
        if not isinstance(part, dict):
            continue
        answer = part.get("content") or part.get("text") or part.get("refusal")
        reasoning = part.get("reasoning_content") or part.get("reasoning")
        if answer and isinstance(answer, str):
            delta.is_token = delta.is_answer = True
            delta.text += answer
        calls = part.get("tool_calls")
        if isinstance(calls, list) and calls:
            delta.tool_calls = calls
            if _calls_tool(calls):
                delta.is_token = delta.is_answer = True
        if reasoning and isinstance(reasoning, str):
            delta.is_token = True
            delta.reasoning += reasoning
    return delta


@dataclass(frozen=True, slots=True)
class Template:
    """What is the same in all of a stream's events that carry nothing but text on one channel.

    JSON with the same bytes around a string is the same object but for the string; so an event that begins with
    `before`, ends with `after` and has neither quote nor backslash in between needs no parsing.
    """

    before: bytes
    after: bytes
    is_answer: bool

    def text(self, event: bytes) -> bytes | None:
        """UTF-8 text of an event of this shape, never empty; None for any other event."""
        start, end = len(self.before), len(event) - len(self.after)
        if start >= end or not event.startswith(self.before) or not event.endswith(self.after):
            return None
        if event.find(b'"', start, end) >= 0 or event.find(b"\\", start, end) >= 0:
            return None
        return event[start:end]


def learn(event: bytes, delta: Delta) -> Template | None:
    """The template of an event that has been read, proven by putting another text in its place."""
    if delta.usage is not None or delta.error or delta.finish_reason or delta.tool_calls:
        return None
    if bool(delta.text) == bool(delta.reasoning):
        return None
    text = orjson.dumps(delta.text or delta.reasoning)
    before, quoted, after = event.partition(text)
    if not quoted or text in after:
        return None
    before, after = before + b'"', b'"' + after
    try:
        again = read_event(orjson.loads(before + b"\x7f" + after))
    except orjson.JSONDecodeError:
        return None
    expected = Delta(
        is_token=True,
        is_answer=delta.is_answer,
        text="\x7f" if delta.text else "",
        reasoning="\x7f" if delta.reasoning else "",
    )
    return Template(before, after, delta.is_answer) if again == expected else None


def merge_tool_calls(calls: list[dict[str, Any]], pieces: list[Any]) -> None:
    """Add a delta's pieces to whole tool calls: a piece names its call by `index`, its arguments are appended.

    Source: https://platform.openai.com/docs/guides/function-calling#streaming.
    """
    for position, piece in enumerate(pieces):
        if not isinstance(piece, dict):
            continue
        index = piece.get("index")
        index = index if isinstance(index, int) and 0 <= index <= len(calls) else min(position, len(calls))
        if index == len(calls):
            calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        call = calls[index]
        call["id"] = piece.get("id") or call["id"]
        function = piece.get("function")
        if isinstance(function, dict):
            for key in ("name", "arguments"):
                if isinstance(function.get(key), str):
                    call["function"][key] += function[key]


def _calls_tool(calls: list[Any]) -> bool:
    """Whether a delta carries arguments of a tool call; its name alone is no token event."""
    functions = [call.get("function") for call in calls if isinstance(call, dict)]
    return any(isinstance(function, dict) and function.get("arguments") for function in functions)


def error_text(error: Any) -> str:
    """The human part of an error object, in whichever of the usual places it is."""
    if isinstance(error, dict):
        for key in ("message", "detail", "error", "msg"):
            if error.get(key):
                return error_text(error[key])
        return orjson.dumps(error, default=str).decode()
    return str(error)


def count(usage: dict[str, Any] | None, *path: str) -> int | None:
    """A non-negative count in a usage object, e.g. `count(usage, "prompt_tokens_details", "cached_tokens")`."""
    value: Any = usage
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31 else None
