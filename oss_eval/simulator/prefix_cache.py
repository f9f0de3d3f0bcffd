"""A prefix cache without limit, in blocks, as vLLM's automatic prefix caching
(https://docs.vllm.ai/en/latest/design/prefix_caching.html)."""

from __future__ import annotations

BLOCK_TOKENS = 16


class PrefixCache:
    """The blocks of all prompts so far, each with what came before it."""

    def __init__(self) -> None:
        self._blocks: set[int] = set()

    def cached(self, tokens: list[str]) -> int:
        """How many of a prompt's first tokens an earlier prompt began with, in whole blocks; the prompt is
        kept."""
        found, missed, prefix = 0, False, 0
        for begin in range(0, len(tokens) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
            prefix = hash((prefix, *tokens[begin : begin + BLOCK_TOKENS]))
            missed = missed or prefix not in self._blocks
            if missed:
                self._blocks.add(prefix)
            else:
                found += BLOCK_TOKENS
        return found
