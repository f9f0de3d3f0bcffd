"""The prompts of a trace: as long as there, with the same blocks where it names equal ones."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import lru_cache

from oss_eval.load.prompts.prompts import Sized, words
from oss_eval.load.prompts.tokenizer import Counter
from oss_eval.load.schedule.trace import TraceRequest, block_lengths

BLOCKS_KEPT = 4096


def trace_prompts(
    requests: Sequence[TraceRequest], seed: int, point_id: str, counter: Counter | None, ratio: float
) -> Iterator[Sized]:
    """A prompt for each request. Blocks of equal hash ids have equal text in a point, and another one in the
    next point: no point finds the earlier one's text in the server's cache.

    `counter` and `ratio`: see `prompts.source`.
    """

    @lru_cache(BLOCKS_KEPT)
    def block(number: int, tokens: int) -> str:
        return words(random.Random(f"{seed}/{point_id}/block/{number}"), tokens, counter, ratio)

    for number, one in enumerate(requests):
        if one.prompt is not None:
            yield Sized(one.prompt, one.output_tokens)
            continue
        rng = random.Random(f"{seed}/{point_id}/{number}")
        parts = (
            words(rng, tokens, counter, ratio) if block_id is None else block(block_id, tokens)
            for block_id, tokens in block_lengths(one)
        )
        yield Sized(" ".join(filter(None, parts)) or "Hi", one.output_tokens)
