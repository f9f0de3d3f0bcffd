"""What a response said beside its figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Reply:
    """The text of a response, kept beside its record on request."""

    text: str = ""
    reasoning: str = ""
    server: str | None = None
    content_type: str = ""
    retry_after: str | None = None
    """The Retry-After header."""
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    unknown_field: str = ""
    """A field that held text and is none that we know."""
