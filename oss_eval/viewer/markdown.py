"""A model's text, made safe for a Markdown field: formatting and formulas are rendered, everything else is
text."""

from __future__ import annotations

import re

LONGEST = 60_000
"""Maximum number of characters shown; the stored text is complete."""
DELIMITERS: list[dict[str, str | bool]] = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "\\[", "right": "\\]", "display": True},
    {"left": "\\(", "right": "\\)", "display": False},
]

_CODE = re.compile(
    r"(^ {0,3}(`{3,}|~{3,})[^\n]*\n.*?(?:^ {0,3}\2[`~]*[ \t]*$|\Z)|(?<!`)(`+)(?!`).+?(?<!`)\3(?!`))", re.S | re.M
)
_DOLLARS = re.compile(r"(?<![\\$])\$(?![\s$])((?:[^$\\\n]|\\.){1,400}?)(?<![\s\\])\$(?![\d$])")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069]")


def safe(text: str | None) -> str:
    """Markdown that shows every character of `text` and runs none of it.

    HTML is shown as text, pictures as their Markdown (they would be fetched), control characters and changes of
    writing direction as their code points. A single dollar opens a formula where Pandoc's rule says so, that is
    not in "costs $5 and $6" (https://pandoc.org/MANUAL.html#extension-tex_math_dollars).
    """
    if not text:
        return ""
    cut = len(text) > LONGEST
    shown = _CONTROL.sub(lambda match: f"⟨U+{ord(match.group()):04X}⟩", text[:LONGEST])
    parts = []
    place = 0
    for match in _CODE.finditer(shown):
        parts += [_prose(shown[place : match.start()]), _code(match.group())]
        place = match.end()
    parts.append(_prose(shown[place:]))
    return "".join(parts) + (f"\n\n… {len(text) - LONGEST:,} more characters" if cut else "")


def _prose(text: str) -> str:
    text = _DOLLARS.sub(lambda match: f"\\({match.group(1)}\\)", text)
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    return text.replace("![", "!&#91;")


def _code(text: str) -> str:
    """Entities are not read in code, so what could open an element or a picture is broken by a space of no width.

    That holds too where the browser's Markdown takes for text what is code for us.
    """
    return re.sub(r"<(?=[A-Za-z/!?])", "<\u200b", text).replace("![", "!\u200b[")
