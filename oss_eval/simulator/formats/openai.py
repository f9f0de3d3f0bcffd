"""OpenAI's chat completions, as vLLM sends them, and completions (https://platform.openai.com/docs/api-reference/chat)."""

from __future__ import annotations

from typing import Any

import orjson

from oss_eval.simulator.formats.base import CompletionRequest, Format, ReplyInfo, TokenCounts, prompt_text, tokens


def _read(body: dict[str, Any], prompt: Any) -> CompletionRequest:
    options = body.get("stream_options")
    return CompletionRequest(
        prompt_text(prompt), bool(body.get("stream")), body.get("reasoning_effort"),
        limit=tokens(body.get("max_completion_tokens") or body.get("max_tokens")),
        floor=int(body.get("min_tokens") or 0),
        ignore_eos=bool(body.get("ignore_eos")),
        usage_wanted=isinstance(options, dict) and bool(options.get("include_usage")),
        usage_in_chunks=isinstance(options, dict) and bool(options.get("continuous_usage_stats")),
        seed=body.get("seed"),
    )  # fmt: skip


def _so_far(usage: TokenCounts | None) -> bytes:
    """vLLM's usage in every chunk (protocol.py, StreamOptions.continuous_usage_stats)."""
    if usage is None:
        return b""
    counts = usage.prompt, usage.prompt + usage.completion, usage.completion
    return b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}' % counts


class Completions(Format):
    """/v1/completions."""

    done = b"data: [DONE]\n\n"
    text_key = b"text"
    templated = False
    prefix, kind, chunk_kind = "cmpl", "text_completion", "text_completion"

    def __init__(self, reply: ReplyInfo) -> None:
        super().__init__(reply)
        fields = {
            "id": f"{self.prefix}-{reply.number:08x}",
            "object": self.chunk_kind if reply.stream else self.kind,
            "created": reply.created,
            "model": reply.model,
        }
        self._head = orjson.dumps(fields)[:-1]
        self._event = b"data: " + self._head

    @staticmethod
    def read(body: dict[str, Any]) -> CompletionRequest:
        """A prompt."""
        return _read(body, body["prompt"])

    def opening(self) -> bytes:
        """Nothing."""
        return b""

    def tokens(self, answer: bytes, reasoning: bytes = b"", usage: TokenCounts | None = None) -> bytes:
        """A chunk."""
        payload = b'%s,"choices":[{"index":0,"text":"%s","logprobs":null,"finish_reason":null}]%s}\n\n'
        return payload % (self._event, answer, _so_far(usage))

    def ending(self, reason: str, usage: TokenCounts, usage_events: int) -> bytes:
        """A chunk with the stop reason, and one with the usage."""
        counts = self.event(self._head + b',"choices":[],"usage":' + orjson.dumps(self._usage(usage)) + b"}")
        return self._choice(self._part("", ""), reason) + counts * usage_events

    def whole(self, answer: str, reasoning: str, reason: str, usage: TokenCounts) -> dict[str, Any]:
        """A completion."""
        choice = {"index": 0, **self._part(answer, reasoning), "logprobs": None, "finish_reason": reason}
        return {**orjson.loads(self._head + b"}"), "choices": [choice], "usage": self._usage(usage)}

    def _choice(self, part: dict[str, Any], reason: str | None) -> bytes:
        choice = {"index": 0, **part, "logprobs": None, "finish_reason": reason}
        return self.event(self._head + b',"choices":' + orjson.dumps([choice]) + b"}")

    def _part(self, answer: str, reasoning: str) -> dict[str, Any]:
        return {"text": answer}

    def _usage(self, usage: TokenCounts) -> dict[str, Any]:
        cached = {} if usage.cached is None else {"prompt_tokens_details": {"cached_tokens": usage.cached}}
        return {
            "prompt_tokens": usage.prompt,
            "completion_tokens": usage.completion,
            "total_tokens": usage.prompt + usage.completion,
            **cached,
        }


class Chat(Completions):
    """/v1/chat/completions, with `reasoning_content`."""

    text_key = b"content"
    templated = True
    prefix, kind, chunk_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"

    @staticmethod
    def read(body: dict[str, Any]) -> CompletionRequest:
        """Messages."""
        return _read(body, body["messages"])

    def opening(self) -> bytes:
        """The role."""
        return self._choice({"delta": {"role": "assistant", "content": ""}}, None)

    def tokens(self, answer: bytes, reasoning: bytes = b"", usage: TokenCounts | None = None) -> bytes:
        """A chunk."""
        if reasoning:
            delta = b'"reasoning_content":"%s"' % reasoning
            delta += b',"content":"%s"' % answer if answer else b""
        else:
            delta = b'"content":"%s"' % answer
        payload = b'%s,"choices":[{"index":0,"delta":{%s},"logprobs":null,"finish_reason":null}]%s}\n\n'
        return payload % (self._event, delta, _so_far(usage))

    def _part(self, answer: str, reasoning: str) -> dict[str, Any]:
        if self.reply.stream:
            return {"delta": {}}
        return {"message": {"role": "assistant", "content": answer, "reasoning_content": reasoning or None}}

    def _usage(self, usage: TokenCounts) -> dict[str, Any]:
        return {**super()._usage(usage), "completion_tokens_details": {"reasoning_tokens": usage.reasoning}}
