"""Answer extraction and comparison: pure functions of texts.

A scorer takes the answer channel only (reasoning is never graded) and says how it got to its verdict: the
`route`. What a finished answer says in passing is no answer; in a truncated one only a whole box counts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Any

from oss_eval.bench.types import Score

# -- what is the answer channel ---------------------------------------------------------------------------------

_THINK = re.compile(r"<think>.*?</think>", re.S)
_HARMONY_FINAL = re.compile(r"assistant(?:<\|channel\|>)?final(?:<\|message\|>)?|<\|channel\|>final<\|message\|>")
_HARMONY_BARE = re.compile(r"\s*analysis(?=[A-Z])")  # what is left of the tags when they are not shown
_HARMONY_TAGS = re.compile(r"<\|(?:start|end|return|channel|message|constrain|call)\|>")


def final_text(response: str) -> tuple[str, bool]:
    """(the answer without leaked reasoning, whether any had leaked).

    Servers without a reasoning parser leave `<think>` text (DeepSeek R1's template) or Harmony channels (gpt-oss;
    https://cookbook.openai.com/articles/openai-harmony) in the content. An unfinished leak leaves no answer.
    """
    text, leaked = response, False
    if "<|channel|>" in text or _HARMONY_BARE.match(text):
        finals = list(_HARMONY_FINAL.finditer(text))
        return (_HARMONY_TAGS.sub("", text[finals[-1].end() :]).strip() if finals else ""), True
    if "</think>" in text or "<think>" in text:
        leaked = True
        text = _THINK.sub("", text)
        if "</think>" in text:  # the opening tag was part of the prompt
            text = text.rpartition("</think>")[2]
        text = text.partition("<think>")[0]  # begun and never ended
    return text.strip(), leaked


# -- boxes ------------------------------------------------------------------------------------------------------

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=[{ \d])")


def last_box(text: str) -> tuple[str | None, bool]:
    r"""(content of the last `\boxed{...}` that holds something, whether a box was begun and not closed after it).

    Braces are balanced, escaped ones passed over; nested boxes give the innermost content.
    """
    content: str | None = None
    end = 0
    for match in _BOX.finditer(text):
        if match.start() < end:
            continue  # inside the box before it
        start = match.end()
        if not text.startswith("{", start):  # \boxed 70
            word = re.match(r"\S+", text[start:])
            content, end = (word.group(), start + word.end()) if word else (content, end)
            continue
        close = _closing(text, start)
        if close is None:
            return None, True
        end = close + 1
        content = text[start + 1 : close] if text[start + 1 : close].strip() else content
    if content is not None and _BOX.search(content):
        inner, cut = last_box(content)
        return (inner if inner is not None else content), cut
    return content, False


def _closing(text: str, start: int) -> int | None:
    depth, index = 0, start
    while index < len(text):
        character = text[index]
        if character == "\\":
            index += 2
            continue
        depth += (character == "{") - (character == "}")
        if not depth:
            return index
        index += 1
    return None


# -- what a finished answer states ------------------------------------------------------------------------------

_ANSWER_LINE = re.compile(
    r"(?:(?:final\s+)?answer(?:\s+to\s+(?:the|this)\s+\w+)?\s*(?:is\s*[:：]?|[:：=])|(?:最终)?答案\s*[是为]?\s*[:：]?)\s*(.+)",
    re.I,
)
_BOLD = re.compile(r"\*\*(.+?)\*\*|__(.+?)__")
_AFTERTHOUGHT = re.compile(r"[,.;!，。；]\s+(?=[^\W\d_]).*$|[。！].*$", re.S)
"""From the first pause before further words: `70, which is ...`."""


def _plain_line(line: str) -> str:
    """A line without emphasis, heading marks, list marks and quotation."""
    return re.sub(r"\*\*|__|`|^[#>\s]+|^[-*]\s+", "", line).replace("*", "").strip()


def _statement(text: str) -> tuple[str, str] | None:
    """(candidate, route) of an answer without a box: what its last line states, the line before as its heading."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return None
    last = lines[-1]
    if last.startswith("####"):  # GSM8K's own notation
        return last.lstrip("# "), "answer line"
    found = list(_ANSWER_LINE.finditer(_plain_line(last)))
    if found:
        return _AFTERTHOUGHT.sub("", found[-1].group(1)).strip(), "answer line"
    heading = _plain_line(lines[-2]) if len(lines) > 1 else ""
    if len(last) < 80 and re.fullmatch(r"(?:(?:final\s+)?answer|(?:最终)?答案)\s*(?:is)?\s*[:：]?", heading, re.I):
        return _plain_line(last), "answer line"
    bold = [first or second for first, second in _BOLD.findall(last)]
    if len(bold) == 1:
        return bold[0], "bold"
    return None


def find_answer(response: str, truncated: bool) -> tuple[str | None, str]:
    """(the answer's own text, route): the last box, else what the last line of a finished answer states."""
    box, cut = last_box(response)
    if cut:
        return None, "cut box"
    if box is not None:
        return box, "box"
    if truncated:
        return None, "truncated"
    return _statement(response) or (None, "none")


# -- integers ---------------------------------------------------------------------------------------------------

_STYLE = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathbf|mathrm|mathit|mathsf|bf|rm|displaystyle|mbox|bm|operatorname)\s*\{([^{}]*)\}"
)
_SPACES = re.compile(
    r"\\[,;:> ]|\\quad|\\qquad|\\displaystyle|\\left|\\right|\\(?:bf|rm|it|sf)\b|~|\$|\\\(|\\\)|\\\[|\\\]"
)
_MODULUS = re.compile(r"\\p?mod\s*\{?\s*\d+\s*\}?|\(\s*(?:\\?bmod|mod)\s+\d+\s*\)")
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?|°|\\degree|\\%|%")
_MONEY = re.compile(r"[£€¥]|元|円|\bUSD\b|\bEUR\b")
_NUMBER = re.compile(r"([+-]?\d+)(?:\.0*(?!\d))?")
_GROUPED = re.compile(r"([+-]?\d{1,3}(?:[, ]\d{3})+)(\.0*)?(?!\d)")
_UNIT = re.compile(r"(?:[A-Za-z]{2,}+|(?<=\s)[msghlLKNJWV])(?:[ /^.-]*+(?:[A-Za-z]++|\d))*+")
"""Possessive, or letters could be divided among the repetitions in exponentially many ways."""
_NO_UNITS = frozenset("or and to mod pi sqrt frac times cdot plus minus over i e ln log sin cos tan".split())


def as_integer(text: str) -> int | None:
    r"""The integer that a short answer states, or None.

    Reads through `\text{}` and the like, units, currency, degrees, a modulus, a closing point or comma, thousands
    separators, full-width digits and a trailing `.0`; of an equation the right side.
    """
    plain = unicodedata.normalize("NFKC", text).replace("{,}", ",").replace("−", "-").replace("\\!", "")
    plain = _MODULUS.sub(" ", plain).replace("\\$", " ")
    for _ in range(4):  # styles nest
        plain, count = _STYLE.subn(r" \1 ", plain)
        if not count:
            break
    plain = _MONEY.sub(" ", _DEGREES.sub(" ", plain))
    plain = re.split(r"=|\\equiv(?![a-z])|≡", plain)[-1]
    plain = _SPACES.sub(" ", plain).replace("{", " ").replace("}", " ").replace("*", " ").replace("`", " ")
    plain = re.sub(r"^[^\W\d]+(?:\s+[^\W\d]+){0,3}\s*:", " ", plain.strip())  # Answer: 70
    plain = " ".join(plain.split()).strip(" .,;:。\"'“”")
    if plain.startswith("(") and plain.endswith(")") and plain.count("(") == 1:
        plain = plain[1:-1].strip()
    grouped = _GROUPED.match(plain)
    if grouped:
        plain = grouped.group(1).replace(",", "").replace(" ", "") + plain[grouped.end() :]
    match = _NUMBER.match(plain)
    if match is None or len(match.group()) > 30:
        return None
    unit = plain[match.end() :]
    if unit.strip():
        named = _UNIT.fullmatch(unit, re.match(r"\s*", unit).end())  # type: ignore[union-attr]
        if named is None or _NO_UNITS & set(re.findall(r"[A-Za-z]+", unit.lower())):
            return None  # 3,70 or 70/3 or 70x: no integer with a unit behind it
    return int(match.group(1))


def integer(response: str, target: str, truncated: bool, settings: dict[str, Any]) -> Score:
    """An answer that is an integer, compared as one."""
    wanted = as_integer(target)
    if wanted is None:
        return Score(None, unscored=f"the target {target!r} is no integer")
    text, route = find_answer(response, truncated)
    if text is None and route == "none":
        lines = [line for line in response.splitlines() if line.strip()]
        if lines and len(lines[-1]) < 40 and as_integer(lines[-1]) is not None:
            text, route = lines[-1], "last line"
    value = None if text is None else as_integer(text)
    if text is not None and value is None:
        return Score(0.0, text.strip()[:200], f"{route}, no integer")
    return Score(float(value == wanted), None if value is None else str(value), route)


# -- texts ------------------------------------------------------------------------------------------------------


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKC", _STYLE.sub(r"\1", text)).casefold()
    return " ".join(folded.split()).strip(" .,;:!\"'`*$。“”‘’")


def exact(response: str, target: str, truncated: bool, settings: dict[str, Any]) -> Score:
    """The answer is the target, but for case, white space, quotation and closing punctuation."""
    if not _plain(target):
        return Score(None, unscored="the target is empty")
    text, route = find_answer(response, truncated)
    if text is None and route in ("cut box", "truncated"):
        return Score(0.0, None, route)
    whole = _plain(response)
    answer = _plain(text or "")
    if answer != _plain(target) and (text is None or route == "bold"):
        answer, route = whole, "whole"
    return Score(float(answer == _plain(target)), answer[:200], route)


def contains(response: str, target: str, truncated: bool, settings: dict[str, Any]) -> Score:
    """Whether the target occurs in a finished answer."""
    if not _plain(target):
        return Score(None, unscored="the target is empty")
    if truncated:
        return Score(0.0, None, "truncated")
    found = _plain(target) in _plain(response)
    return Score(float(found), None, "contained" if found else "none")


_LETTER = r"\(?\[?([A-Z])\)?\]?(?=\s*(?:$|[.,;:!)\]\n—–-]|\b(?:because|since|as)\b))"
_KEYWORD = r"(?i:answer|option|choice)(?i:\s+to\s+(?:the|this)\s+\w+)?"
_STATED = re.compile(
    rf"(?:{_KEYWORD}\s*(?i:is\s*[:：]?|[:：=])|答案\s*[是为]?\s*[:：]?)\s*(?i:option|choice)?\s*{_LETTER}", re.M
)
_CALLED = re.compile(rf"{_KEYWORD}\s+\(?([A-Z])\)?\s+(?i:is\s+(?:the\s+)?(?:correct|right|best))")


def choice(response: str, target: str, truncated: bool, settings: dict[str, Any]) -> Score:
    """One letter of several: boxed, stated (`Answer: B`, `option B is correct`), in bold, or alone on a line."""
    wanted = target.strip().upper()
    box, cut = last_box(response)
    if cut or (truncated and box is None):
        return Score(0.0, None, "cut box" if cut else "truncated")
    letter, route = _boxed_letter(box) if box is not None else _stated_letter(response)
    return Score(float(letter is not None and letter == wanted), letter, route)


def _boxed_letter(box: str) -> tuple[str | None, str]:
    words = re.sub(r"\\[a-z]+", " ", unicodedata.normalize("NFKC", box)).strip(" {}().$")
    letters = {words.upper()} if re.fullmatch(r"[A-Za-z]", words) else set(re.findall(r"\b([A-Z])\b", words))
    return (letters.pop(), "box") if len(letters) == 1 else (None, "box, no letter")


def _stated_letter(response: str) -> tuple[str | None, str]:
    lines = [_plain_line(line) for line in unicodedata.normalize("NFKC", response).splitlines() if line.strip()]
    if not lines:
        return None, "none"
    text = re.sub(r"[\"'“”‘’<>]", "", "\n".join(lines))
    stated = [*_STATED.finditer(text), *_CALLED.finditer(text)]
    if stated:
        return max(stated, key=lambda match: match.start()).group(1), "answer line"
    if re.fullmatch(r"\W*[A-Za-z]\W*", text):
        return text.strip(" ().:*").upper(), "letter"
    begun = re.match(r"\(?([A-Z])(?:\)|[.:](?=\s|$))", lines[-1]) or re.fullmatch(r"\(?([A-Z])\)?", lines[-1])
    if begun:
        return begun.group(1), "letter"
    bold = {m.group(1) for m in re.finditer(r"\*\*\(?([A-Z])\)?[.):]?(?:\s[^*]*)?\*\*", response)}
    if len(bold) == 1:
        return bold.pop(), "bold"
    alone = {line for line in lines if re.fullmatch(r"[A-Z]", line)}
    return (alone.pop(), "letter") if len(alone) == 1 else (None, "none")


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
    answer = _plain(last.group(last.lastindex or 0))
    return Score(float(answer == _plain(target)), answer[:200], "pattern")


def math(response: str, target: str, truncated: bool, settings: dict[str, Any]) -> Score:
    """Mathematical equality, judged by math-verify (https://github.com/huggingface/Math-Verify)."""
    text, route = find_answer(response, truncated)
    if text is None and route == "none":
        text, route = response, "math-verify"
    if text is None:
        return Score(0.0, None, route)
    return Score(
        float(equal_math(f"\\boxed{{{text}}}" if route == "box" else text, target)), text.strip()[:200], route
    )


def equal_math(answer: str, target: str) -> bool:
    """math-verify's comparison of two texts. It may take very long: see `scorer_process`."""
    from math_verify import parse, verify

    bare = target if "\\boxed" in target or "$" in target else f"${target}$"
    return bool(verify(parse(bare), parse(answer)))


def second_score(response: str, target: str) -> float:
    """The second scorer: math-verify finds and compares the answer by its own rules."""
    return float(equal_math(response, target))


Scorer = Callable[[str, str, bool, dict[str, Any]], Score]
"""(answer, target, truncated, the task's settings) -> score."""

SCORERS: dict[str, Scorer] = {
    "integer": integer, "math": math, "exact": exact, "choice": choice, "contains": contains, "regex": regex,
}  # fmt: skip
"""By name, as in task files; `judge` asks a model and is not here."""

MAY_HANG = ("math", "regex")
"""These run in a process that can be ended."""
