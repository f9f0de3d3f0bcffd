"""The viewer's texts: English, which are the keys, and Chinese."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import yaml

LANGUAGES = {"en": "English", "zh": "中文"}


def words(language: str) -> Callable[[str], str]:
    """English to a language; a text that is not translated stays English, which the tests don't allow."""
    if language == "en":
        return lambda text: text
    table = _table()
    return lambda text: table.get(text, text)


@lru_cache(maxsize=1)
def _table() -> dict[str, str]:
    path = Path(__file__).parent / "i18n_zh.yaml"
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))
