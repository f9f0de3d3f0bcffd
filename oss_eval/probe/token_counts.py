"""The token counts of a response, and where they come from."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from oss_eval.probe.apis import count
from oss_eval.probe.reply import Reply
from oss_eval.records import RequestRecord

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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


class EventTokens:
    """Tokens of each event, from the usage so far in every one (vLLM's continuous_usage_stats) by difference."""

    def __init__(self) -> None:
        self.tokens = array("q")
        self.so_far = 0
        self.to_answer: int | None = None
        """Tokens up to the first event of the answer, those in it included."""

    def add(self, total: int, is_answer: bool) -> None:
        """An event, after which `total` tokens are complete."""
        if total >= self.so_far:
            self.tokens.append(total - self.so_far)
            self.so_far = total
            if is_answer and self.to_answer is None:
                self.to_answer = total

    def add_many(self, totals: NDArray[np.int64], is_answer: bool) -> None:
        """Events that follow each other, all of the answer or none."""
        import numpy as np  # these are numpy's arrays

        tokens = np.diff(totals, prepend=self.so_far)
        if tokens.min() < 0:  # not a count of the tokens so far: the number of counts will not be that of events
            return
        self.tokens.frombytes(tokens.tobytes())
        self.so_far = int(totals[-1])
        if is_answer and self.to_answer is None:
            self.to_answer = int(totals[0])


def put_event_tokens(
    record: RequestRecord,
    counted: EventTokens,
    pieces: Iterable[tuple[str, str]] | None,
    count_tokens: Callable[[str], int] | None,
) -> None:
    """Fill in the tokens of each token event, where there are any: those that the server has `counted`, else those
    of the events' texts by the tokenizer where events hold several tokens, else none.

    `pieces` are the answer's and the reasoning's part of each event.
    """
    if not record.n_events:
        return
    if len(counted.tokens) == record.n_events:
        tokens, to_answer = counted.tokens, counted.to_answer
    elif pieces is None or count_tokens is None or (record.completion_tokens or 0) <= record.n_events:
        return
    else:
        texts = list(pieces)
        if len(texts) != record.n_events or not all(answer or reasoning for answer, reasoning in texts):
            return
        tokens = array("q", (count_tokens(reasoning) + count_tokens(answer) for answer, reasoning in texts))
        first = next((place for place, (answer, _) in enumerate(texts) if answer), None)
        to_answer = None if first is None else sum(tokens[: first + 1])
    record.event_tokens, record.first_event_tokens, record.tokens_to_answer = tokens, tokens[0], to_answer
