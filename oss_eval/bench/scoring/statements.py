"""What a response without a box states as its answer: an answer line, a conclusion, a word in bold.

Nothing that the response denies, doubts or takes back is stated.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from oss_eval.bench.scoring.language import DOUBTED, REACH, UNCLEAR, meant, sentences, taken_back, takes_back
from oss_eval.bench.scoring.markup import plain_line, readable, written_lines

_KIND = r"(?:final|correct|right|best|overall|numerical|required|desired|simplified|exact)"
_TO = r"(?:\s+(?:to|for|of)\s+(?:the|this|that|your)\s+[\w-]+(?:\s+[\w-]+)?|\s+here)?"
_IS = (
    r"(?:is|are|was|equals?|must\s+be|should\s+be|would\s+be|will\s+be|has\s+to\s+be|can\s+only\s+be"
    r"|comes?\s+(?:out\s+)?to(?:\s+be)?|turns\s+out\s+to\s+be)(?![\w’'])"
    r"(?:\s+(?:therefore|thus|then|hence|simply|just|indeed|clearly|now|exactly|equal\s+to|given\s+by|as\s+follows)\b,?)*"
)
_OTHER = (
    r"(?:最终|正确|因此|所以|故|最后|的)*答案(?:选项?)?(?:应该?|就|必)?\s*(?:[是为选]|[:：])\s*[:：]?"
    r"|\b(?:die|la|a)\s+(?:(?:richtige|korrekte|bonne)\s+)?(?:antwort|respuesta|réponse|resposta|risposta)"
    r"(?:\s+(?:ist|lautet|es|est|é|è|correct[ae]|final|finale|la|die)\b)*\s*[:：]?"
    r"|\b(?:antwort|respuesta|réponse|resposta|risposta)\s*[:：]|(?:ответ|答え|정답)\s*(?:は|은|[:：])?"
)
_NOT_BUT = re.compile(r"not\s+[^,;.]{1,30}?,?\s+but\s+(?:rather\s+)?", re.I)
"""`The answer is not 69 but 70.`"""


def statement_pattern(subjects: str = "", others: str = "") -> re.Pattern[str]:
    """How an answer is stated: `Answer: 70`, `the final answer is 70`, `答案是70`.

    `subjects` are more subjects beside `answer`, each after a `|`; `others` are more whole beginnings.
    """
    return re.compile(
        rf"(?:(?P<label>\b(?:{_KIND}\s+)*(?:answers?|final\s+result{subjects}){_TO})\s*"
        rf"(?:{_IS}\s*[:：]?|[:：=]+|→|\\to\b|⇒|\s[-–—]+\s)|(?P<other>{_OTHER}{others}))\s*(?P<said>\S.*)?$",
        re.I,
    )


STATEMENT = statement_pattern()
_HEADING = re.compile(
    rf"(?:(?:the|my|our|so|thus)\s+)*(?:{_KIND}\s+)*answer{_TO}\s*(?:is)?\s*[:：]?|(?:最终)?答案\s*", re.I
)
_LABEL = re.compile(r"(?:so|thus|hence|therefore)?[,\s]*(?:(?:the|my|our)\s+)?$", re.I)


@dataclass(frozen=True, slots=True)
class Statement:
    """What the response says its answer is; `label` marks a line that begins with it, `final` a final answer."""

    said: str
    label: bool
    final: bool
    last: bool
    """Whether it stands in the last line."""


@dataclass(frozen=True, slots=True)
class _Lines:
    """The lines of a response, and for each whether it or a later one takes an answer back."""

    plain: list[str]
    taken_back: list[bool]

    @classmethod
    def of(cls, lines: list[str]) -> _Lines:
        plain = [plain_line(line) for line in lines]
        later = [False]
        for line in reversed(plain):
            later.append(later[-1] or takes_back(line))
        return cls(plain, later[::-1])


def statements(response: str, pattern: re.Pattern[str] = STATEMENT) -> list[Statement]:
    """All statements of an answer that are meant and not taken back, in order."""
    found = _marked_up(response)
    if found:
        return found
    written = written_lines(response)
    lines = _Lines.of(written)
    found = []
    for number, line in enumerate(lines.plain):
        if written[number].lstrip().startswith("####"):  # GSM8K's own notation
            found.append(Statement(written[number].strip().lstrip("# "), True, True, number + 1 == len(written)))
        elif _HEADING.fullmatch(line):
            found += _stated(lines, number, 0, "", "")
        else:
            found += _in_line(lines, number, pattern) or _turned(lines, number)
    return found


_TAG = re.compile(r"<(?:final_)?answer>([^<>]{1,500})</(?:final_)?answer>", re.I)
_KEYS = ("final_answer", "answer", "final answer")


def _marked_up(response: str) -> list[Statement]:
    """The answer between `<answer>` tags, or of a response that is a JSON object with such a key."""
    text = readable(response).strip()
    tagged = _TAG.findall(text)
    if tagged:
        return [Statement(tagged[-1].strip(), True, True, True)]
    if not (text.startswith("{") and text.endswith("}")) or len(text) > 100_000:
        return []
    try:
        values = {str(key).lower(): value for key, value in json.loads(text).items()}
    except (ValueError, RecursionError):
        return []
    said = next((values[key] for key in _KEYS if isinstance(values.get(key), str | int | float)), None)
    return [] if said is None or isinstance(said, bool) else [Statement(str(said), True, True, True)]


_TURNED = re.compile(rf"(?P<said>.{{1,80}}?)\s+(?:is|are)\s+(?:the|my|our)\s+(?:{_KIND}\s+)*answer\b", re.I)


def _turned(lines: _Lines, number: int) -> list[Statement]:
    """`70 is the answer`."""
    line = lines.plain[number]
    match = _TURNED.match(line)
    if match is None or not meant(match.group("said")) or lines.taken_back[number + 1]:
        return []
    return [Statement(match.group("said"), True, False, number + 1 == len(lines.plain))]


_LINK = re.compile(r"(?:\b(?:the|my|our|so|thus|hence|therefore|and|but|no)\b[\s,.]*)+$", re.I)


def _in_line(lines: _Lines, number: int, pattern: re.Pattern[str]) -> list[Statement]:
    line = lines.plain[number]
    found: list[Statement] = []
    at = 0
    while (match := pattern.search(line, at)) is not None:
        said = _NOT_BUT.sub("", match.group("said") or "", count=1)
        at = max(match.end() - len(said), match.start() + 1)
        again = pattern.search(said)  # the line has another statement
        own = _LINK.sub("", said[: again.start()]) if again else said
        found += _stated(lines, number, match.start(), own, said[len(own) :])
    return found


def _stated(lines: _Lines, number: int, start: int, said: str, rest: str) -> list[Statement]:
    """The statement that begins at `start` of a line, if it is meant and stands; it may be in the next line."""
    line = lines.plain[number]
    if not said.strip() and not rest and number + 1 < len(lines.plain) and len(lines.plain[number + 1]) < 200:
        number += 1
        said = lines.plain[number]
    later = " ".join([*sentences(said)[1:], rest, *lines.plain[number + 1 : number + 2]])
    if not said.strip() or not meant(line[:start]) or taken_back(later) or lines.taken_back[number + 1]:
        return []
    label = _LABEL.fullmatch(line[:start]) is not None
    final = "final" in line[start : start + 20].lower()
    return [Statement(said.strip(), label, final, number + 1 == len(lines.plain))]


_CUE = (
    r"(?:which|since|because|as|so|where|when|whose|who|i\.\s?e|e\.\s?g|that\s+is|namely|given|though|although|even\s+though"
    r"|being|obtained|corresponding|by|after|for|from|in\s+other\s+words|and\s+(?:this|that|it|we|so|thus)|not|per|using|with"
    r"|it|this|we|the)\b"
)
_EXPLANATION = re.compile(
    rf"\s*[,;，；—–]\s*(?={_CUE})|\s+(?=(?:because|since)\b)|\s+-\s+(?={_CUE})|\s*\((?={_CUE}|=|mod)", re.I
)
_NEW_SENTENCE = re.compile(
    r"(?<![A-Z])(?<!\b[A-Z][a-z])(?<!\b[A-Z][a-z][a-z])[.!]\s+(?=[A-Z\\$\"“(])|[。！]\s*(?=\S)|[.!]\s+(?=[^\W\d_]+\s+[^\W\d_]+\s)"
)


def _closed(text: str) -> str:
    """The text without a parenthesis that is not closed."""
    if text.count("(") > text.count(")") and text[: text.rindex("(")].strip():
        text = text[: text.rindex("(")]
    return text.strip()


def readings(said: str) -> list[str]:
    """A statement as it stands, then without the explanation that follows it; an explanation that doubts stays."""
    found = [said.strip()]
    for pattern in (_NEW_SENTENCE, _EXPLANATION):
        match = pattern.search(found[-1])
        if match is None or not match.start():
            continue
        tail = found[-1][match.end() :]
        if pattern is _EXPLANATION and DOUBTED.search(tail.split(". ")[0]):
            continue
        if pattern is _NEW_SENTENCE and taken_back(tail):
            continue
        found.append(_closed(found[-1][: match.start()]))
    return found


_CONCLUSION = re.compile(
    r"\W*(?:so|thus|therefore|hence|altogether|in\s+total|in\s+all|in\s+conclusion|consequently|finally|this\s+means|that\s+means"
    r"|as\s+a\s+result|it\s+follows|overall|total|因此|所以|综上|故|总共|一共|总计)\b|.*\b(?:(?:in\s+total|altogether|in\s+all)\W*$|(?:is|are|was)\s+(?:therefore|thus|hence)\b)",
    re.I,
)

_SO = re.compile(r".*[,;]\s+(?=(?:so|thus|therefore|hence|which\s+(?:makes|gives|is))\b)", re.I)
_ASIDE = re.compile(r"\((?:not|since|because|as|i\.e\.|that\s+is|which)\b[^()]*\)", re.I)
_TELLS = re.compile(
    r"(?=[^\W\d_])(?:(?!\b(?:step|problem|case|figure|table|page|equation|line|number)\s+\d)[^\d]){3,100}\d", re.I
)
"""A sentence that begins with its subject and names no numbered thing."""
_ENDS = re.compile(
    r"[\d√π½¼¾₀-₉\\}]+(?:\W*(?!(?:before|after|until|when|while|first|but|instead)\b)[^\W\d]+){0,4}\W*$", re.I
)
"""A value with at most four words behind it."""
_PLAN = re.compile(
    r"(?:let|first|next|now|then|consider|compute|check|note|suppose|to\s+find|we\s+(?:can|need|must|have\s+to))\b",
    re.I,
)


def conclusion(response: str) -> str | None:
    """The last sentence, where it concludes (`So ...`, `... in total`), calculates (`9 * 2 = 18`) or tells a value
    (`The total is 18 dollars`); else None.

    A sentence that doubts or denies is no conclusion.
    """
    lines = written_lines(response)
    if not lines:
        return None
    written = [sentence for sentence in sentences(plain_line(lines[-1])) if re.search(r"\w", sentence)]
    last = (written or [""])[-1]
    if len(last) > REACH:
        return None
    last = _ASIDE.sub("", last)
    so = _SO.match(last)
    clause = last[so.end() :] if so else last
    if UNCLEAR.search(clause):
        return None
    left, _, right = clause.partition("=")
    calculates = re.search(r"\d", left) and re.search(r"\d", right) and "=" not in right
    tells = _TELLS.match(clause) and not _PLAN.match(clause) and _ENDS.search(clause)
    return clause if calculates or tells or _CONCLUSION.match(clause) else None


_BOLD = re.compile(r"\*\*(.{1,300}?)\*\*|__(.{1,300}?)__")


def bold(response: str) -> str | None:
    """What stands in bold in the last line, where only one thing does and the line doesn't doubt or deny it."""
    lines = written_lines(response)
    last = lines[-1] if lines else ""
    found = [(match.group(1) or match.group(2)) for match in _BOLD.finditer(last)]
    if len(found) != 1:
        return None
    around = next((one for one in reversed(sentences(_BOLD.sub(" BOLD ", last))) if "BOLD" in one), "")
    return None if UNCLEAR.search(around.replace("BOLD", " ")) else found[0]
