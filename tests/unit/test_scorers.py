"""What counts as an answer, and which answers are equal."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oss_eval.bench.scoring.boxes import last_box
from oss_eval.bench.scoring.choices import choice
from oss_eval.bench.scoring.integers import as_integer, integer
from oss_eval.bench.scoring.leaks import final_text
from oss_eval.bench.scoring.scorer_process import ScorerError, ScorerProcess
from oss_eval.bench.scoring.scorers import SCORERS
from oss_eval.bench.scoring.texts import contains, exact, regex
from tests.helpers.commands import ROOT

RIGHT = {
    r"\boxed{070}": "70",
    r"\boxed{70.}": "70",
    r"\boxed{70.0}": "70",
    r"\boxed{\text{70}}": "70",
    r"\boxed{\mathbf{70}}": "70",
    r"\boxed{n=70}": "70",
    r"\boxed{21+49=70}": "70",
    r"\boxed{336^\circ}": "336",
    r"\boxed{70,}": "70",
    r"\boxed{70\,}": "70",
    r"\boxed{\boxed{70}}": "70",
    r"\boxed{1,176}": "1176",
    r"\boxed{1{,}176}": "1176",
    r"\boxed{1\,176}": "1176",
    "Thus.\nAnswer: 70.": "70",
    "It follows.\n**70**": "70",
    r"So $\boxed{70}$, as we wanted to show. Note that 71 is prime.": "70",
    r"$\boxed{７０}$": "70",
    r"\boxed{70 \text{ cm}^2}": "70",
    r"\boxed{\mathrm{Area} = \mathbf{70}}": "70",
    r"First \boxed{12}, no: \boxed{70}": "70",
    "The final answer is: $70$.": "70",
    "**Answer:** 70": "70",
    "#### 2,125": "2125",
    r"\boxed{000}": "0",
    r"\boxed{-5}": "-5",
    r"\boxed {70}": "70",
    r"\boxed{\$18}": "18",
    r"\boxed{\$1{,}000.00}": "1000",
    r"\boxed{1,\!176}": "1176",
    "**Answer**: 70": "70",
    r"\boxed{n \equiv 70 \pmod{1000}}": "70",
    "The answer is 70 (mod 1000)": "70",
    r"\boxed{(70)}": "70",
    r"\boxed{\bf 70}": "70",
    r"\boxed{\text{Answer: }70}": "70",
    r"\boxed{€70}": "70",
    "The answer is: 70。": "70",
    "答案：70": "70",
    "The final answer is 70, which is even": "70",
    "Answer: 70, since 70 = 21 + 49": "70",
    "She has **70** apples.": "70",
    r"\boxed{70}. Check \boxed{}": "70",
    "**Final Answer**\n70": "70",
}


@pytest.mark.parametrize(("answer", "target"), RIGHT.items())
def test_right_answers_in_awkward_forms(answer: str, target: str) -> None:
    grade = integer(answer, target, False, {})
    assert grade.score == 1.0, grade
    assert grade.answer == target
    assert grade.route


WRONG = [
    (r"\boxed{70}. Wait: \boxed{7", True, "cut box"),
    (r"\boxed{70}. Wait: \boxed{7", False, "cut box"),
    ("we count 70", True, "truncated"),
    ("Answer: 70", True, "truncated"),
    (r"\boxed{70} or rather \boxed{71}", False, "box"),
    (r"\boxed{3,70}", False, "box, no integer"),
    (r"\boxed{70/3}", False, "box, no integer"),
    (r"\boxed{70 \text{ or } 71}", False, "box, no integer"),
    ("There are 70 ways to begin, and so on, which leads nowhere in the end.", False, "none"),
    ("", False, "none"),
    (r"\boxed{}", False, "none"),
    (r"\boxed{70!}", False, "box, no integer"),
    (r"\boxed{70x}", False, "box, no integer"),
    (r"\boxed{70\sqrt{3}}", False, "box, no integer"),
    (r"\boxed{70e3}", False, "box, no integer"),
    (r"\boxed{70 \pi}", False, "box, no integer"),
    ("Answer: 70 or 71", False, "answer line, no integer"),
]


@pytest.mark.parametrize(("answer", "truncated", "route"), WRONG)
def test_what_is_no_right_answer(answer: str, truncated: bool, route: str) -> None:
    grade = integer(answer, "70", truncated, {})
    assert (grade.score, grade.route) == (0.0, route)


def test_a_box_counts_in_an_answer_that_was_cut_later() -> None:
    assert integer(r"\boxed{70} Let me check that once mo", "70", True, {}).score == 1.0


def test_a_target_that_is_no_integer_leaves_the_sample_unscored() -> None:
    grade = integer(r"\boxed{70}", "seventy", False, {})
    assert grade.score is None
    assert "seventy" in str(grade.unscored)


@pytest.mark.parametrize(
    ("content", "answer", "leaked"),
    [
        (r"<think>so \boxed{70}</think>\boxed{71}", r"\boxed{71}", True),
        (r"<think>perhaps \boxed{70}", "", True),
        (r"perhaps \boxed{70}</think>It is \boxed{3}", r"It is \boxed{3}", True),
        (r"analysisWe need \boxed{70}assistantfinal\boxed{71}", r"\boxed{71}", True),
        (r"<|channel|>analysis<|message|>\boxed{70}<|end|><|start|>assistant<|channel|>final<|message|>\boxed{71}",
         r"\boxed{71}", True),
        (r"<|channel|>analysis<|message|>perhaps \boxed{70}", "", True),
        (r"analysis of the figure: \boxed{70}", r"analysis of the figure: \boxed{70}", False),
    ],
)  # fmt: skip
def test_leaked_reasoning_is_no_answer(content: str, answer: str, leaked: bool) -> None:
    assert final_text(content) == (answer, leaked)


def test_choice() -> None:
    for answer in ("ANSWER: B", "The answer is (B).", r"\boxed{\text{B}}", "**B**", "B", "Answer: **B) Paris**"):
        assert choice(answer, "B", False, {}).score == 1.0, answer
        assert choice(answer, "C", False, {}).score == 0.0, answer
    for answer in ("Answer: B\n\nThis answer is a good one", "B. Paris", "b", "Option B is correct.", 'Answer: "B"',
                   "The answer is B. A is wrong because it answers another question.", "答案：B", r"\boxed{\text{(b)}}",
                   "The correct choice is B.", "**Answer**: B", "Answer:\nB", "Answer: Ｂ"):  # fmt: skip
        assert choice(answer, "B", False, {}).score == 1.0, answer
    for answer in (r"\boxed{A, B}", "**A** **B** **C** I cannot decide", "Answer: I think B", "It could be B"):
        assert choice(answer, "B", False, {}).answer is None, answer
    assert choice("Answer: D\n\nNote: the answer B would be right if x", "D", False, {}).score == 1.0
    assert choice("I think A at first.\nAnswer: B", "B", False, {}).score == 1.0
    assert choice("Answer: B", "B", True, {}).route == "truncated"


def test_texts() -> None:
    assert exact(" The Cat. ", "the cat", False, {}).score == 1.0
    assert exact("The cat sat", "the cat", False, {}).score == 0.0
    assert exact("Well.\nAnswer: the cat", "The Cat", False, {}).score == 1.0
    for answer in (
        r"\boxed{\text{The Cat}}",
        "**Answer**: the cat",
        "**Final Answer:**\nthe cat",
        "“the cat”",
        "the cat。",
    ):
        assert exact(answer, "the cat", False, {}).score == 1.0, answer
    assert exact("", "", False, {}).score is None
    assert contains("the cat", "the cat", True, {}).score == 0.0
    assert contains("Surely THE  cat did it", "the cat", False, {}).score == 1.0
    assert contains("the dog", "the cat", False, {}).score == 0.0
    assert regex("code: X-12 then X-34", "34", False, {"pattern": r"X-(\d+)"}).score == 1.0
    assert regex("paris or PARIS", r"(?i)paris", False, {}).score == 1.0


@pytest.fixture(scope="module")
def grader() -> object:
    found = ScorerProcess(patience=3.0)
    yield found
    found.close()


def test_expressions(grader: ScorerProcess) -> None:
    assert grader.grade("math", r"so $\boxed{\frac{1}{2}}$", "0.5", False, {}).score == 1.0
    assert grader.grade("math", r"so $\boxed{x^2+2x+1}$", "$(x+1)^2$", False, {}).score == 1.0
    assert grader.grade("math", r"so $\boxed{\frac{1}{3}}$", "0.5", False, {}).score == 0.0
    assert grader.grade("math", "about 0.5 I thi", "0.5", True, {}).score == 0.0
    assert grader.second_score(r"\boxed{70}", "70") == 1.0
    assert grader.second_score(r"\boxed{71}", "70") == 0.0


def test_a_grader_that_does_not_come_back_is_ended(grader: ScorerProcess) -> None:
    with pytest.raises(ScorerError, match="no verdict within 3 s"):
        grader.grade("regex", "a" * 40 + "b", "x", False, {"pattern": "(a+)+$"})
    assert grader.grade("math", r"\boxed{7}", "7", False, {}).score == 1.0  # the next one is graded again


def test_a_grader_that_raises_says_why(grader: ScorerProcess) -> None:
    with pytest.raises(ScorerError, match="regex raised"):
        grader.grade("regex", "x", "x", False, {"pattern": "("})


@settings(max_examples=300)
@given(st.text(alphabet=st.sampled_from("\\boxed{}70,.=$ anw:er*\n<think>/"), max_size=60), st.booleans())
def test_no_text_trips_a_scorer(text: str, truncated: bool) -> None:
    for name in ("integer", "exact", "choice", "contains"):
        grade = SCORERS[name](text, "B" if name == "choice" else "70", truncated, {})
        assert grade.score in (0.0, 1.0)
    final_text(text)


@given(st.integers(-(10**12), 10**12))
def test_integers_survive_their_usual_clothes(number: int) -> None:
    for text in (
        str(number),
        f"{number:,}",
        f" ${number}$. ",
        rf"\text{{{number}}}",
        f"x = {number}",
        f"{number}.0",
    ):
        assert as_integer(text) == number, text


@given(st.text(max_size=40))
def test_a_balanced_box_is_found_whole(text: str) -> None:
    content = text.replace("\\", "").replace("{", "").replace("}", "")
    assert last_box(f"a \\boxed{{{{{content}}}}} b") == (f"{{{content}}}", False)


def test_the_scorer_process_imports_no_more_than_it_needs() -> None:
    """It is started with the run, and the first answers wait for it."""
    code = (
        "import sys, oss_eval.bench.scoring.scorer_process\n"
        "print(*sorted({'.'.join(name.split('.')[:2]) for name in sys.modules if name.startswith('oss_eval.')}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.stdout.split() == ["oss_eval.bench", "oss_eval.system"]
