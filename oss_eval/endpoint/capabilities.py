"""Which request fields a server takes: known from its identity, or learned from its refusals."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from oss_eval.config.task import Task
from oss_eval.endpoint.identify import identify
from oss_eval.endpoint.server import Server
from oss_eval.errors import UsageError
from oss_eval.probe.apis import DIALECTS, Generation

STYLES = {"llama.cpp": "chat-template", "SGLang": "chat-template", "Ollama": "top-level"}
"""How the reasoning effort is sent to known servers through the chat API, where it is not the field
reasoning_effort.

llama.cpp: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md (chat_template_kwargs); SGLang:
https://docs.sglang.ai/basic_usage/gpt_oss.html; Ollama: https://docs.ollama.com/openai.
"""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Changes to every request, and the reasons."""

    effort_style: str = "top-level"
    limit_field: str = "max_tokens"
    include_usage: bool = True
    continuous_usage: bool = False
    without: tuple[str, ...] = ()
    """Fields that the server refuses."""
    notes: tuple[str, ...] = ()

    def apply(self, generation: Generation) -> Generation:
        """The settings in the form that this server takes."""
        changes: dict[str, Any] = dict.fromkeys(self.without)
        return replace(
            generation, effort_style=self.effort_style, limit_field=self.limit_field,
            include_usage=self.include_usage, continuous_usage=self.continuous_usage, **changes,
        )  # fmt: skip

    def after_refusal(self, status: int | None, words: str, sent: Generation) -> Capabilities | None:
        """The capabilities after a refusal; None when the error text names no field that can be changed."""
        if status not in (400, 422):
            return None
        if self.limit_field == "max_tokens" and _refused("max_tokens", words) and "max_completion_tokens" in words:
            return self._noting("max_completion_tokens instead of max_tokens", limit_field="max_completion_tokens")
        if self.continuous_usage and not _other_field(words):
            # A guess where the error names no field: this one was the client's own idea.
            return self._noting("continuous_usage_stats left out", continuous_usage=False)
        if self.include_usage and (_refused("stream_options", words) or _refused("include_usage", words)):
            return self._noting("stream_options left out: tokens are counted otherwise", include_usage=False)
        for name in ("temperature", "top_p", "seed"):
            if getattr(sent, name) is not None and name not in self.without and _refused(name, words):
                return self._noting(f"{name} left out: the server's default holds", without=(*self.without, name))
        return None

    def _noting(self, note: str, **changes: Any) -> Capabilities:
        return replace(self, notes=(*self.notes, note), **changes)

    def as_manifest(self) -> dict[str, Any]:
        """The manifest's `request`: what was really sent."""
        return {
            "effort_style": self.effort_style, "limit_field": self.limit_field,
            "include_usage": self.include_usage, "continuous_usage": self.continuous_usage,
            "left_out": list(self.without), "notes": list(self.notes),
        }  # fmt: skip


def _other_field(words: str) -> bool:
    """Whether an error refuses a field that every run may send."""
    return any(_refused(name, words) for name in ("max_tokens", "temperature", "top_p", "seed"))


_REFUSAL = (
    r"unsupported|not supported|unrecognized|unknown|unexpected|not permitted|not allowed|no longer supported|"
    r"does not support|doesn't support|forbidden|extra inputs?|extra fields?"
)


def _refused(name: str, words: str) -> bool:
    """Whether an error refuses a field as such, and not its value. The refusal has to be within a few words of the
    field's name, in the same sentence."""
    for sentence in re.split(r"(?<=[.;\n])\s", words):
        if re.search(r"(?i)context length|too large|too long|must be|between|less than|greater than", sentence):
            continue
        field = rf"(?<![\w-]){re.escape(name)}(?![\w-])"
        if re.search(rf"(?i)(?:{_REFUSAL})\W+(?:\w+\W+){{0,4}}?{field}", sentence) or re.search(
            rf"(?i){field}\W+(?:\w+\W+){{0,4}}?(?:{_REFUSAL})", sentence
        ):
            return True
    return False


def request_capabilities(server: Server, task: Task) -> Capabilities:
    """Capabilities before the first request: the given effort style, or the one that this server is known to take.

    Raises UsageError for a style that would send nothing.
    """
    dialect = DIALECTS[server.endpoint.api]
    if task.effort_style == "none" and len(task.reasoning_effort) > 1:
        raise UsageError(
            "--effort-style none asks for no effort: all would be the same", "leave one of the flags out"
        )
    if task.effort_style == "system" and server.endpoint.api in ("completions", "ollama-generate"):
        raise UsageError(
            f"--effort-style system needs messages, which --api {server.endpoint.api} does not take",
            "choose another style, or another API",
        )
    if task.effort_style != "auto":
        return Capabilities(effort_style=task.effort_style)
    if not task.reasoning_effort or dialect.default_style != "top-level" or server.simulator:
        return Capabilities(effort_style=dialect.default_style)
    identity = identify(server.endpoint)
    style = (
        STYLES.get(identity.name, "top-level") if server.endpoint.api in ("chat", "completions") else "top-level"
    )
    return Capabilities(effort_style=style)
