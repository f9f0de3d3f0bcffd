"""Texts without their typography: Markdown, LaTeX styles, Unicode forms of letters and digits."""

from __future__ import annotations

import re
import unicodedata

_STRUCK = re.compile(r"~~.{1,500}?~~|\\(?:cancel|bcancel|xcancel|sout|st)\s*\{[^{}]*\}", re.S)
_DISPLAY = re.compile(r"\\\[((?:(?!\\[\[\]]).){0,2000})\\\]|\$\$(.{0,2000}?)\$\$", re.S)
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[ \t]*[\w+-]*[ \t]*$", re.M)
_BEGIN_BOX = re.compile(r"<\|begin_of_box\|>")
_END_BOX = re.compile(r"<\|end_of_box\|>")


def readable(response: str) -> str:
    """The response with struck-out text and code fences removed, and each display formula on one line.

    GLM's `<|begin_of_box|>...<|end_of_box|>` becomes a `\\boxed{...}`.
    """
    text = _END_BOX.sub("}", _BEGIN_BOX.sub(r"\\boxed{", response))
    text = _STRUCK.sub(" ", text)
    text = _DISPLAY.sub(lambda match: f"${' '.join((match.group(1) or match.group(2) or '').split())}$", text)
    return _FENCE.sub("", text)


def written_lines(response: str) -> list[str]:
    """The lines of the readable response that are not blank."""
    return [line for line in readable(response).splitlines() if line.strip()]


_EMPHASIS = re.compile(r"(?<![\w*\\])(\*{1,3})(?=[^\s*])(.{1,300}?)(?<=[^\s*\\])\1(?![\w*])")
_UNDERLINE = re.compile(r"(?<!\w)(_{1,3})(?=[^\s_])(.{1,300}?)(?<=[^\s_])\1(?!\w)")
_LOOSE = re.compile(r"^\s*\*{2,3}\s*|(?<!\s)\s*\*{2,3}\s*$|(?<=[:：])\s*\*\*")
_MARKS = re.compile(r"^(?:[#>\s]+|[*+•]\s+|-\s+(?=\D))+")


def without_emphasis(text: str) -> str:
    """The text without Markdown emphasis and code marks; a `*` between factors stays."""
    for _ in range(3):
        text, count = _EMPHASIS.subn(r"\2", text)
        text, more = _UNDERLINE.subn(r"\2", text)
        if not count + more:
            break
    return _LOOSE.sub(" ", text.replace("`", "")).strip()


def plain_line(line: str) -> str:
    """A line without emphasis, heading marks, list marks and quotation marks of Markdown."""
    return _MARKS.sub("", without_emphasis(_MARKS.sub("", line.strip()))).strip()


_STYLE = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|texttt|textnormal|emph|mathbf|mathrm|mathit|mathsf|mathtt|boldsymbol"
    r"|bf|rm|displaystyle|mbox|hbox|bm|operatorname|underline|uline|large|Large|LARGE|huge|Huge|small)"
    r"\s*\{([^{}]*)\}"
)
_COLOUR = re.compile(r"\\(?:color|textcolor)\s*(?:\[\w+\])?\{[^{}]*\}|\\color\s+[a-z]+\b")
_SWITCH = re.compile(
    r"\\(?:bf|rm|it|sf|tt|large|Large|LARGE|huge|Huge|small|normalsize|displaystyle|textstyle|bfseries|limits)"
    r"(?![A-Za-z])"
)


def without_styles(text: str, gap: str = " ") -> str:
    """LaTeX without fonts, sizes and colours; `gap` stands where a font began and ended."""
    text = _SWITCH.sub(" ", _COLOUR.sub(" ", text)) if "\\" in text else text
    for _ in range(5):  # styles nest
        text, count = _STYLE.subn(lambda match: f"{gap}{match.group(1)}{gap}", text)
        if not count:
            break
    return text


_DASHES = str.maketrans({"−": "-", "–": "-", "‐": "-", "‑": "-", "﹣": "-", "‒": "-"})


def folded_forms(text: str) -> str:
    """NFKC (full-width letters and digits become ordinary ones), with every dash of a number as a minus."""
    return unicodedata.normalize("NFKC", text).translate(_DASHES)


_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"'})


def bare(text: str) -> str:
    """A text as `exact` compares it: without styles, case, repeated spaces, quotation and closing punctuation."""
    folded = unicodedata.normalize("NFKC", without_styles(text, "")).translate(_QUOTES).casefold()
    return " ".join(folded.split()).strip(" .,;:!\"'`*$。，；：！“”‘’")
