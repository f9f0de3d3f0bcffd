"""Secrets out of what is shown and stored: command lines, URLs, settings, error texts."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SECRET_FLAGS = ("--api-key", "--header")


URL_FLAGS = ("--url", "--judge-url")


JSON_FLAGS = ("--extra-args", "--dataset-args")


def command_line(argv: list[str] | None = None) -> list[str]:
    """The command as typed, with keys redacted."""
    given = sys.argv if argv is None else argv
    shown: list[str] = [Path(given[0]).name.replace("__main__.py", "oss-eval"), *given[1:]] if given else []
    for index, word in enumerate(shown):
        for flag in SECRET_FLAGS:
            if word == flag and index + 1 < len(shown):
                shown[index + 1] = "***"
            elif word.startswith(flag + "="):
                shown[index] = f"{flag}=***"
        flag, equals, value = word.partition("=")
        if index and shown[index - 1] in JSON_FLAGS:
            shown[index] = _public_json(word)
        elif equals and flag in JSON_FLAGS:
            shown[index] = f"{flag}={_public_json(value)}"
        elif equals and flag in URL_FLAGS:
            shown[index] = f"{flag}={public_url(value)}"
        elif "://" in word or (index and shown[index - 1] in URL_FLAGS):
            shown[index] = public_url(word)
    return shown


PUBLIC_QUERY = ("api-version", "speed", "rate", "ttft", "fault")
"""Query parameters whose values may be shown: those of Azure and of the simulator. Others may be keys."""


def public_url(url: str) -> str:
    """A URL without user, password and the values of its query."""
    scheme, slashes, rest = url.rpartition("://")
    parts = urlsplit(f"//{rest}", allow_fragments=False)
    place = f"***@{parts.netloc.rpartition('@')[2]}" if "@" in parts.netloc else parts.netloc
    words = [word.partition("=") for word in parts.query.split("&")]
    shown = [
        f"{name}={value if name in PUBLIC_QUERY else '***'}" if equals else name for name, equals, value in words
    ]
    return f"{scheme}{slashes}{place}{parts.path}" + (f"?{'&'.join(shown)}" if parts.query else "")


_SECRET = re.compile(r"(?i)key|token$|secret|password|authorization")


def public_values(values: dict[str, Any]) -> dict[str, Any]:
    """Free-form settings without values whose names suggest a secret, at any depth."""
    return {key: _public_value(key, value) for key, value in values.items()}


def _public_value(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return public_values(value)
    if isinstance(value, list):
        return [_public_value(key, item) for item in value]
    return "***" if isinstance(value, str) and _SECRET.search(str(key)) else value


def _public_json(text: str) -> str:
    try:
        values = json.loads(text)
    except ValueError:
        return text
    return json.dumps(public_values(values)) if isinstance(values, dict) else text
