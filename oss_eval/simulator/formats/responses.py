"""OpenAI's Responses API (https://platform.openai.com/docs/api-reference/responses-streaming): typed events."""

from __future__ import annotations

from typing import Any

import orjson

from oss_eval.simulator.formats.base import CompletionRequest, Format, ReplyInfo, TokenCounts, prompt_text, tokens

REASONING, MESSAGE = "reasoning", "message"
PART = {REASONING: "reasoning_text", MESSAGE: "output_text"}
DELTA = {REASONING: "response.reasoning_text.delta", MESSAGE: "response.output_text.delta"}


class Responses(Format):
    """/v1/responses: an item of reasoning, then a message."""

    text_key = b"text"

    def __init__(self, reply: ReplyInfo) -> None:
        super().__init__(reply)
        self._events = 0
        self._items: list[dict[str, Any]] = []
        self._open: str | None = None
        self._text: list[bytes] = []

    @staticmethod
    def read(body: dict[str, Any]) -> CompletionRequest:
        """An input, a text or messages, with instructions before it."""
        effort = (body.get("reasoning") or {}).get("effort")
        prompt = " ".join(filter(None, (body.get("instructions"), prompt_text(body["input"]))))
        limit = tokens(body.get("max_output_tokens"))
        return CompletionRequest(prompt, bool(body.get("stream")), effort, limit, seed=body.get("seed"))

    def opening(self) -> bytes:
        """The response has begun."""
        begun = {"response": self._response("in_progress", None, None)}
        return self._typed("response.created", begun) + self._typed("response.in_progress", begun)

    def tokens(self, answer: bytes, reasoning: bytes = b"", usage: TokenCounts | None = None) -> bytes:
        """A delta of each kind; before the first one of an item, the events that end the last and begin this."""
        events = self._one(REASONING, reasoning) if reasoning else b""
        return events + (self._one(MESSAGE, answer) if answer or not reasoning else b"")

    def _one(self, kind: str, quoted: bytes) -> bytes:
        before = b""
        if self._open != kind:
            before = self._close_item() + self._begin_item(kind)
        self._text.append(quoted)
        return before + self._delta(quoted)

    def ending(self, reason: str, usage: TokenCounts, usage_events: int) -> bytes:
        """The end of the last item, and the whole response."""
        last = self._close_item()
        status = "completed" if reason == "stop" else "incomplete"
        response = self._response(status, reason, usage)
        return last + self._typed(f"response.{status}", {"response": response})

    def whole(self, answer: str, reasoning: str, reason: str, usage: TokenCounts) -> dict[str, Any]:
        """A response."""
        for kind, text in ((REASONING, reasoning), (MESSAGE, answer)):
            if text:
                self._items.append(self._item(kind, "completed", text))
        return self._response("completed" if reason == "stop" else "incomplete", reason, usage)

    # -- events ----------------------------------------------------------------------------------------

    def _typed(self, kind: str, fields: dict[str, Any]) -> bytes:
        payload = orjson.dumps({"type": kind, "sequence_number": self._events, **fields})
        self._events += 1
        return b"event: %s\ndata: %s\n\n" % (kind.encode(), payload)

    def _delta(self, quoted: bytes) -> bytes:
        assert self._open is not None
        kind = DELTA[self._open].encode()
        logprobs = b',"logprobs":[]' if self._open == MESSAGE else b""
        event = (
            b'event: %s\ndata: {"type":"%s","sequence_number":%d,"item_id":"%s","output_index":%d,'
            b'"content_index":0,"delta":"%s"%s}\n\n'
        )
        number, self._events = self._events, self._events + 1
        return event % (kind, kind, number, self._id(self._open).encode(), len(self._items), quoted, logprobs)

    def _begin_item(self, kind: str) -> bytes:
        self._open = kind
        item = {**self._item(kind, "in_progress", ""), "content": []}
        place = {"item_id": self._id(kind), "output_index": len(self._items), "content_index": 0}
        return self._typed(
            "response.output_item.added", {"output_index": len(self._items), "item": item}
        ) + self._typed("response.content_part.added", {**place, "part": self._part(kind, "")})

    def _close_item(self) -> bytes:
        kind = self._open
        if kind is None:
            return b""
        quoted = b"".join(self._text).decode("utf-8", "replace")  # a fault may have put bytes there
        text = orjson.loads(f'"{quoted}"')
        self._text, self._open = [], None
        place = {"item_id": self._id(kind), "output_index": len(self._items), "content_index": 0}
        logprobs: dict[str, Any] = {"logprobs": []} if kind == MESSAGE else {}
        item = self._item(kind, "completed", text)
        events = (
            self._typed(DELTA[kind].replace(".delta", ".done"), {**place, "text": text, **logprobs})
            + self._typed("response.content_part.done", {**place, "part": self._part(kind, text)})
            + self._typed("response.output_item.done", {"output_index": len(self._items), "item": item})
        )
        self._items.append(item)
        return events

    # -- objects ---------------------------------------------------------------------------------------

    def _id(self, kind: str) -> str:
        return f"{'rs' if kind == REASONING else 'msg'}_{self.reply.number:08x}"

    def _part(self, kind: str, text: str) -> dict[str, Any]:
        more: dict[str, Any] = {"annotations": [], "logprobs": []} if kind == MESSAGE else {}
        return {"type": PART[kind], "text": text, **more}

    def _item(self, kind: str, status: str, text: str) -> dict[str, Any]:
        more: dict[str, Any] = {"role": "assistant"} if kind == MESSAGE else {"summary": []}
        return {"id": self._id(kind), "type": kind, "status": status, **more, "content": [self._part(kind, text)]}

    def _response(self, status: str, reason: str | None, usage: TokenCounts | None) -> dict[str, Any]:
        counts = usage and {
            "input_tokens": usage.prompt,
            "input_tokens_details": {"cached_tokens": usage.cached or 0},
            "output_tokens": usage.completion,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning},
            "total_tokens": usage.prompt + usage.completion,
        }
        return {
            "id": f"resp_{self.reply.number:08x}", "object": "response", "created_at": self.reply.created,
            "status": status, "model": self.reply.model, "output": self._items, "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": None, "metadata": {}, "parallel_tool_calls": True, "temperature": None,
            "tool_choice": "auto", "tools": [], "top_p": None, "usage": counts,
        }  # fmt: skip
