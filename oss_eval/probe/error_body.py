"""The text of an error response."""

from __future__ import annotations

import re

import orjson

from oss_eval.probe.apis import error_text

MESSAGE_BYTES = 2048
"""Maximum length of a stored error text."""

_HTML = re.compile(r"<(style|script)\b.*?</\1>|<[^>]*>", re.S | re.I)
"""Mark-up of the error pages that proxies send."""


def error_of(body: bytes) -> str:
    """The server's error text in the body of an error response: of its JSON, or of a page without the mark-up."""
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        text = body[: 8 * MESSAGE_BYTES].decode("utf-8", "replace")
        return " ".join(_HTML.sub(" ", text).split())
    return error_text(payload.get("error", payload) if isinstance(payload, dict) else payload)
