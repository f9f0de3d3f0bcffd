"""What the simulator may answer to a benchmark's questions: right ends and wrong ones, in the form asked for."""

from __future__ import annotations

import json
import random
from pathlib import Path

from oss_eval.bench.scoring.scorers import as_integer
from oss_eval.bench.types import LETTERS, Question
from oss_eval.simulator.answers import prompt_text

WRONG = 6
"""Different wrong answers a question has."""


def write(path: Path, questions: list[Question]) -> None:
    """One line a question that has a right answer."""
    with path.open("w", encoding="utf-8") as file:
        for question in questions:
            if question.target:
                right, wrong = endings(question)
                entry = {"prompt": prompt_text(question.messages), "right": right, "wrong": wrong}
                file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def endings(question: Question) -> tuple[str, list[str]]:
    """(how a right answer ends, how wrong ones may)."""
    target = question.target.strip()
    rng = random.Random(prompt_text(question.messages))
    if question.form == "choice":
        others = [letter for letter in LETTERS[: max(2, question.choices)] if letter != target]
        return f"ANSWER: {target}", [f"ANSWER: {letter}" for letter in others]
    value = as_integer(target)
    if value is not None:
        wrong = [str(abs(value + step)) for step in rng.sample([-20, -10, -2, -1, 1, 2, 3, 7, 10, 60], WRONG)]
        wrong = [text for text in wrong if text != str(value)]
    else:
        wrong = ["0", "unknown", "\\frac{1}{7}"]
    if question.form == "box":
        return f"The answer is \\boxed{{{target}}}.", [f"The answer is \\boxed{{{text}}}." for text in wrong]
    return target, wrong
