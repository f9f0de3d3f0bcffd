r"""Where the answer of a response stands: in its last box, else in what a finished response states.

Where two readings remain, there is no answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from oss_eval.bench.scoring.boxes import Box, box_group
from oss_eval.bench.scoring.language import taken_back
from oss_eval.bench.scoring.markup import readable
from oss_eval.bench.scoring.statements import STATEMENT, Statement, bold, readings, statements


@dataclass(frozen=True, slots=True)
class Found:
    """Readings of the answer, the most literal first, and the route to it. No reading: `route` says why."""

    readings: list[str]
    route: str


Value = Callable[[str], Hashable | None]
"""What a text means to a scorer, equal for equal answers; None where it says nothing that could be an answer."""


def find_answer(response: str, truncated: bool, value: Value, pattern: re.Pattern[str] = STATEMENT) -> Found:
    """The answer's own text: the last box, else the last statement of a finished answer.

    `value` tells whether two statements say the same. Statements that contradict each other, without a word that
    takes the first one back, are no answer.
    """
    text = readable(response)
    group, cut = box_group(text)
    if cut:
        return Found([], "cut box")
    if group:
        return _box_answer(text, group, truncated, value, pattern)
    if truncated:
        return Found([], "truncated")
    found = statements(response, pattern)
    if found:
        return _statement_answer(found, value)
    marked = bold(response)
    return Found(readings(marked), "bold") if marked is not None else Found([], "none")


_ALTERNATIVE = re.compile(
    r"[\s$\\)\]]*,?\s*(?:or|and|vs\.?|versus|to|maybe|或)\s+(?:maybe\s+|perhaps\s+)?[$\\(]*\s*-?[\dA-Z\\](?![a-z])"
)
_SCALE = re.compile(r"[\s$\\)\]]*(thousand|million|billion|dozen|hundred)\b")


def _box_answer(text: str, group: list[Box], truncated: bool, value: Value, pattern: re.Pattern[str]) -> Found:
    last = group[-1]
    after = text[last.end :]
    if taken_back(_rest(after)):
        later = [] if truncated else statements(after, pattern)
        return _statement_answer(later, value) if later else Found([], "taken back")
    if _ALTERNATIVE.match(after) or re.search(r"\d[$\\(]*$", text[: group[0].start]) or re.match(r"\$*\d", after):
        return Found([], "two answers")
    content = [box.content for box in group]
    if re.search(r"(?:^|[=$\s(])-$", text[max(0, group[0].start - 2) : group[0].start]):
        content[0] = f"-{content[0]}"
    if scale := _SCALE.match(after):
        content[-1] += f" {scale.group(1)}"
    if len(content) > 1 and len({value(part) for part in content}) == 1 and value(content[0]) is not None:
        content = content[:1]
    said = ", ".join(content)
    later = [] if truncated else [one for one in statements(after, pattern) if _values(one, value)]
    if later and not any(value(said) in _values(one, value) for one in later):
        return Found([], "two answers")
    return Found([said], "box")


def _rest(after: str) -> str:
    """What follows the sentence of a box, or the same sentence where a new thought begins in it."""
    return re.sub(r"^[^.!?\n]{0,200}?(?=[,;]\s*(?:no|wait|actually|sorry)\b)[,;]", "", after)


def _values(one: Statement, value: Value) -> set[Hashable]:
    return {found for found in map(value, readings(one.said)) if found is not None}


def _statement_answer(found: list[Statement], value: Value) -> Found:
    found = [one for one in found if _values(one, value)] or found
    rank = [one for one in found if one.final] or [one for one in found if one.label or one.last] or found
    chosen = rank[-1]
    own = _values(chosen, value)
    for other in rank[:-1]:
        theirs = _values(other, value)
        if own and theirs and not own & theirs and (other.label or other.last):
            return Found([], "two answers")
    return Found(readings(chosen.said), "answer line")
