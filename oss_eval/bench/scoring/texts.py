"""Answers that are texts."""

from __future__ import annotations

import re
from typing import Any

from oss_eval.bench.scoring.answers import find_answer
from oss_eval.bench.scoring.markup import bare
from oss_eval.bench.types import Score


def _value(text: str) -> str | None:
    """A short text that could be an answer, rather than prose about one: `correct, because ...`."""
    prose = len(text.split()) > 6 or re.match(r"\W*(?:correct|right|based|found|obtained|in|that)\b", text, re.I)
    return None if prose else bare(text) or None


def exact(response: str, target: str, truncated: bool, settings: dict[str, Any]) -> Score:
    """The answer is the target, but for case, white space, quotation and closing punctuation."""
    wanted = bare(target)
    if not wanted:
        return Score(None, unscored="the target is empty")
    found = find_answer(response, truncated, _value)
    if not found.readings and found.route != "none":
        return Score(0.0, None, found.route)
    answers = [answer for answer in map(bare, found.readings) if answer]
    if wanted in answers:
        return Score(1.0, wanted[:200], found.route)
    if not answers or found.route == "bold":
        whole = bare(response)
        return Score(float(whole == wanted), whole[:200], "whole")
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
