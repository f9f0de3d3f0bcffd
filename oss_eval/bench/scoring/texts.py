"""Answers that are texts."""

from __future__ import annotations

import re
from typing import Any

from oss_eval.bench.scoring.answers import find_answer
from oss_eval.bench.scoring.language import UNCLEAR, sentences, taken_back
from oss_eval.bench.scoring.markup import bare, plain_line, without_emphasis, written_lines
from oss_eval.bench.types import Score


def _value(text: str) -> str | None:
    """A short text that could be an answer, rather than prose about one: `correct, because ...`."""
    prose = len(text.split()) > 6 or re.match(r"\W*(?:correct|right|based|found|obtained|in|that)\b", text, re.I)
    return None if prose else bare(text) or None


_PLAINLY = re.compile(r"\W*(yes|no|true|false)\s*[.,;:!—–](?!\s*(?:and|or|but)\b)", re.I)
_TELLS = re.compile(
    r"(?:the|his|her|its|it|this|that|he|she|[^\W\d_]+['’]s)\b[^.!?]{0,100}?(?:\b(?:is|was|are|were)|(?<=it)['’]s)\s+"
    r"(?:(?:most\s+likely|called|named|known\s+as|probably)\s+)?(?P<said>\S.*?)\.?$",
    re.I,
)
_FORMULA = re.compile(r"\s*\((?=[^()]*(?:\d|[A-Z][A-Z]|[₀-₉]))[^()\s]{1,12}\)\s*$")


def _unstated(response: str) -> list[str]:
    """What a response without a box and an answer line may say: all of it, its first line or word, its last
    sentence."""
    found = [response]
    lines = written_lines(response)
    if not lines:
        return found
    rest = "\n".join(lines[1:])
    if not taken_back(rest) and (len(lines) == 1 or len(lines[0]) < 80):
        found.append(plain_line(lines[0]))
        plainly = _PLAINLY.match(lines[0])
        found += [plainly.group(1)] if plainly else []
    last = plain_line(lines[-1])
    for sentence in {last, *sentences(last)[-1:]}:
        told = _TELLS.fullmatch(sentence)
        if told and not UNCLEAR.search(sentence[: told.start("said")].replace("probably", "")):
            found += [told.group("said"), without_emphasis(told.group("said"))]
    return found


def exact(response: str, target: str, truncated: bool, settings: dict[str, Any]) -> Score:
    """The answer is the target, but for case, white space, quotation and closing punctuation."""
    wanted = bare(target)
    if not wanted:
        return Score(None, unscored="the target is empty")
    found = find_answer(response, truncated, _value)
    if not found.readings and found.route != "none":
        return Score(0.0, None, found.route)
    texts = [*found.readings, *(_FORMULA.sub("", reading) for reading in found.readings)]
    answers = [answer for answer in dict.fromkeys(map(bare, texts)) if answer]
    if wanted in answers:
        return Score(1.0, wanted[:200], found.route)
    if not answers or found.route == "bold":
        whole = [bare(reading) for reading in _unstated(response)]
        return Score(float(wanted in whole), (wanted if wanted in whole else whole[0])[:200], "whole")
    return Score(0.0, answers[-1][:200], found.route)


def contains(response: str, target: str, truncated: bool, settings: dict[str, Any]) -> Score:
    """Whether the target occurs in a finished answer."""
    if not bare(target):
        return Score(None, unscored="the target is empty")
    if truncated:
        return Score(0.0, None, "truncated")
    found = bare(target) in bare(response)
    return Score(float(found), None, "contained" if found else "none")


def regex(response: str, target: str, truncated: bool, settings: dict[str, Any]) -> Score:
    """The last group of the task's `pattern`, compared with the target; without a pattern the target is the
    pattern."""
    if truncated:
        return Score(0.0, None, "truncated")
    pattern = settings.get("pattern")
    if pattern is None:
        return Score(float(re.search(target, response, re.M) is not None), None, "target pattern")
    matches = list(re.finditer(pattern, response, re.M))
    if not matches:
        return Score(0.0, None, "none")
    last = matches[-1]
    answer = bare(last.group(last.lastindex or 0))
    return Score(float(answer == bare(target)), answer[:200], "pattern")
