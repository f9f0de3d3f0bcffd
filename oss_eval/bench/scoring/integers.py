"""Answers that are integers."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from typing import Any

from oss_eval.bench.scoring.answers import Found, find_answer
from oss_eval.bench.scoring.language import DOUBTED, UNCLEAR
from oss_eval.bench.scoring.markup import folded_forms, plain_line, without_emphasis, without_styles, written_lines
from oss_eval.bench.scoring.statements import conclusion
from oss_eval.bench.types import Score

_SPACES = re.compile(r"\\[,;:!> ]|\\q?quad\b|\\left|\\right|\\[bB]ig+[lr]?\b|~|\$|\\\(|\\\)|\\\[|\\\]|\\#")
_MODULUS = re.compile(r"\\p?mod\s*\{?\s*\d+\s*\}?|\(\s*(?:\\?p?mod|modulo)\s*\{?\s*\d+\s*\}?\s*\)")
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|°|\\degree|\\%|%")
_MONEY = re.compile(r"\\\$|[£€¥₹₩]|\bUSD\b|\bEUR\b|\bRMB\b|\bUS(?=\s*\d)")
_BASE_TEN = re.compile(r"(?<=\d)_\{?10\}?")
_INEQUALITY = re.compile(r"\\(?:neq?|leq?|geq?|lt|gt|approx|sim|pm|mp|lor|vee|cup|in)(?![A-Za-z])|[<>≤≥≠≈±∈]|!=")
_ALTERNATIVES = re.compile(r"\b(?:or|and|vs|versus)\b|[;；]|[或和与及]|、")
_LEAD = re.compile(
    r"^(?:(?:an?|the|its|just|simply|exactly|only)\s+)*(?:(?:number|integer|value|total|sum|remainder|answer)(?:\s+is|\s+of)?\s+)?(?=[-+(\d])",
    re.I,
)
_NUMBER = re.compile(r"([+-]?)\s*(\d{1,3}(?:([,' ’_])\d{3})(?:\3\d{3})*(?!\d)|\d+)(\.\d+)?")
_CALCULATION = re.compile(
    r"[\s\d.,{}()]*(?:[-+*/·×:]|\\(?:times|cdot|div))[-+*/·×:\s\d.,{}()]*(?:\\(?:times|cdot|div)[\s\d]*)*"
)
_SCALES = {
    "hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "百": 100, "千": 1000, "万": 10**4, "亿": 10**8,
}  # fmt: skip
_SCALE = re.compile(rf"\s*({'|'.join(_SCALES)})s?(?![A-Za-z])\s*", re.I)
_UNIT = re.compile(
    r"(?:\s*[A-Za-zµΩ]{2,20}|\s+[msghlLKNJWVCF])"  # the first word
    r"(?:\s*[./·-]?\s*[A-Za-z]{1,20}){0,4}(?:\s*\^\s*-?\d|[²³])?\s*[.!]?|\s*[\u4e00-\u9fff]{1,6}|\s*[가-힣]{1,4}"
)
_NO_UNITS = re.compile(
    r"\b(?:or|and|to|mod|modulo|pi|sqrt|frac|times|cdot|plus|minus|over|divided|multiplied|ln|log|sin|cos|tan|choose|factorial"
    r"|squared|cubed|is|are|was|were|be|been|isn|has|have|had|do|does|did|will|would|could|should|may|might|must|can|cannot|seems?"
    r"|fails?|wrong|incorrect|false|not|no|nor|but|if|when|unless|vs|versus|maybe|perhaps|possibly|probably|approximately|about"
    r"|roughly|instead|rather|except|than|through|thru|until|th|st|nd|rd|half|halves|thirds?|quarters?|fifths?|tenths?|percentile"
    r"|score|gross|more|less|fewer|least|most|ish|odd|something|point|minimum|maximum|infinity|infty|base|binary|hex|each|of|ten"
    r"|e|i|x|y|z|n|k|thousands?|millions?|billions?|trillions?|dozens?|hundreds?|bn|mn|mm(?=$))\b|[或和与及不非错没无多余几左右上下至到比约]",
    re.I,
)
_PARENTHESES = re.compile(r"\s*\((?P<inner>[^()]*(?:\([^()]*\)[^()]*)*)\)?\s*[.]?$")
_TOLD = re.compile(r"\s*(?:that\s+is|i\.\s?e\.?|since|because|as|which|from|=|obtained|by|namely|not)", re.I)


_WORD = (
    r"(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen"
    r"|(?:twen|thir|for|fif|six|seven|eigh|nine)ty|hundred|thousand|million|and|minus|negative)"
)
_SPELLED = re.compile(rf"^\W*{_WORD}(?:[\s-]+{_WORD})*\s*\(([-+]?\d[\d,]*)\)", re.I)
"""forty-two (42)"""
LONGEST = 1000
"""Characters of a text that can state an integer."""


def as_integer(text: str) -> int | None:
    r"""The integer that a short answer states, or None.

    Reads through fonts, sizes and colours, units, currency, degrees, a modulus, closing punctuation, thousands
    separators, `thousand`, `million`, full-width digits and a trailing `.0`; of an equation the right side.
    Several values, a range, an inequality or an estimate are no integer.
    """
    if len(text) > LONGEST:
        return None
    text = _SPELLED.sub(r"\1", text)
    plain = folded_forms(without_styles(text).replace("\\!", "")).replace("{,}", ",")
    plain = _MODULUS.sub(" ", _BASE_TEN.sub("", plain))
    plain = _DEGREES.sub(" ", _MONEY.sub(" ", plain))
    plain = _SPACES.sub(" ", without_emphasis(plain))
    if _INEQUALITY.search(plain):
        return None
    side = _side(plain.replace("\\equiv", "=").replace("≡", "=").replace("\\text", " "))
    if side is None:
        return None
    plain = side.replace("{", " ").replace("}", " ")
    plain = re.sub(r"^[^\W\d]+(?:\s+[^\W\d]+){0,3}\s*:", " ", plain.strip())  # Answer: 70
    plain = "".join(" " if unicodedata.category(letter) == "So" else letter for letter in plain)
    plain = " ".join(plain.split()).strip(" .,;:。，\"“”‘’'")
    if plain.startswith("(") and plain.endswith(")") and plain.count("(") == 1:
        plain = plain[1:-1].strip()
    return _number(_LEAD.sub("", plain))


def _side(text: str) -> str | None:
    """The right side of an equation, or the left one where the right one is a name; None of several equations."""
    sides = text.split("=")
    if len(sides) == 1:
        return text
    if _ALTERNATIVES.search(text) or re.search(r",\s*[^\W\d]|,\s+\S", text):
        return None  # x = 3, y = 4
    right = sides[-1]
    if re.fullmatch(r"[\s{}(]*\\?[A-Za-z]\w{0,8}[\s{}).]*", right):
        return sides[-2]
    left = _number(sides[-2].strip(" .,{}"))
    if left is not None and _CALCULATION.fullmatch(right):
        return sides[-2]
    if left is not None and left != _number(right.strip(" .,{}")):
        return None  # 70 = 71
    return right


def _number(plain: str) -> int | None:
    match = _NUMBER.match(plain)
    if match is None or len(match.group()) > 40:
        return None
    value = Decimal(match.group(1) + re.sub(r"\D", "", match.group(2)) + (match.group(4) or ""))
    rest = plain[match.end() :]
    if re.match(r"\.(?!\d)", rest):  # 70. apples
        rest = rest[1:]
    scale = _SCALE.match(rest)
    if scale is not None:
        value *= _SCALES[scale.group(1).lower()]
        rest = rest[scale.end() :]
        rest = f" {rest}" if rest else rest
    inside = _PARENTHESES.search(rest)
    if inside is not None:
        inner = inside.group("inner")
        if DOUBTED.search(inner) or (re.search(r"\d", inner) and not _TOLD.match(inner)):
            return None  # 70 (or 71)
        rest = rest[: inside.start()]
    if rest.strip(" .,") and (_UNIT.fullmatch(rest) is None or _NO_UNITS.search(rest)):
        return None  # 3,70 or 70/3 or 70x: no integer with a unit behind it
    return int(value) if value == value.to_integral_value() else None


def _value(text: str) -> int | str | None:
    value = as_integer(text)
    return text if value is None and re.search(r"\d|\\[a-z]|[∞π√½¼¾]", text) else value


def _first(readings: list[str]) -> tuple[str | None, int | None]:
    """(the reading that is an integer, its value)."""
    for reading in readings:
        value = as_integer(reading)
        if value is not None:
            return reading, value
    return (readings[-1] if readings else None), None


_IS_NUMBER = re.compile(r"^[^\d=\\]*\b(?:is|are|equals)\s+(\S*\d\S*)$", re.I)
"""A sentence under `Final Answer`: `The number of pairs is 70.`"""
_VALUE = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")


def _concluded(response: str) -> Found | None:
    """The only number, or the right side of the only equation, of a concluding last sentence."""
    sentence = conclusion(response)
    if sentence is None:
        return None
    plain = folded_forms(without_styles(sentence)).replace("{,}", ",").replace("\\$", " ").replace("$", " ")
    said = re.search(r"=\s*([^=]*)$", plain)
    if said is not None and len(_VALUE.findall(said.group(1))) != 1:
        return None
    numbers = _VALUE.findall(said.group(1) if said else plain)
    if len(numbers) != 1:
        return None
    number = numbers[0].strip(",").rstrip(".")
    after = plain.rpartition(numbers[0])[2]
    scale = _SCALE.match(after)
    variable = r"|[A-Za-z](?![A-Za-z])|\s*[xyznk]\b"  # 70y is no 70
    if re.match(r"\s*[/^*:×·!x]|\s*\\(?:frac|times|cdot)|-\d|_" + variable, after) or re.search(
        r"[\^/_*×·]\s*$", plain.rpartition(numbers[0])[0]
    ):
        return None
    return Found([number + (f" {scale.group(1)}" if scale else "")], "conclusion")


def integer(response: str, target: str, truncated: bool, settings: dict[str, Any]) -> Score:
    """An answer that is an integer, compared as one."""
    wanted = as_integer(target)
    if wanted is None:
        return Score(None, unscored=f"the target {target!r} is no integer")
    found = find_answer(response, truncated, _value)
    if found.route == "bold" and _first(found.readings)[1] is None:
        found = _concluded(response) or found
    if not found.readings and found.route == "none":
        lines = written_lines(response)
        if lines and len(lines[-1]) < 40 and as_integer(plain_line(lines[-1])) is not None:
            found = Found([plain_line(lines[-1])], "last line")
        else:
            found = _concluded(response) or found
    if not found.readings:
        return Score(0.0, None, found.route)
    text, value = _first(found.readings)
    if value is None and (said := _IS_NUMBER.search(plain_line(found.readings[0]))) is not None:
        text, value = _first([said.group(1)] if not UNCLEAR.search(found.readings[0]) else [])
    if value is None:
        return Score(0.0, str(text).strip()[:200], f"{found.route}, no integer")
    return Score(float(value == wanted), str(value), found.route)
