"""The answer key for the simulator: ends of right and wrong answers to a benchmark's samples."""

from __future__ import annotations

import json
import random
from pathlib import Path

from oss_eval.bench.scoring.integers import as_integer
from oss_eval.bench.types import LETTERS, Sample
from oss_eval.simulator.formats.base import prompt_text

WRONG = 6
"""Number of wrong answers for each sample."""


def write(path: Path, samples: list[Sample]) -> None:
    """Write one line for each sample that has a right answer."""
    with path.open("w", encoding="utf-8") as file:
        for sample in samples:
            if sample.target:
                right, wrong = endings(sample)
                entry = {"prompt": prompt_text(sample.messages), "right": right, "wrong": wrong}
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def endings(sample: Sample) -> tuple[str, list[str]]:
    """(end of a right answer, ends of wrong ones)."""
    target = sample.target.strip()
    rng = random.Random(prompt_text(sample.messages))
    if sample.form == "choice":
        others = [letter for letter in LETTERS[: max(2, sample.choices)] if letter != target]
        return f"ANSWER: {target}", [f"ANSWER: {letter}" for letter in others]
    value = as_integer(target)
    if value is not None:
        wrong = [str(abs(value + step)) for step in rng.sample([-20, -10, -2, -1, 1, 2, 3, 7, 10, 60], WRONG)]
        wrong = [text for text in wrong if text != str(value)]
    else:
        wrong = ["0", "unknown", "\\frac{1}{7}"]
    if sample.form == "box":
        return f"The answer is \\boxed{{{target}}}.", [f"The answer is \\boxed{{{text}}}." for text in wrong]
    return target, wrong
