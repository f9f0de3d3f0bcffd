"""The token counts of a response, and where they come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from oss_eval.probe.apis import count
from oss_eval.probe.reply import Reply
from oss_eval.records import RequestRecord


def put_counts(
    record: RequestRecord,
    usage: dict[str, Any] | None,
    reply: Reply,
    count_tokens: Callable[[str], int] | None,
    answered: bool,
    events: int,
) -> None:
    """Fill in the counts: from the server's usage, else by the tokenizer, else of the token events."""
    record.prompt_tokens = count(usage, "prompt_tokens")
    record.completion_tokens = count(usage, "completion_tokens")
    record.reasoning_tokens = count(usage, "completion_tokens_details", "reasoning_tokens")
    record.cached_tokens = count(usage, "prompt_tokens_details", "cached_tokens")
    if record.completion_tokens is not None:
        record.token_source = "usage"
    elif count_tokens is not None and (events or answered):
        record.completion_tokens = count_tokens(reply.reasoning) + count_tokens(reply.text)
        record.token_source = "tokenizer"
    elif events:
        record.completion_tokens = events
        record.token_source = "chunks"
