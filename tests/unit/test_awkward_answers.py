"""Answers in forms that models use and that are easily misread, each with a reader's verdict.

`awkward_answers/<scorer>.jsonl` has one answer a line: `answer`, `target`, `right`. Answers that name several values,
deny, doubt or take back their answer are not right.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oss_eval.bench.scoring.leaks import final_text
from oss_eval.bench.scoring.scorer_process import ScorerProcess
from oss_eval.bench.scoring.scorers import SCORERS

FILES = sorted((Path(__file__).parent / "awkward_answers").glob("*.jsonl"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_awkward_answers(file: Path) -> None:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(rows) > 100
    wrong = []
    for row in rows:
        text, _ = final_text(row["answer"])
        score = SCORERS[file.stem](text, row["target"], False, {})
        if (score.score == 1.0) != row["right"]:
            wrong.append((row["answer"], row["target"], score))
    assert not wrong, f"{len(wrong)} of {len(rows)}: {wrong[:10]}"


@pytest.mark.parametrize(
    ("scorer", "target"),
    [("choice", ""), ("choice", "the second one"), ("choice", "A or B"), ("integer", ""), ("integer", "seventy"),
     ("integer", "70 or 71"), ("exact", ""), ("exact", " . "), ("contains", ""), ("math", ""), ("math", "$$"),
     ("math", "\\boxed{}")],
)  # fmt: skip
def test_a_target_that_no_answer_could_match_leaves_the_sample_ungraded(scorer: str, target: str) -> None:
    score = SCORERS[scorer]("Answer: A", target, False, {})
    assert score.score is None
    assert score.unscored


@pytest.mark.parametrize(
    "answer", ["Answer: $B$", "B!", "**(B)**", "[B]", "Answer: B.", "\\boxed{\\text{B}}", "b"]
)
def test_equal_letters_are_stored_alike(answer: str) -> None:
    assert SCORERS["choice"](answer, "C", False, {}).answer == "B"


def test_truncated_answers_count_only_with_a_complete_box() -> None:
    for scorer, answer in (
        ("integer", "Answer: 70"),
        ("choice", "Answer: B"),
        ("exact", "Answer: x"),
        ("math", "Answer: 7"),
    ):
        target = answer.removeprefix("Answer: ")
        assert SCORERS[scorer](answer, target, True, {}).score == 0.0
        assert SCORERS[scorer](f"\\boxed{{{target}}} and so", target, True, {}).score == 1.0
        assert SCORERS[scorer](f"\\boxed{{{target}}}. Wait, that is wrong. We", target, True, {}).score == 0.0


HOSTILE = {
    "boxes": "\\boxed{", "stars": "*a", "bold": "**", "answers": "answer is ", "lines": "Answer: 7\n", "waits": "Wait. ",
    "digits": "7", "parentheses": "(", "displays": "\\[", "styles": "\\text{", "equations": "a=", "commas": "1,",
    "calls": "A is correct. ", "tags": "<think>", "strikes": "~~a", "box answers": "\\boxed{7}, ", "backslashes": "\\",
}  # fmt: skip


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE)
def test_grading_takes_time_in_proportion_to_the_text(piece: str) -> None:
    """Without limits in the patterns, such texts took minutes."""
    text = piece * (100_000 // len(piece))
    final_text(text)
    for name, target in (("integer", "70"), ("choice", "B"), ("exact", "Paris")):
        assert SCORERS[name](text, target, False, {}).score in (0.0, 1.0)


def test_expressions_are_graded_in_the_scorer_process() -> None:
    scorers = ScorerProcess()
    try:
        assert scorers.grade("math", "Answer: √2", "\\sqrt{2}", False, {}).score == 1.0
        assert scorers.grade("math", "It is not 70.", "70", False, {}).score == 0.0
    finally:
        scorers.close()
