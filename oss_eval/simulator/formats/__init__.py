"""The wire formats that the simulator answers in, by the path of a request."""

from __future__ import annotations

from oss_eval.simulator.formats.base import Format, RequestRefused
from oss_eval.simulator.formats.ollama import OllamaChat, OllamaGenerate
from oss_eval.simulator.formats.openai import Chat, Completions
from oss_eval.simulator.formats.responses import Responses

FORMATS: dict[str, type[Format]] = {
    "/v1/chat/completions": Chat,
    "/v1/completions": Completions,
    "/v1/responses": Responses,
    "/api/chat": OllamaChat,
    "/api/generate": OllamaGenerate,
}

__all__ = ["FORMATS", "Format", "RequestRefused"]
