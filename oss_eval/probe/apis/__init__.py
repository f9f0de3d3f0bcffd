"""Wire formats of the APIs: request bodies, and how answers are read. One module an API."""

from __future__ import annotations

from oss_eval.probe.apis.base import (
    EFFORT_STYLES,
    Delta,
    Dialect,
    Generation,
    Prompt,
    count,
    error_text,
    merge_tool_calls,
)
from oss_eval.probe.apis.chat import CHAT, COMPLETIONS, read_event
from oss_eval.probe.apis.ollama import OLLAMA, OLLAMA_GENERATE
from oss_eval.probe.apis.responses import RESPONSES

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect for dialect in (CHAT, COMPLETIONS, RESPONSES, OLLAMA, OLLAMA_GENERATE)
}

__all__ = [
    "DIALECTS", "EFFORT_STYLES", "Delta", "Dialect", "Generation", "Prompt", "count", "error_text",
    "merge_tool_calls", "read_event",
]  # fmt: skip
