"""Answers that are mathematical expressions, compared by math-verify."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from math import factorial
from typing import Any

from oss_eval.bench.scoring.answers import Found, find_answer
from oss_eval.bench.scoring.integers import as_integer
from oss_eval.bench.scoring.language import DENIED
from oss_eval.bench.scoring.markup import bare, plain_line, without_styles, written_lines
from oss_eval.bench.scoring.statements import conclusion
from oss_eval.bench.types import Score

_SYMBOLS = {
    "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
    "⅕": r"\frac{1}{5}", "⅙": r"\frac{1}{6}", "⅛": r"\frac{1}{8}",
    "°": r"^\circ", "π": r"\pi ", "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "×": r"\times ", "·": r"\cdot ",
    "⋅": r"\cdot ", "÷": "/", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ",
    "±": r"\pm ", "∈": r"\in ", "∅": r"\emptyset ",
    "θ": r"\theta ", "−": "-", "–": "-", "⟨": r"\langle ", "⟩": r"\rangle ",
}  # fmt: skip
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
_RAISED = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_LOWERED = re.compile("[₀-₉]+")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\s*\{(\d{1,12})\}")
_BASE = re.compile(r"(?<=\d)\}?_\{?(?:\\text\{)?(\d{1,2}|two|eight|ten|sixteen)\b")
_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|\{([^{}]*)\}|([\w.]+))")
_WORDS = re.compile(r"\\(?:text|mathrm|textrm|mbox|textbf|mathbf)\s*\{([^{}]*)\}")
_SCALES = re.compile(r"\b(?:thousands?|millions?|billions?|trillions?|dozens?|hundreds?)\b", re.I)
_PROSE = re.compile(r"(?<!\\)\b[A-Za-z]{3,}\b")
_FUNCTIONS = set("sin cos tan log exp sqrt frac max min arcsin arccos arctan and gcd lcm".split())


def as_latex(text: str) -> str:
    r"""The text with Unicode mathematics written as LaTeX: `√2`, `½`, `x²`, `74°`, full-width characters."""
    text = _ROOT.sub(lambda match: rf"\sqrt{{{match.group(1) or match.group(2) or match.group(3)}}}", text)
    text = _RAISED.sub(lambda match: f"^{{{match.group().translate(_SUPERSCRIPTS)}}}", text)
    text = _LOWERED.sub(lambda match: f"_{{{match.group().translate(_SUBSCRIPTS)}}}", text)
    text = _REPEATING.sub(_fraction, text)
    for symbol, latex in _SYMBOLS.items():
        text = text.replace(symbol, latex)
    return unicodedata.normalize("NFKC", text)


def _fraction(match: re.Match[str]) -> str:
    r"""`0.1\overline{6}` as a fraction."""
    whole, fixed, period = match.group(1) or "0", match.group(2), match.group(3)
    value = Fraction(int(whole + fixed + period) - int(whole + fixed), (10 ** len(period) - 1) * 10 ** len(fixed))
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def _inner(text: str) -> str:
    r"""The text without its `$`, `\(` and `\[`."""
    return re.sub(r"\\[()\[\]]|(?<!\\)\$+", " ", text).strip().rstrip(".。,;").strip()


def _claims(text: str) -> bool:
    """Whether the words in an expression deny, doubt or scale it, which math-verify would pass over."""
    return bool(DENIED.search(text) or _SCALES.search(text))


def equal(answer: str, target: str) -> bool:
    """Whether an answer without delimiters equals a target, as math-verify sees it."""
    wanted, given = _inner(as_latex(target)), _inner(as_latex(answer))
    if bare(wanted) == bare(given):
        return True
    bases = _BASE.search(wanted), _BASE.search(given)
    if bases[0] and bases[1] and bases[0].group(1) != bases[1].group(1):
        return False  # math-verify passes over the base
    if _claims(given) and not _claims(wanted):
        value = as_integer(given)
        return value is not None and value == as_integer(wanted)
    return equal_math(f"\\boxed{{{given}}}", f"\\boxed{{{wanted}}}")


def math(response: str, target: str, truncated: bool, settings: dict[str, Any]) -> Score:
    """Mathematical equality, judged by math-verify (https://github.com/huggingface/Math-Verify)."""
    if not _inner(target.replace("\\boxed{}", "")):
        return Score(None, unscored="the target is empty")
    inside = re.fullmatch(r"\s*\$*\s*\\boxed\{(.*)\}\s*\$*\.?\s*", target, re.S)
    wanted = inside.group(1) if inside else target
    found = find_answer(response, truncated, _value)
    if not found.readings and found.route == "none":
        found = _formula(response) or found
    if not found.readings:
        return Score(0.0, None, found.route)
    for reading in found.readings:
        if equal(_factorial(reading, found.route), wanted) or _inner(reading) == _inner(wanted):
            return Score(1.0, reading.strip()[:200], found.route)
    return Score(0.0, found.readings[-1].strip()[:200], found.route)


def _factorial(reading: str, route: str) -> str:
    """`8!` as 40320 where it is a formula, in a box or between `$`, or the whole answer: math-verify takes it for
    either. In a sentence it is an 8."""
    found = re.fullmatch(r"\s*(\$*)\s*(\d{1,3})\s*!\s*\1\s*", reading)
    if found is None or not (found.group(1) or route in ("box", "last line")):
        return reading
    return str(factorial(int(found.group(2))))


def _value(text: str) -> str | None:
    inner = bare(_inner(as_latex(without_styles(text)))).replace(" ", "")
    return inner if re.search(r"\d|\\|^\W*[a-z]\W*$|[∞π]", inner) else None


_ENDS_IN = re.compile(r"(?:\s|=)((?:\\[A-Za-z]+|[^\s=A-Za-z])*[\d√π½¼¾][^\s=]*?)(?:\s+[a-z]+){0,3}\s*[.!]?$")


def _formula(response: str) -> Found | None:
    """A last line that is a formula alone, or the formula that ends a concluding last sentence."""
    lines = written_lines(response)
    if not lines:
        return None
    last = plain_line(lines[-1])
    words = {word.lower() for word in _PROSE.findall(_WORDS.sub(" ", last))} - _FUNCTIONS
    if not words and len(last) < 200 and not DENIED.search(last):
        return Found([last], "last line")
    sentence = conclusion(response)
    formulas = re.findall(r"\$([^$]+)\$|\\\((.+?)\\\)", sentence or "")
    if len(formulas) == 1:
        return Found([formulas[0][0] or formulas[0][1]], "conclusion")
    value = _ENDS_IN.search(sentence or "")
    if value is not None and not formulas:
        return Found([value.group(1)], "conclusion")
    return None


def equal_math(answer: str, target: str) -> bool:
    """math-verify's comparison of two texts. It may take very long: see `scorer_process`."""
    from math_verify import parse, verify

    bare_target = target if "\\boxed" in target or "$" in target else f"${target}$"
    return bool(verify(parse(bare_target), parse(answer)))


def second_score(response: str, target: str) -> float:
    """The second scorer: math-verify finds and compares the answer by its own rules."""
    return float(equal_math(response, target))
