r"""The `\boxed{...}` of a response."""

from __future__ import annotations

import re
from dataclasses import dataclass

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=[{ \d-])")
_BRACE = re.compile(r"\\.|[{}]", re.S)
_DENIED = re.compile(
    r"(?:\b(?:not|never|neither|cannot)|n[’']t)\s+(?:be\s+|equal(?:\s+to)?\s+|just\s+|simply\s+)?(?:\$+|\\\(|\\\[)?\s*$",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Box:
    r"""A `\boxed{...}` that holds something, and where it stands in the text."""

    content: str
    start: int
    end: int


def boxes(text: str) -> tuple[list[Box], bool]:
    """(the boxes with content, in order; whether a box was begun and not closed after them).

    Braces are balanced, escaped ones passed over. Of nested boxes the innermost counts.
    """
    closing = _closings(text)
    found: list[Box] = []
    for match in _BOX.finditer(text):
        start = match.end()
        if text.startswith("{", start):
            close = closing.get(start)
            if close is None:
                return [], True
            content, end = text[start + 1 : close], close + 1
        else:  # \boxed 70
            word = re.match(r"[^\s$\\]+", text[start:])
            if word is None:
                continue
            content, end = word.group(), start + word.end()
        if found and match.start() < found[-1].end and content.strip():
            outer = found.pop()
            found.append(Box(content, outer.start, outer.end))
        elif content.strip():
            found.append(Box(content, match.start(), end))
    return found, False


def _closings(text: str) -> dict[int, int]:
    """Where each opening brace is closed."""
    opened: list[int] = []
    closing: dict[int, int] = {}
    for match in _BRACE.finditer(text):
        if match.group() == "{":
            opened.append(match.start())
        elif match.group() == "}" and opened:
            closing[opened.pop()] = match.start()
    return closing


def last_box(text: str) -> tuple[str | None, bool]:
    """(content of the last box that holds something, whether a box was begun and not closed after it)."""
    found, cut = boxes(text)
    return (found[-1].content if found else None), cut


_BETWEEN = re.compile(
    r"[\s$,;&]*(?:\\\)|\\\]|\\\(|\\\[|\\quad|\\text\{|\}|and|or|和|或|、|maybe|perhaps|possibly|also|[\s$,;&])*"
)


_WITHDRAWN = re.compile(
    r"\b(?:retract|withdr[ae]w|discard|reject|take\s+back)\w*\b[^.\n]*$|\b(?:wrong|incorrect)\s+answer\s+(?:of|is|was)?\W*$",
    re.I,
)
_VOID = re.compile(
    r"[\s$\\)\]]*(?:is|was)\s+(?:wrong|incorrect|not\b|a\s+mistake|what\s+(?:i|most|many|some)\b)"
    r"|[^.!?\n]{0,80}[,;]\s*(?:but\s+)?(?:that|this|it)\s+(?:is|was)\s+(?:wrong|incorrect|not\s+(?:right|correct)|a\s+mistake)",
    re.I,
)


def _denied(text: str, box: Box) -> bool:
    """Whether the sentence of a box denies or withdraws it."""
    before = text[max(0, box.start - 80) : box.start]
    return bool(_DENIED.search(before) or _WITHDRAWN.search(before) or _VOID.match(text, box.end))


def box_group(text: str) -> tuple[list[Box], bool]:
    """(the last group of boxes with nothing but `,`, `and` or `or` between them, whether a box was cut)."""
    found, cut = boxes(text)
    found = [box for box in found if not _denied(text, box)]
    group = found[-1:]
    for box in reversed(found[:-1]):
        if not _BETWEEN.fullmatch(text, box.end, group[0].start):
            break
        group.insert(0, box)
    return group, cut
