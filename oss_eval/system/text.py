"""Texts from elsewhere as UTF-8: half a surrogate pair can't be encoded, and a cut may fall into a character."""

from __future__ import annotations


def as_utf8(text: str) -> str:
    """The text with `?` for what UTF-8 can't encode."""
    return text.encode("utf-8", "replace").decode()


def cut(text: str, most: int) -> str:
    """The beginning of a text: at most so many bytes of UTF-8, whole characters."""
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")
