"""What all APIs have in common: settings of a request, meaning of an event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson

EFFORT_STYLES = ("top-level", "extra-body", "chat-template", "think", "system", "none")
"""Ways of asking for an effort: the field reasoning_effort (OpenAI, Azure, vLLM), the same within `extra_body`
(gateways that unpack it), within chat_template_kwargs (llama.cpp, SGLang), Ollama's `think`, a line of the system
message (gpt-oss's own template), or not at all."""


@dataclass(frozen=True, slots=True)
class Generation:
    """Settings of a request. None leaves a field out: the server's default applies."""

    model: str
    max_tokens: int | None = None
    min_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stream: bool = True
    reasoning_effort: str | None = None
    effort_style: str = "top-level"
    limit_field: str = "max_tokens"
    """Name of the length limit in chat and completions: `max_tokens` or `max_completion_tokens`."""
    include_usage: bool = True
    """Whether the stream has to include usage."""
    continuous_usage: bool = False
    """Whether every chunk has to hold the usage so far, which says how many tokens it has."""
    extra: tuple[tuple[str, Any], ...] = ()


Prompt = str | list[dict[str, Any]]
"""A text, or chat messages."""


@dataclass(slots=True)
class Delta:
    """The content of one event or one complete response. `is_token`: a token event, text on any channel."""

    is_token: bool = False
    is_answer: bool = False
    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    """With the keys of Chat Completions: prompt_tokens, completion_tokens, ..."""
    error: str | None = None
    tool_calls: list[Any] | None = None
    """Pieces of tool calls, as Chat Completions sends them."""
    timings: dict[str, Any] | None = None
    """The server's own timings, as sent."""
    done: bool = False
    """Whether this event ends the stream."""
    is_empty: bool = False
    """Whether it carries an empty text, which may stand for a token that has none yet: half a character, say."""
    opens: bool = False
    """Whether it names the role, as the first event of a chat does."""
    unknown: str = ""
    """Name of a field that holds text and is none that we know."""


Read = Callable[[Any], Delta]
"""Reads an event's JSON."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """One API: its path, its request body, and how its answers are read."""

    name: str
    path: str
    """Path below the root of the base URL, `/v1` included where the API has it."""
    body: Callable[[Prompt, Generation], dict[str, Any]]
    read: Read = field(repr=False)
    lines: bool = False
    """Whether a stream is JSON lines instead of server-sent events."""
    default_style: str = "top-level"
    """The effort style when nothing else is known."""


def messages_of(prompt: Prompt) -> list[dict[str, Any]]:
    """A prompt as chat messages."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def text_of(prompt: Prompt) -> str:
    """A prompt as one text."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(str(message.get("content", "")) for message in prompt)


def with_system_effort(messages: list[dict[str, Any]], effort: str) -> list[dict[str, Any]]:
    """Messages with gpt-oss's line for the effort in the system message
    (https://huggingface.co/openai/gpt-oss-20b, "Reasoning levels")."""
    line = f"Reasoning: {effort}"
    if messages and messages[0].get("role") == "system":
        return [{**messages[0], "content": f"{messages[0].get('content', '')}\n\n{line}"}, *messages[1:]]
    return [{"role": "system", "content": line}, *messages]


def put_effort(body: dict[str, Any], generation: Generation) -> None:
    """Add the effort to a body, in one of the styles that are fields of the body."""
    effort, style = generation.reasoning_effort, generation.effort_style
    if effort is None or style in ("none", "system"):
        return
    if style == "top-level":
        body["reasoning_effort"] = effort
    elif style == "extra-body":
        body["extra_body"] = {**body.get("extra_body", {}), "reasoning_effort": effort}
    elif style == "chat-template":
        body["chat_template_kwargs"] = {**body.get("chat_template_kwargs", {}), "reasoning_effort": effort}
    elif style == "think":
        body["think"] = effort if effort not in ("true", "false") else effort == "true"


# -- pieces of answers ------------------------------------------------------------------------------------------


def merge_tool_calls(calls: list[dict[str, Any]], pieces: list[Any]) -> None:
    """Add a delta's pieces to whole tool calls: a piece names its call by `index`, its arguments are appended.

    Source: https://platform.openai.com/docs/guides/function-calling#streaming.
    """
    for position, piece in enumerate(pieces):
        if not isinstance(piece, dict):
            continue
        index = piece.get("index")
        if "key" in piece:  # the Responses API counts its reasoning items too
            known = [call.get("key") for call in calls]
            index = known.index(piece["key"]) if piece["key"] in known else len(calls)
        index = index if isinstance(index, int) and 0 <= index <= len(calls) else min(position, len(calls))
        if index == len(calls):
            calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
            if "key" in piece:
                calls[-1]["key"] = piece["key"]
        call = calls[index]
        call["id"] = piece.get("id") or call["id"]
        function = piece.get("function")
        if isinstance(function, dict):
            for key in ("name", "arguments"):
                value = function.get(key)
                if isinstance(value, dict):  # Ollama's arguments are an object
                    value = orjson.dumps(value).decode()
                if isinstance(value, str):
                    call["function"][key] += value


def error_text(error: Any) -> str:
    """The error text of an error object, in any of the usual places."""
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
