"""Words with which a response denies, doubts, conditions or takes back an answer, in English and Chinese."""

from __future__ import annotations

import re
from itertools import pairwise

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
    r"\b(?:about|approx\w*|roughly|around|almost|nearly|at\s+least|at\s+most|more\s+than|less\s+than|fewer|between|(?<!add\s)(?<!adds\s)(?<!sum\s)up\s+to|over|under)\b"
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


_BUT = r"\W*(?:(?:but|oh|um|ah|so)\W+)*"
_STRONG = re.compile(
    _BUT + r"(?:nope\b|wait\b|hmm+|oops|sorry\b|correction\b|scratch\s+that|on\s+second\s+thoughts?|hold\s+on"
    r"|never\s*mind|not\s+quite|just\s+kidding"
    r"|i\s+(?:made\s+an?\s+(?:\w+\s+)?(?:mistake|error)|was\s+wrong|take\s+that|misread|misc\w+)"
    r"|i(?:[’']m|\s+am)\s+(?:not|un)\s*(?:sure|certain)|another\s+(?:possible\s+)?answer|or\s+(?:maybe|perhaps|possibly)\b"
    r"|(?:actually|no)\W+(?:the\s+(?:\w+\s+)?answer|it(?:[’']s|\s+is|\s+should|\s+must)\b|i\b|no\b|\W*[-\d$\\])"
    r"|不对|等等|错了|更正|抱歉|或者|也可能)",
    re.I,
)
"""Beginnings of a sentence that takes an answer back wherever it follows."""
_WEAK = re.compile(
    _BUT + r"(?:no\s*[,.:;!—–-]|no$|actually\b(?!\W+(?:an?|one|there|we|you)\b)"
    r"|(?:maybe|perhaps|possibly)\b|or\s+(?:is\s+it|rather|it\s+could)|i\s+mean\b"
    r"|(?:this|that|it|which)(?:\s+answer)?(?:\s+(?:is|was|seems|must\s+be|can(?:not|[’']t)\s+be)|[’']s)\s+"
    r"(?:not\s+(?:right|correct|true|the\s+answer)|wrong|incorrect|a\s+mistake|impossible|(?:right|correct)\s*\?)"
    r"|(?:it|the\s+answer|this)\s+(?:could|might|may)\s+(?:also\s+)?(?:not\s+)?be\b"
    r"(?!\s+(?:\w+ed|written|seen|shown|found|done)\b)|不，)",
    re.I,
)
"""The same where it follows at once: later, it speaks of something else, such as another option."""
_NO = re.compile(r"\W*no\b", re.I)
_ABOUT_IT = re.compile(r"\b(?:that|this|right|correct|sure)\b", re.I)
NEAR = 2
"""Sentences that follow an answer at once."""


def taken_back(after: str) -> bool:
    """Whether the text after an answer takes it back: `No, ...`, `Wait, ...`, `That is wrong.`, `Or maybe ...`."""
    found = _following(after)
    return _begins(_STRONG, found) or _begins(_WEAK, found[:NEAR])


def _answers_itself(before: str, sentence: str) -> bool:
    """`Is 35 possible? No, ...`: the question is about something else than the answer."""
    return before.rstrip().endswith("?") and _NO.match(sentence) is not None and not _ABOUT_IT.search(before)


def takes_back(text: str) -> bool:
    """Whether a sentence of the text takes back an answer that stands anywhere before it."""
    return _begins(_STRONG, _following(text))


def _following(text: str) -> list[str]:
    return sentences(text.lstrip(" \t$)}*.。\\]"))


def _begins(pattern: re.Pattern[str], found: list[str]) -> bool:
    return any(
        pattern.match(sentence) and not _answers_itself(before, sentence)
        for before, sentence in pairwise(["", *found])
    )


def last_doubt(text: str) -> int:
    """Where the last sentence begins that takes an answer back; -1 without one."""
    begin, last = 0, -1
    for match in [*_SENTENCE.finditer(text), None]:
        if _STRONG.match(text, begin, match.start() if match else len(text)):
            last = begin
        begin = match.end() if match else begin
    return last
