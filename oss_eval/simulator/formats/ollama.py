"""Ollama's own API (https://github.com/ollama/ollama/blob/main/docs/api.md): JSON lines."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import orjson

from oss_eval.simulator.formats.base import CompletionRequest, Format, ReplyInfo, TokenCounts, prompt_text, tokens


class OllamaChat(Format):
    """/api/chat, with `thinking`."""

    content_type = b"application/x-ndjson"
    _line = b'{"model":%s,"created_at":"%s","message":{"role":"assistant","content":%s},"done":false}\n'

    def __init__(self, reply: ReplyInfo) -> None:
        super().__init__(reply)
        self._model = orjson.dumps(reply.model)
        self._begun = time.monotonic_ns()
        self._first: int | None = None

    @staticmethod
    def read(body: dict[str, Any]) -> CompletionRequest:
        """Messages."""
        return _read(body, prompt_text(body["messages"]))

    @staticmethod
    def error(code: int, message: str) -> dict[str, Any]:
        """The JSON of an error."""
        return {"error": message}

    def event(self, payload: bytes) -> bytes:
        """A line."""
        return payload + b"\n"

    def opening(self) -> bytes:
        """Nothing."""
        return b""

    def tokens(self, answer: bytes, reasoning: bytes = b"", usage: TokenCounts | None = None) -> bytes:
        """A line; each has its own time."""
        if self._first is None:
            self._first = time.monotonic_ns()
        part = b'"%s","thinking":"%s"' % (answer, reasoning) if reasoning else b'"%s"' % answer
        return self._line % (self._model, _now().encode(), part)

    def ending(self, reason: str, usage: TokenCounts, usage_events: int) -> bytes:
        """The last line, with counts and durations."""
        return self.event(orjson.dumps({**self._said("", ""), **self._end(reason, usage)}))

    def whole(self, answer: str, reasoning: str, reason: str, usage: TokenCounts) -> dict[str, Any]:
        """One line with everything."""
        return {**self._said(answer, reasoning), **self._end(reason, usage)}

    def _said(self, answer: str, reasoning: str) -> dict[str, Any]:
        thinking = {"thinking": reasoning} if reasoning else {}
        return {"message": {"role": "assistant", "content": answer, **thinking}}

    def _end(self, reason: str, usage: TokenCounts) -> dict[str, Any]:
        now = time.monotonic_ns()
        first = self._first or now
        return {
            "model": self.reply.model, "created_at": _now(), "done": True, "done_reason": reason,
            "total_duration": now - self._begun, "load_duration": 0,
            "prompt_eval_count": usage.prompt, "prompt_eval_duration": first - self._begun,
            "eval_count": usage.completion, "eval_duration": now - first,
        }  # fmt: skip


class OllamaGenerate(OllamaChat):
    """/api/generate."""

    text_key = b"response"
    _line = b'{"model":%s,"created_at":"%s","response":%s,"done":false}\n'

    @staticmethod
    def read(body: dict[str, Any]) -> CompletionRequest:
        """A prompt, with the system text before it."""
        return _read(body, " ".join(filter(None, (body.get("system"), prompt_text(body["prompt"])))))

    def _said(self, answer: str, reasoning: str) -> dict[str, Any]:
        return {"response": answer, **({"thinking": reasoning} if reasoning else {})}


def _read(body: dict[str, Any], prompt: str) -> CompletionRequest:
    """A stream is the default here, and its last line always has the counts."""
    options = body.get("options") or {}
    limit = tokens(options.get("num_predict"))
    think = body.get("think")
    effort = think if isinstance(think, str) else None
    stream = body.get("stream", True) is not False
    return CompletionRequest(
        prompt, stream, effort, None if limit is None or limit < 0 else limit, seed=options.get("seed")
    )


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
