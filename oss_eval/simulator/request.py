"""A request for a completion, as the simulator understands it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import orjson

from oss_eval.simulator.answers import prompt_text


class RequestRefused(Exception):
    """The request is answered with an HTTP error."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """The fields that matter here. Lengths are tokens."""

    chat: bool
    prompt: str
    stream: bool
    effort: str | None
    limit: int | None
    """Maximum length of the answer."""
    floor: int
    """Minimum length of the answer."""
    ignore_eos: bool
    """Whether the answer always reaches `limit`."""
    usage_wanted: bool
    seed: Any

    @property
    def prompt_seed(self) -> int:
        """The same for the same prompt and seed."""
        return zlib.crc32(self.prompt.encode()) ^ zlib.crc32(str("" if self.seed is None else self.seed).encode())


def parse_request(body: bytes, chat: bool, model: str) -> CompletionRequest:
    """Read a request body. Raises RequestRefused for one that the server does not take."""
    try:
        request = orjson.loads(body)
        prompt = prompt_text(request["messages"] if chat else request["prompt"])
        limit = request.get("max_completion_tokens") or request.get("max_tokens")
        limit = None if limit is None else int(limit)
        floor = int(request.get("min_tokens") or 0)
    except (ValueError, KeyError, TypeError) as error:
        raise RequestRefused("400 Bad Request", f"malformed request: {error!r}") from None
    if request.get("model") not in (None, model):
        raise RequestRefused("404 Not Found", f"The model `{request['model']}` does not exist.")
    if limit is not None and limit < 1:
        raise RequestRefused("400 Bad Request", f"max_tokens must be at least 1, got {limit}")
    options = request.get("stream_options")
    return CompletionRequest(
        chat, prompt, bool(request.get("stream")), request.get("reasoning_effort"), limit, floor,
        ignore_eos=bool(request.get("ignore_eos")),
        usage_wanted=isinstance(options, dict) and bool(options.get("include_usage")),
        seed=request.get("seed"),
    )  # fmt: skip
