"""Answers that are one letter of several."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from oss_eval.bench.scoring.answers import find_answer
from oss_eval.bench.scoring.language import last_doubt, meant, sentences, taken_back
from oss_eval.bench.scoring.markup import plain_line, readable, without_emphasis, without_styles
from oss_eval.bench.scoring.statements import bold, statement_pattern
from oss_eval.bench.types import Score

_STATED = statement_pattern(
    r"|(?:options?|choices?)|(?:correct|right|best|true)\s+(?:letter|statement|response|one)",
    r"|\b(?:that|which|this)\s+leaves\s+(?:us\s+with\s+)?(?:only\s+)?|\bleaving\s+(?:only\s+)?"
    r"|\b(?:it|this)(?:['’]s|\s+is|\s+has\s+to\s+be|\s+must\s+be|\s+should\s+be)\s+(?=[(\[]?[A-Z](?:[)\]]|\W|$))"
    r"|\bI(?:\s+would|\s+will|['’]d|['’]ll)?\s+(?:choose|pick|select|say|go\s+with|opt\s+for|answer(?:\s+with)?)\s|\blet['’]s\s+go\s+with\s|\b(?:definitely|clearly|surely)\s+(?=[(\[]?[A-Z][)\]]?\W*$)"
    r"|(?:因此|所以|故|应该?|正确|的|我)*(?:(?:选择|选)(?:应该?|就)?[是为]?\s*[:：]?|选项\s*[是为:：]\s*[:：]?)(?=\s*[(（]?[A-ZＡ-Ｚ](?![A-Za-z]))",
)
_NAME = re.compile(r"[\s({\[\\$]*(?:(?:option|choice|letter|statement|answer|选项)\b\s*[:：]?)?[\s({\[\\$]*", re.I)
_WORD = re.compile(r"([A-Z])(?![A-Za-z0-9'’])")
_CLOSING = r"[\s)\]}$]*"
_END = re.compile(
    rf"{_CLOSING}(?:$|[.,;:!—–(（。，；：/&+|、]|-(?!\d)|\n|\b(?:because|since|as|for|though|although|which|or|and|is|was|must)\b"
    r"|[\u4e00-\u9fff]|(?<=\s)[A-Z0-9\"“])"
)
_CLOSED = re.compile(r"\s*[)\]}]")
_ALSO = re.compile(
    rf"{_CLOSING}(?:[,;/&+|、.]\s*|\s(?:or|and|vs\.?|versus)\s|\s*(?:和|或|以及|及|与)\s*)+(?:or|and|maybe|perhaps|possibly|also|option"
    r"|choice|both|[\s])*[(\[]?(?!I\s+[a-z])(?!A\s+[a-z])[A-Z](?:[)\]]|(?![\w'’.)]))(?!\s+(?:is|are|was|and\s+[A-Z]\s+are)\b)"
)
_DOUBT = re.compile(
    rf"{_CLOSING}[,(]*\s*(?:\?|or\b|maybe\b|perhaps\b|possibly\b|not\s+sure|(?:is|was|seems|might|may|could|can|cannot|isn|can[’']t)\b"
    r"(?!\s+(?:the\s+)?(?:only\s+|clearly\s+|definitely\s+)?(?:correct|right|best|true|answer)))",
    re.I,
)


def letter_of(text: str) -> str | None:
    """The one letter that a short text names, with whatever explains it; None of several, or of none."""
    plain = unicodedata.normalize("NFKC", without_emphasis(without_styles(text)))
    plain = re.sub(r"[\"'“”‘’<>]|\\[(\[)\]]", "", plain).strip()
    if re.fullmatch(r"[\W_]*[A-Za-z][\W_]*", plain):
        return None if "?" in plain else re.sub(r"[\W_]", "", plain).upper()
    small = re.match(r"[(\[]?([a-j])[)\]]\s", plain)
    if small:
        return small.group(1).upper()
    named = _NAME.match(plain)
    begin = named.end() if named else 0
    match = _WORD.match(plain, begin)
    if match is None:
        return None
    rest = plain[match.end() :]
    if not (_CLOSED.match(rest) and re.search(r"[(\[]\s*$", plain[: match.start()])) and not _END.match(rest):
        return None
    if match.group() in "AI" and re.match(r"\s+[A-Z]", rest) and plain[begin - 1 : begin] != "(":
        return None  # A Midsummer Night's Dream
    return None if _ALSO.match(rest) or _DOUBT.match(rest) else match.group()


def _value(text: str) -> str | None:
    letter = letter_of(text)
    return (
        text if letter is None and re.search(r"(?<![A-Za-z'’])(?!I\s+[a-z])[A-Z](?![A-Za-z'’.])", text) else letter
    )


def choice(response: str, target: str, truncated: bool, settings: dict[str, Any]) -> Score:
    """One letter of several: boxed, stated (`Answer: B`, `option B is correct`), in bold, or alone on a line."""
    wanted = letter_of(target) if len(target.strip()) <= 4 else None
    if wanted is None:
        return Score(None, unscored=f"the target {target[:100]!r} is no letter")
    found = find_answer(response, truncated, _value, _STATED)
    letter, route = None, found.route
    if found.readings and route != "bold":
        letter = _letter(found.readings, boxed=route == "box")
        route = route if letter else f"{route}, no letter"
    elif route in ("none", "bold"):
        letter, route = _unstated(readable(response))
    return Score(float(letter is not None and letter == wanted), letter, route)


def _letter(readings: list[str], boxed: bool) -> str | None:
    for reading in readings:
        letter = letter_of(reading)
        if letter is not None:
            return letter
    if boxed and not re.search(r"\b(?:not|nor|neither|or|and|maybe|none|vs)\b|\?", readings[0], re.I):
        words = unicodedata.normalize("NFKC", re.sub(r"\\[a-z]+", " ", readings[0]))
        letters = set(re.findall(r"(?<![A-Za-z'’])[A-Z](?![A-Za-z'’])", words))
        return letters.pop() if len(letters) == 1 else None
    return None


_CALLED = re.compile(
    r"(?<![A-Za-z'’])[(\[]?([A-Z])[)\]]?\s+(?:is|must\s+be|has\s+to\s+be|would\s+be)\s+(?:therefore\s+|clearly\s+|definitely\s+"
    r"|indeed\s+|the\s+|only\s+)*(?:correct|right|best|true|answer|better\s+(?:answer|choice|option|one))\b(?!\s+(?:only|if|except|for))|(?<![A-Za-z'’])[(\[]?([A-Z])[)\]]?\s+(?:it\s+is\b|(?:best\s+)?(?:fits|matches)\b)|([A-Z])\s*(?:是)?(?:正确|对的)"
)
_BEGUN = re.compile(r"(?:(?i:option|choice)\s+)?[(\[]?([A-Z])(?:[)\]]|[.:](?=\s|$)|\s+[-–—]\s|$)")
_SO = re.compile(
    r"(?:so|thus|hence|therefore|因此|所以|故)\b[\s,:，]*(?=(?:option|choice)?\s*[(\[]?[A-Z][)\]]?\W*$)", re.I
)


def _unstated(text: str) -> tuple[str | None, str]:
    """(letter, route) of a response without a box and without an answer line."""
    lines = [plain_line(line) for line in unicodedata.normalize("NFKC", text).splitlines() if line.strip()]
    plain = re.sub(r"[\"'“”‘’<>]", "", "\n".join(lines))
    if not plain:
        return None, "none"
    if re.fullmatch(r"[\W_]*[A-Za-z][\W_]*", plain):
        return letter_of(plain), "letter"
    doubted = last_doubt(plain)
    called = {
        next(filter(None, match.groups()))
        for match in _CALLED.finditer(plain)
        if match.end() > doubted and meant(plain[: match.start()])
    }
    if called:
        return (called.pop(), "answer line") if len(called) == 1 else (None, "two answers")
    last = (sentences(lines[-1]) or [""])[-1]
    lines[-1] = _SO.sub("", last if _SO.match(last) else lines[-1])  # the sentences before it say why
    begun = {match.group(1) for match in map(_BEGUN.match, lines) if match}
    if len(begun) > 1:
        return None, "two answers"
    long = len(lines) > 1 and re.match(r"(?:option|choice)\b", lines[-1], re.I) and len(lines[-1].split()) > 6
    if (
        begun
        and not long
        and (_BEGUN.match(lines[-1]) or (_BEGUN.match(lines[0]) and not taken_back(plain[len(lines[0]) :])))
    ):
        letter = letter_of(lines[-1] if _BEGUN.match(lines[-1]) else lines[0])
        return (letter, "letter") if letter else (None, "none")
    if len(lines) == 1 and len(plain) < 80 and re.match(r"[A-Z]\s*\(", plain):
        return letter_of(plain), "letter"
    marked = bold(text)
    letter = letter_of(marked) if marked is not None else None
    if letter is not None:
        return letter, "bold"
    alone = {line.strip(".") for line in lines if re.fullmatch(r"[A-Z]\.?", line)}
    return (alone.pop(), "letter") if len(alone) == 1 else (None, "none")
