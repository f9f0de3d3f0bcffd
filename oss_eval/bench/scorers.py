"""Answer extraction and comparison: pure functions of texts.

A scorer takes the answer channel only (reasoning is never graded) and says how it got to its verdict: the
`route`. What a finished answer says in passing is no answer; in a truncated one only a whole box counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Grade:
    """A verdict. `score` is None where there is none: `unscored` then says why."""

    score: float | None
    answer: str | None = None
    """What was taken for the answer, in a form in which equal answers are equal; None when there was none."""
    route: str = ""
    """Where it was found: `box`, `answer line`, `bold`, `cut box`, `none`, ..."""
    unscored: str | None = None
    second: float | None = None
    """The second grader's score; None where it did not look."""
    metrics: dict[str, float] | None = None
    """Every figure of a benchmark that has several."""
    binary: bool = True
    """Whether a score says right or wrong: 1 of 10 points is not right."""


# -- what is the answer channel ---------------------------------------------------------------------------------

_THINK = re.compile(r"<think>.*?</think>", re.S)
_HARMONY_FINAL = re.compile(r"assistant(?:<\|channel\|>)?final(?:<\|message\|>)?|<\|channel\|>final<\|message\|>")
_HARMONY_BARE = re.compile(r"\s*analysis(?=[A-Z])")  # what is left of the tags when they are not shown
_HARMONY_TAGS = re.compile(r"<\|(?:start|end|return|channel|message|constrain|call)\|>")


def final_text(response: str) -> tuple[str, bool]:
    """(the answer without leaked reasoning, whether any had leaked).

    Servers without a reasoning parser leave `<think>` text (DeepSeek R1's template) or Harmony channels (gpt-oss;
    https://cookbook.openai.com/articles/openai-harmony) in the content. An unfinished leak leaves no answer.
    """
    text, leaked = response, False
    if "<|channel|>" in text or _HARMONY_BARE.match(text):
        finals = list(_HARMONY_FINAL.finditer(text))
        return (_HARMONY_TAGS.sub("", text[finals[-1].end() :]).strip() if finals else ""), True
    if "</think>" in text or "<think>" in text:
        leaked = True
        text = _THINK.sub("", text)
        if "</think>" in text:  # the opening tag was part of the prompt
            text = text.rpartition("</think>")[2]
        text = text.partition("<think>")[0]  # begun and never ended
    return text.strip(), leaked


# -- boxes ------------------------------------------------------------------------------------------------------

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=[{ \d])")


def last_box(text: str) -> tuple[str | None, bool]:
    r"""(content of the last `\boxed{...}`, whether a box was begun and not closed after it).

    Braces are balanced, escaped ones passed over; nested boxes give the innermost content.
    """
    content: str | None = None
    end = 0
    for match in _BOX.finditer(text):
        if match.start() < end:
            continue  # inside the box before it
        start = match.end()
        if not text.startswith("{", start):  # \boxed 70
            word = re.match(r"\S+", text[start:])
            content, end = (word.group(), start + word.end()) if word else (content, end)
            continue
        close = _closing(text, start)
        if close is None:
            return None, True
        content, end = text[start + 1 : close], close + 1
    if content is not None and _BOX.search(content):
        inner, cut = last_box(content)
        return (inner if inner is not None else content), cut
    return content, False


def _closing(text: str, start: int) -> int | None:
    depth, index = 0, start
    while index < len(text):
        character = text[index]
        if character == "\\":
            index += 2
            continue
        depth += (character == "{") - (character == "}")
        if not depth:
            return index
        index += 1
    return None


# -- integers ---------------------------------------------------------------------------------------------------

_STYLE = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathbf|mathrm|mathit|mathsf|bf|rm|displaystyle|mbox|bm)\s*\{([^{}]*)\}"
)
_SPACES = re.compile(r"\\[,;:!> ]|\\quad|\\qquad|\\displaystyle|\\left|\\right|~|\$|\\\(|\\\)|\\\[|\\\]")
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|°|\\degree|\\%|%")
_NUMBER = re.compile(r"([+-]?\d+)(?:\.0*)?")
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:[, ]\d{3})+(?:\.0*)?")


def as_integer(text: str) -> int | None:
    r"""The integer that a short answer states, or None.

    Reads through `\text{}` and the like, units, degrees, a closing point or comma, thousands separators,
    full-width digits and a trailing `.0`; of an equation the right side.
    """
    plain = unicodedata.normalize("NFKC", text).replace("{,}", ",").replace("−", "-")
    for _ in range(4):  # styles nest
        plain, count = _STYLE.subn(r" \1 ", plain)
        if not count:
            break
    plain = _DEGREES.sub(" ", plain)
    plain = re.split(r"=|\\equiv(?![a-z])", plain)[-1]
    plain = _SPACES.sub(" ", plain).replace("{", " ").replace("}", " ").replace("*", " ")
    plain = " ".join(plain.split()).strip(" .,;:!")
    if _GROUPED.fullmatch(plain):
        plain = plain.replace(",", "").replace(" ", "")
    match = _NUMBER.match(plain)
    if match is None or len(match.group()) > 30:
        return None
    unit = plain[match.end() :].strip()
    if unit and not re.fullmatch(r"[A-Za-z][A-Za-z /^.\d-]*", unit):
        return None  # 3,70 or 70/3: no integer with a unit behind it
    if re.search(r"\b(?:or|and|to|mod)\b", unit):
        return None
    return int(match.group(1))


_ANSWER_LINE = re.compile(r"(?:final\s+)?answer\s*(?:is|:|=|：)\s*(?:is\s*)?(.+)", re.I)
_BOLD_LINE = re.compile(r"\*\*(.+?)\*\*[.。]?$")


def _answer_line(text: str) -> tuple[str, str] | None:
    """(candidate, route) out of a finished answer without a box: its last line, where that states an answer."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return None
    last = lines[-1]
    found = list(_ANSWER_LINE.finditer(last))
    if found:
        return found[-1].group(1), "answer line"
    if last.startswith("####"):  # GSM8K's own notation
        return last.lstrip("# "), "answer line"
    bold = _BOLD_LINE.search(last)
    if bold:
        return bold.group(1), "bold"
    if len(lines) > 1 and _ANSWER_LINE.fullmatch(lines[-2] + " " + last) and len(last) < 40:
        return last, "answer line"
    if as_integer(last) is not None and len(last) < 40:
        return last, "last line"
    return None


def find_answer(response: str, truncated: bool) -> tuple[str | None, str]:
    """(the answer's own text, route): the last box, else what the last line of a finished answer states."""
    box, cut = last_box(response)
    if cut:
        return None, "cut box"
    if box is not None:
        return box, "box"
    if truncated:
        return None, "truncated"
    return _answer_line(response) or (None, "none")


def integer(response: str, target: str, truncated: bool, settings: dict[str, Any]) -> Grade:
    """An answer that is an integer, compared as one."""
    wanted = as_integer(target)
    if wanted is None:
        return Grade(None, unscored=f"the target {target!r} is no integer")
    text, route = find_answer(response, truncated)
    value = None if text is None else as_integer(text)
    if text is not None and value is None:
        return Grade(0.0, text.strip()[:200], f"{route}, no integer")
    return Grade(float(value == wanted), None if value is None else str(value), route)


# -- texts ------------------------------------------------------------------------------------------------------


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split()).strip(" .,;:!\"'`*")


def exact(response: str, target: str, truncated: bool, settings: dict[str, Any]) -> Grade:
    """The answer is the target, but for case, white space and closing punctuation."""
    box, cut = last_box(response)
    if cut or (truncated and box is None):
        return Grade(0.0, None, "cut box" if cut else "truncated")
    lines = [line for line in response.splitlines() if line.strip()]
    candidate, route = (box, "box") if box is not None else (response, "whole")
    if box is None and lines and (found := list(_ANSWER_LINE.finditer(lines[-1]))):
        candidate, route = found[-1].group(1), "answer line"
    answer = _plain(candidate or "")
    return Grade(float(answer == _plain(target)), answer[:200], route)


def contains(response: str, target: str, truncated: bool, settings: dict[str, Any]) -> Grade:
    """The target stands somewhere in the answer."""
    found = _plain(target) in _plain(response)
    return Grade(float(found), _plain(target)[:200] if found else None, "contained" if found else "none")


_CHOICE_ROUTES = (
    ("answer line", re.compile(r"answer\s*(?:is|:|：)?\s*(?:is\s*)?[\s*$(\[{\\a-z]*?\b([A-Z])\b(?![a-z'])", re.I)),
    ("bold", re.compile(r"\*\*\(?([A-Z])\)?[.)]?(?:\s[^*]*)?\*\*")),
    ("letter", re.compile(r"^\W*\(?([A-Z])\)?\W*$", re.M)),
)


def choice(response: str, target: str, truncated: bool, settings: dict[str, Any]) -> Grade:
    """One letter of several, boxed, on an answer line or alone on a line."""
    wanted = target.strip().upper()
    box, cut = last_box(response)
    if cut:
        return Grade(0.0, None, "cut box")
    if box is not None:
        letter = re.search(r"\b([A-Z])\b", re.sub(r"\\[a-z]+", " ", box.upper() if len(box.strip()) == 1 else box))
        return Grade(float(letter is not None and letter.group(1) == wanted), letter and letter.group(1), "box")
    if not truncated:
        for route, pattern in _CHOICE_ROUTES:
            found = pattern.findall(response)
            if found:
                return Grade(float(found[-1].upper() == wanted), found[-1].upper(), route)
    return Grade(0.0, None, "truncated" if truncated else "none")


def regex(response: str, target: str, truncated: bool, settings: dict[str, Any]) -> Grade:
    """What the task's `pattern` captures last, compared with the target; without a pattern the target is one."""
    pattern = settings.get("pattern")
    if pattern is None:
        found = re.search(target, response, re.M)
        return Grade(float(found is not None), found and found.group()[:200], "target pattern")
    matches = list(re.finditer(pattern, response, re.M))
    if not matches or truncated:
        return Grade(0.0, None, "truncated" if truncated else "none")
    last = matches[-1]
    answer = _plain(last.group(last.lastindex or 0))
    return Grade(float(answer == _plain(target)), answer[:200], "pattern")


def math(response: str, target: str, truncated: bool, settings: dict[str, Any]) -> Grade:
    """Mathematical equality, judged by math-verify (https://github.com/huggingface/Math-Verify)."""
    text, route = find_answer(response, truncated)
    if text is None and route == "none":
        text, route = response, "math-verify"
    if text is None:
        return Grade(0.0, None, route)
    return Grade(
        float(equal_math(f"\\boxed{{{text}}}" if route == "box" else text, target)), text.strip()[:200], route
    )


def equal_math(answer: str, target: str) -> bool:
    """math-verify's own verdict on two texts. It may take long, or for ever: see `grader`."""
    from math_verify import parse, verify

    bare = target if "\\boxed" in target or "$" in target else f"${target}$"
    return bool(verify(parse(bare), parse(answer)))


def second_opinion(response: str, target: str) -> float:
    """The second, independent grader: math-verify finds and compares the answer by its own rules."""
    return float(equal_math(response, target))


Scorer = Callable[[str, str, bool, dict[str, Any]], Grade]
"""(answer channel, target, truncated, the task's settings) -> verdict."""

SCORERS: dict[str, Scorer] = {
    "integer": integer, "math": math, "exact": exact, "choice": choice, "contains": contains, "regex": regex,
}  # fmt: skip
"""By name, as in task files; `judge` asks a model and is not here."""

MAY_HANG = ("math", "regex")
"""These run in a process that can be ended."""
