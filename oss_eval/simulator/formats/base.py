"""What the simulator needs of a wire format: how a request is read, and how an answer is written."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar


class RequestRefused(Exception):
    """The request is answered with an HTTP error."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """The fields that matter here. Lengths are tokens."""

    prompt: str
    stream: bool
    effort: str | None
    limit: int | None
    """Maximum length of the answer."""
    floor: int = 0
    """Minimum length of the answer."""
    ignore_eos: bool = False
    """Whether the answer always reaches `limit`."""
    usage_wanted: bool = True
    usage_in_chunks: bool = False
    """Whether every chunk has to hold the usage so far."""
    seed: Any = None

    @property
    def prompt_seed(self) -> int:
        """The same for the same prompt and seed."""
        return zlib.crc32(self.prompt.encode()) ^ zlib.crc32(str("" if self.seed is None else self.seed).encode())


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Counts of tokens."""

    prompt: int
    completion: int
    reasoning: int
    cached: int | None = None
    """Prompt tokens from a prefix cache; None without one."""


@dataclass(frozen=True, slots=True)
class ReplyInfo:
    """The model, the number of the request, its time in seconds, and whether the answer is a stream."""

    model: str
    number: int
    created: int
    stream: bool


class Format(ABC):
    """The wire format of one answer."""

    content_type: ClassVar[bytes] = b"text/event-stream; charset=utf-8"
    """Of a stream."""
    done: ClassVar[bytes] = b""
    """The last bytes of a stream."""
    text_key: ClassVar[bytes] = b"content"
    """The key of the answer's text in a whole response."""
    templated: ClassVar[bool] = True
    """Whether the chat template is applied, and the model may reason."""

    def __init__(self, reply: ReplyInfo) -> None:
        self.reply = reply

    @staticmethod
    @abstractmethod
    def read(body: dict[str, Any]) -> CompletionRequest:
        """The fields of a request. Raises ValueError, KeyError or TypeError for a body that is malformed."""

    @staticmethod
    def error(code: int, message: str) -> dict[str, Any]:
        """The JSON of an error."""
        return {"error": {"message": message, "type": "invalid_request_error", "code": code}}

    def event(self, payload: bytes) -> bytes:
        """JSON as an event of a stream."""
        return b"data: %s\n\n" % payload

    @abstractmethod
    def opening(self) -> bytes:
        """The events before the first token."""

    @abstractmethod
    def tokens(self, answer: bytes, reasoning: bytes = b"", usage: TokenCounts | None = None) -> bytes:
        """The events of one or more tokens. Both texts are quoted for JSON already. `usage`: the counts so far,
        where they are wanted in every chunk."""

    @abstractmethod
    def ending(self, reason: str, usage: TokenCounts, usage_events: int) -> bytes:
        """The events after the last token, but for `done`. The count comes in `usage_events` events, where the
        format has such events."""

    @abstractmethod
    def whole(self, answer: str, reasoning: str, reason: str, usage: TokenCounts) -> dict[str, Any]:
        """The JSON of a response that is not streamed."""


def prompt_text(prompt: Any) -> str:
    """The text of a prompt or of chat messages; words separated by whitespace are the simulator's tokens."""
    if isinstance(prompt, str):
        return prompt
    parts: list[str] = []
    for item in prompt:
        content = item.get("content") if isinstance(item, dict) else item
        if isinstance(content, list):
            content = " ".join(str(piece.get("text", "")) for piece in content if isinstance(piece, dict))
        parts.append(str(content))
    return " ".join(parts)


def tokens(value: Any) -> int | None:
    """A limit of tokens; None stays None."""
    return None if value is None else int(value)
