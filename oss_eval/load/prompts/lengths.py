"""What makes a random prompt as long as asked: a tokenizer, the server's own counts or, failing both, words."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from oss_eval.errors import UsageError
from oss_eval.load.prompts.prompts import VOCABULARY
from oss_eval.load.prompts.tokenizer import Counter, load_tokenizer

PROBE_WORDS = (64, 192)
"""Lengths of the two prompts that show how the server counts words as tokens."""
UNCOUNTED = "words, because the server does not count prompt tokens"


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long prompts get."""

    counter: Counter | None = None
    """Makes them exact."""
    words_per_token: float = 1.0
    by: str | None = None
    """For people, and for a resumed run: what lengths go by."""

    @property
    def count(self) -> Callable[[str], int] | None:
        """Tokens of a text, where they can be counted on this side."""
        return None if self.counter is None else self.counter.count


def by_tokenizer(path: str, stored: dict[str, Any] | None) -> Lengths | str:
    """Lengths by the tokenizer at `path`, or why there are none.

    `stored` is the manifest of a resumed run, whose prompts have to stay what they were. Raises UsageError.
    """
    by = f"tokenizer {path}"
    if stored is not None and stored.get("prompt_lengths_by") != by:
        return "the run's prompts were made without it, and stay as they are"
    found = load_tokenizer(path)
    if isinstance(found, Counter):
        return Lengths(found, by=by)
    if stored is not None:
        raise UsageError(
            f"the run's prompts were made with the tokenizer {path}, which is not to be had now: {found}",
            "make it available where it was, or begin a run of its own",
        )
    instead = (
        "Prompt lengths are set by the server's own token counts instead; give a local folder to use a tokenizer."
    )
    return f"{found}.\n  {instead}"


def probes(seed: int) -> list[str]:
    """The two prompts that `by_counts` wants counted."""
    rng = random.Random(f"{seed}/probe")
    return [" ".join(rng.choices(VOCABULARY, k=words)) for words in PROBE_WORDS]


def by_counts(prompt_tokens: Sequence[int | None]) -> Lengths:
    """Lengths by what the server counted in `probes`: a template's tokens are in both, so they don't matter."""
    short, long = sorted(count or 0 for count in prompt_tokens)
    if not short or long == short:
        return Lengths(by=UNCOUNTED)
    return Lengths(
        words_per_token=(PROBE_WORDS[1] - PROBE_WORDS[0]) / (long - short), by="the server's own counts"
    )
