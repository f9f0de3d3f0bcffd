"""Secrets out of what is shown and stored: command lines, URLs, settings, error texts."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

SECRET_FLAGS = ("--api-key", "--header", "--auth")


URL_FLAGS = ("--url", "--judge-url", "--server-metrics")


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
            shown[index] = _public_json(word, JSON_FLAGS[shown[index - 1]])
        elif equals and flag in JSON_FLAGS:
            shown[index] = f"{flag}={_public_json(value, JSON_FLAGS[flag])}"
        elif equals and flag in URL_FLAGS:
            shown[index] = f"{flag}={public_url(value)}"
        elif "://" in word or (index and shown[index - 1] in URL_FLAGS):
            shown[index] = public_url(word)
    return shown


PUBLIC_QUERY = (
    "api-version", "speed", "rate", "ttft", "fault", "tokens-per-chunk", "prefix-cache", "solve", "threads",
    "slots", "context",
)  # fmt: skip
"""Query parameters whose values may be shown: those of Azure, of the simulator and of local models. Others may be
keys."""


def public_url(url: str) -> str:
    """A URL without user, password, values of its query, its fragment, and what looks like a key in its path."""
    scheme, slashes, rest = url.rpartition("://")
    parts = urlsplit(f"//{rest}")
    place = f"***@{parts.netloc.rpartition('@')[2]}" if "@" in parts.netloc else parts.netloc
    words = [word.partition("=") for word in parts.query.split("&")]
    shown = [
        f"{name}={value if name in PUBLIC_QUERY else '***'}" if equals else public_segment(name)
        for name, equals, value in words
    ]
    query = f"?{'&'.join(shown)}" if parts.query else ""
    return f"{scheme}{slashes}{place}{public_path(parts.path)}{query}" + ("#***" if parts.fragment else "")


def public_path(path: str) -> str:
    """The path of a URL without `;parameters` and without segments that look like keys."""
    return "/".join(map(public_segment, path.split("/")))


def public_segment(segment: str) -> str:
    """A part of a path as it may be shown."""
    name, semicolon, _ = segment.partition(";")
    return ("***" if looks_secret(name) else name) + (";***" if semicolon else "")


_KEY_PREFIX = re.compile(
    r"(?i)\b(?:sk|pk|rk|key|tok|token|pat|ghp|gho|hf|nvapi|gsk|xai|bearer|basic)[-_ .][\w.~+/=-]{6,}"
    r"|^eyJ[\w-]{10,}"
)
_RUN = re.compile(r"[A-Za-z0-9+=]{16,}")


def looks_secret(text: str) -> bool:
    """Whether a text has the form of a key: a usual prefix, or a long run of mixed letters and digits."""
    mixed = (run for run in _RUN.findall(text) if re.search(r"\d", run) and re.search(r"[A-Za-z]", run))
    return bool(_KEY_PREFIX.search(text)) or any(mixed)


_SECRET = re.compile(r"(?i)key|token$|secret|passw|pwd|auth|credential|signature|cookie")
PUBLIC_ARGS = frozenset(
    "stop service_tier truncation tool_choice response_format type role format quantization quantizations "
    "reasoning_effort reasoning_format reasoning effort mode verbosity summary include provider order "
    "only ignore sort data_collection route name model models thinking chat_template_kwargs "
    "guided_decoding_backend guided_regex guided_choice guided_grammar lora_name adapter_id description "
    "strict schema properties required title enum const items".split()
)
"""Names in --extra-args whose texts may be stored: fields that servers document. Other texts may be keys."""


def public_args(values: dict[str, Any]) -> dict[str, Any]:
    """`--extra-args` as they may be stored: numbers, and texts of PUBLIC_ARGS that don't look like a key."""
    return {key: _public_arg(key, value, key in PUBLIC_ARGS) for key, value in values.items()}


def _public_arg(key: str, value: Any, public: bool) -> Any:
    if isinstance(value, dict):
        inside_schema = public and key in ("schema", "properties")
        return {k: _public_arg(k, v, inside_schema or k in PUBLIC_ARGS) for k, v in value.items()}
    if isinstance(value, list):
        return [_public_arg(key, item, public) for item in value]
    return value if not isinstance(value, str) or (public and not looks_secret(value)) else "***"


def public_values(values: dict[str, Any]) -> dict[str, Any]:
    """Free-form settings without values whose names or forms suggest a secret, at any depth."""
    return {key: _public_value(key, value) for key, value in values.items()}


def _public_value(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return public_values(value)
    if isinstance(value, list):
        return [_public_value(key, item) for item in value]
    secret = isinstance(value, str) and (_SECRET.search(str(key)) or _KEY_PREFIX.search(value))
    return "***" if secret else value


# -- what servers repeat ----------------------------------------------------------------------------------------

SHORTEST = 6
"""Characters of a value that is looked for in answers; a shorter one may be an ordinary word."""


def secret_forms(values: Iterable[str]) -> tuple[str, ...]:
    """The forms in which a server may repeat secrets: plain, quoted for a URL, escaped for JSON; longest first."""
    found: dict[str, None] = {}
    for value in values:
        for plain in (value, value.removeprefix("Bearer "), value.removeprefix("Basic ")):
            for form in (plain, quote(plain, safe=""), json.dumps(plain)[1:-1]):
                if len(form) >= SHORTEST:
                    found[form] = None
    return tuple(sorted(found, key=len, reverse=True))


def redacted(text: str, forms: tuple[str, ...]) -> str:
    """The text with `***` for each of these forms."""
    for form in forms:
        text = text.replace(form, "***")
    return text


class Redactor:
    """Redacts a text that arrives in pieces: what may be the beginning of a secret waits for the next piece."""

    def __init__(self, forms: tuple[str, ...]) -> None:
        self._forms, self._held = forms, ""

    def feed(self, piece: str) -> str:
        """What can be shown now."""
        text = redacted(self._held + piece, self._forms)
        longest = max((_overlap(text, form) for form in self._forms), default=0)
        self._held = text[len(text) - longest :]
        return text[: len(text) - longest]

    def end(self) -> str:
        """The rest."""
        rest, self._held = self._held, ""
        return rest


def _overlap(text: str, form: str) -> int:
    """Length of the longest end of the text that begins the form."""
    return next((n for n in range(min(len(text), len(form) - 1), 0, -1) if text.endswith(form[:n])), 0)


def _public_json(text: str, public: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return "***"
    return json.dumps(public(values)) if isinstance(values, dict) else text


JSON_FLAGS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "--extra-args": public_args, "--dataset-args": public_values,
}  # fmt: skip
"""Flags with settings in JSON, and how their values are shown."""
