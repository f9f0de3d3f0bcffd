"""Token events of a known shape, without parsing.

Nearly all events of a stream are the same bytes but for the text, and a few fields such as an id, a counter or the
usage so far. So the first one says how to read the others: with a regular expression, or in the compiled reader,
which then passes on timestamps alone. Everything else is left to the parsers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import orjson

from oss_eval.probe.apis import Delta
from oss_eval.probe.apis.base import Read
from oss_eval.probe.reads import SHAPES

VARYING = frozenset(
    b"id created created_at system_fingerprint obfuscation item_id response_id request_id service_tier".split()
)
"""Keys whose texts differ between events of one meaning. Numbers may differ under any key that is no index."""

LITERAL, STRING, NUMBER, COUNT, TEXT = range(5)
"""Kinds of the parts of a shape: these bytes; any string; any number; the completion tokens so far; the text of
the token, without its quotes."""
Part = tuple[int, bytes]
Parts = tuple[Part, ...]

_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+"
_INSIDE = rb'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u(?:[0-9a-cA-CefEF][0-9a-fA-F]|[dD][0-7])[0-9a-fA-F]{2}))'
"""The inside of a JSON string. Half a surrogate pair is no text, and a whole one is left to the parser."""
_PATTERNS = {
    STRING: b'"' + _INSIDE + b'*+"', NUMBER: _NUMBER, COUNT: rb"(?P<count>[0-9]{1,9})",
    TEXT: b"(?P<text>" + _INSIDE + b"++)",
}  # fmt: skip
_VALUES = {STRING: b'"~"', NUMBER: b"7", COUNT: b"7", TEXT: b"\x7f"}
"""Other values, to see whether an event means the same with them."""
_FIELD = re.compile(b'"(' + _INSIDE + rb'*+)"(\s*:\s*)(' + _PATTERNS[STRING] + b"|" + _NUMBER + rb")(?=\s*[,}\]])")


@dataclass(frozen=True, slots=True)
class Shape:
    """Events with one text each on one channel."""

    parts: Parts
    """Of the event with its framing in the stream."""
    pattern: re.Pattern[bytes]
    """Of the JSON. Groups: text, as it is quoted, and count, the completion tokens so far, where `counts`."""
    is_answer: bool
    counts: bool
    reports: bool
    """Whether the events carry usage or the server's timings."""

    def read(self, event: bytes) -> re.Match[bytes] | None:
        """The event's JSON, if it is of this shape."""
        found = self.pattern.fullmatch(event)
        return found if found is not None and (event.isascii() or _is_utf8(event)) else None


class KnownShapes:
    """The shapes that worker processes know, by number."""

    def __init__(self) -> None:
        self._by_number: list[Shape] = []
        self._parts: set[Parts] = set()
        self.new: list[Shape] = []
        """Shapes that have to be sent to them."""

    def __getitem__(self, number: int) -> Shape:
        return self._by_number[number]

    def add(self, shape: Shape) -> None:
        """Note a shape that a decoder has learned."""
        if len(self._by_number) < SHAPES and shape.parts not in self._parts:
            self._parts.add(shape.parts)
            self._by_number.append(shape)
            self.new.append(shape)


def text_of(event: re.Match[bytes]) -> str:
    """The text of an event."""
    quoted = event["text"]
    return str(orjson.loads(b'"%s"' % quoted)) if b"\\" in quoted else quoted.decode()


def learn_shape(event: bytes, delta: Delta, read: Read, framing: tuple[bytes, bytes]) -> Shape | None:
    """The shape of an event that was parsed, or None if it has none. `framing`: what is before and after its JSON.

    It is verified by reading the event again with other texts and numbers: they must mean the same.
    """
    if delta.error or delta.finish_reason or delta.tool_calls or bool(delta.text) == bool(delta.reasoning):
        return None
    quoted = orjson.dumps(delta.text or delta.reasoning)
    before, found, after = event.partition(quoted)
    if not found or quoted in after:
        return None
    json = (*_parts(before), (LITERAL, b'"'), (TEXT, b""), (LITERAL, b'"'), *_parts(after))
    counts = sum(kind == COUNT for kind, _ in json)
    try:
        again = read(orjson.loads(b"".join(_VALUES.get(kind, literal) for kind, literal in json)))
    except orjson.JSONDecodeError:
        return None
    if counts > 1 or (again.text or again.reasoning) != "\x7f" or _meaning(again) != _meaning(delta):
        return None
    parts = _joined(((LITERAL, framing[0]), *json, (LITERAL, framing[1])))
    reports = delta.usage is not None or delta.timings is not None
    return Shape(parts, _compiled(_joined(json)), delta.is_answer, bool(counts), reports)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _meaning(delta: Delta) -> tuple[object, ...]:
    return (
        delta.is_token, delta.is_answer, bool(delta.text), bool(delta.reasoning), delta.finish_reason, delta.error,
        delta.tool_calls, delta.done, delta.is_empty, delta.opens, delta.unknown, delta.usage is None,
        delta.timings is None,
    )  # fmt: skip


def _parts(fragment: bytes) -> list[Part]:
    """A fragment of JSON in parts: what is constant, and the fields that vary."""
    parts: list[Part] = []
    position = 0
    for field in _FIELD.finditer(fragment):
        key, value = field[1], field[3]
        if value.startswith(b'"'):
            kind = STRING if key in VARYING else LITERAL
        else:
            kind = LITERAL if key.endswith(b"index") else COUNT if key == b"completion_tokens" else NUMBER
        if kind != LITERAL:
            parts += [(LITERAL, fragment[position : field.start(3)]), (kind, b"")]
            position = field.end(3)
    return [*parts, (LITERAL, fragment[position:])]


def _joined(parts: Parts) -> Parts:
    """The same with literals that follow each other in one."""
    found: list[Part] = []
    for kind, literal in parts:
        if kind == LITERAL and found and found[-1][0] == LITERAL:
            found[-1] = LITERAL, found[-1][1] + literal
        else:
            found.append((kind, literal))
    return tuple(found)


@lru_cache(maxsize=256)
def _compiled(parts: Parts) -> re.Pattern[bytes]:
    return re.compile(b"".join(_PATTERNS.get(kind, re.escape(literal)) for kind, literal in parts))
