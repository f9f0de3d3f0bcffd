"""What a server said, without the secrets that it repeats."""

from __future__ import annotations

from collections.abc import Callable

import orjson

from oss_eval.probe.error_body import MESSAGE_BYTES
from oss_eval.probe.reply import Reply
from oss_eval.records import RequestRecord
from oss_eval.system.redact import Redactor, redacted
from oss_eval.system.text import cut


def redact_record(record: RequestRecord, secrets: tuple[str, ...]) -> None:
    """Remove secrets from the texts of a record, and cut its error text to MESSAGE_BYTES."""
    for name in ("error_message", "finish_reason", "server_timings") if secrets else ():
        if getattr(record, name):
            setattr(record, name, redacted(getattr(record, name), secrets))
    if record.error_message:
        record.error_message = cut(record.error_message, MESSAGE_BYTES)


def redact_reply(reply: Reply, secrets: tuple[str, ...]) -> None:
    """Remove secrets from an answer, its reasoning and its tool calls."""
    if not secrets:
        return
    reply.text, reply.reasoning = redacted(reply.text, secrets), redacted(reply.reasoning, secrets)
    if reply.tool_calls:
        reply.tool_calls = orjson.loads(redacted(orjson.dumps(reply.tool_calls).decode(), secrets))


class RedactedText:
    """Passes pieces of (answer, reasoning) on without secrets."""

    def __init__(self, on_text: Callable[[str, str], None], secrets: tuple[str, ...]) -> None:
        self._on_text = on_text
        self._answer, self._reasoning = Redactor(secrets), Redactor(secrets)

    def __call__(self, answer: str, reasoning: str) -> None:
        """A piece of the answer or of the reasoning."""
        self._pass(self._answer.feed(answer), self._reasoning.feed(reasoning))

    def end(self) -> None:
        """What was held back."""
        self._pass("", self._reasoning.end())
        self._pass(self._answer.end(), "")

    def _pass(self, answer: str, reasoning: str) -> None:
        if answer or reasoning:
            self._on_text(answer, reasoning)
