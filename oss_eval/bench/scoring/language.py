"""Words with which a response denies, doubts, conditions or takes back an answer, in English and Chinese."""

from __future__ import annotations

import re

_DENIAL = (
    r"\b(?:not|never|neither|nor|cannot|no\s+longer|wrong|incorrect|false|mistake\w*|impossible|unlikely|doubt)\b|n[’']t\b"
    r"|[不别非]$|不是|并非|不可能|错误"
)
_HEDGE = (
    r"\b(?:maybe|perhaps|possibly|probably|might|(?-i:may)|could|unsure|uncertain|guess|either)\b|\?"
    r"|也许|可能|不确定"
)
_ALTERNATIVE = r"\b(?:or|vs|versus|unless|if|rather|instead|actually|wait|hmm+|oops|wrong|incorrect)\b|或|不对"
_CONDITION = r"\b(?:if|suppose|supposing|assume|assuming|unless|were\s+it|had\s+it|except)\b|如果|假如|假设"
_ESTIMATE = (
    r"\b(?:about|approx\w*|roughly|around|almost|nearly|least|most|more\s+than|less\s+than|fewer|between|up\s+to|over|under)\b"
    r"|约|大概|至少|至多|超过"
)
_REPORT = (
    r"\b(?:whether|claim\w*|initial(?:ly)?|at\s+first|previous(?:ly)?|earlier|someone|na[iï]ve|tempting|trap|common|another"
    r"|example|format|would\s+have|once|instead\s+of|rather\s+than|used\s+to)\b"
)
_UNFINISHED = r"\b(?:no|try|tried|fails?|step|case|far)\b|不"


def _any(*parts: str) -> re.Pattern[str]:
    return re.compile("|".join(parts), re.I)


DENIED = _any(_DENIAL, _HEDGE)
"""The text denies or doubts what it says."""
DOUBTED = _any(_HEDGE, _ALTERNATIVE)
"""The text, which follows an answer, doubts it or names another one."""
UNCLEAR = _any(_DENIAL, _HEDGE, _ALTERNATIVE, _CONDITION, _ESTIMATE, _UNFINISHED)
"""A sentence with such a word draws no clear conclusion."""

_UNMEANT = _any(_DENIAL, _HEDGE, _REPORT)
_CONDITIONAL = _any(_CONDITION)
_CLAUSE = re.compile(r"[.!?。！？;；:：]\s|,\s*(?:but|so|and|hence|thus|then|therefore)\b|[，]")
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|(?<=[。！？])|\n+")


REACH = 400
"""Characters before a statement that are read for a denial, and the longest sentence that can conclude."""


def sentences(text: str) -> list[str]:
    """The sentences of a text; an abbreviation ends one as well."""
    return [sentence for sentence in _SENTENCE.split(text) if sentence.strip()]


def meant(before: str) -> bool:
    """Whether a statement after this beginning of its line is meant: no denial, doubt, condition or quotation."""
    sentence = _SENTENCE.split(before[-REACH:])[-1]
    clause = _CLAUSE.split(sentence)[-1]
    return not (_UNMEANT.search(clause) or _CONDITIONAL.search(sentence) or sentence.count('"') % 2)


_WRONG = (
    r"(?:not\s+(?:right|correct|true|the\s+answer)|wrong|incorrect|a\s+mistake|impossible|(?:right|correct)\s*\?)"
)
_BACK = re.compile(
    r"\W*(?:(?:but|oh|um|ah)\W+)*(?:no\s*[,.:;!—–-]|nope\b|wait\b|actually\b|hmm+|oops|sorry\b|correction\b|scratch\s+that"
    r"|on\s+second\s+thoughts?|hold\s+on|never\s*mind|not\s+quite|just\s+kidding|or\s+(?:is\s+it|rather|it\s+could)"
    r"|i\s+(?:made|was\s+wrong|take\s+that|mean\b|meant|misread|misc\w+)|i(?:[’']m|\s+am)\s+(?:not|un)\s*(?:sure|certain)"
    rf"|(?:this|that|it|which)(?:\s+answer)?(?:\s+(?:is|was|seems|must\s+be|can(?:not|[’']t)\s+be)|[’']s)\s+{_WRONG}"
    r"|(?:or\s+)?(?:maybe|perhaps|possibly|alternatively)\b|another\s+(?:possible\s+)?answer"
    r"|(?:it|the\s+answer|this)\s+(?:could|might|may)\b|不对|等等|错了|不，|或者|也可能|抱歉|更正)",
    re.I,
)


def taken_back(after: str) -> bool:
    """Whether the text after an answer takes it back: `No, ...`, `Wait, ...`, `That is wrong.`, `Or maybe ...`."""
    return any(_BACK.match(sentence) for sentence in sentences(after.lstrip(" \t$)}*.。\\]")))


def last_doubt(text: str) -> int:
    """Where the last sentence begins that takes an answer back; -1 without one."""
    begin, last = 0, -1
    for match in [*_SENTENCE.finditer(text), None]:
        if _BACK.match(text, begin, match.start() if match else len(text)):
            last = begin
        begin = match.end() if match else begin
    return last
