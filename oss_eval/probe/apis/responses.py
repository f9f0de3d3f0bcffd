"""OpenAI's Responses API: typed events, no [DONE].

Source: https://platform.openai.com/docs/api-reference/responses-streaming.
vLLM (https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html) and Azure's /openai/v1 speak it too.
"""

from __future__ import annotations

from typing import Any

from oss_eval.probe.apis.base import (
    Delta,
    Dialect,
    Generation,
    Prompt,
    count,
    error_text,
    messages_of,
    put_effort,
    with_system_effort,
)

ANSWERS = ("response.output_text.delta", "response.refusal.delta")
REASONING = (
    "response.reasoning_text.delta",
    "response.reasoning_summary_text.delta",
    "response.reasoning.delta",
)
ENDS = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")


def body(prompt: Prompt, generation: Generation) -> dict[str, Any]:
    """Fields of a response request; `top-level` efforts go where this API has them, `reasoning.effort`."""
    messages = messages_of(prompt)
    effort = generation.reasoning_effort
    if effort and generation.effort_style == "system":
        messages = with_system_effort(messages, effort)
    fields: dict[str, Any] = {"model": generation.model, "input": messages}
    if generation.max_tokens is not None:
        fields["max_output_tokens"] = generation.max_tokens
    for name in ("temperature", "top_p"):
        value = getattr(generation, name)
        if value is not None:
            fields[name] = value
    if effort and generation.effort_style == "top-level":
        fields["reasoning"] = {"effort": effort}
    else:
        put_effort(fields, generation)
    fields["stream"] = generation.stream
    return {**fields, **dict(generation.extra)}


def read(payload: Any) -> Delta:
    """Read a typed event, or a whole response."""
    delta = Delta()
    if not isinstance(payload, dict):
        delta.error = f"an event that is no JSON object: {str(payload)[:200]}"
        return delta
    kind = payload.get("type")
    text = payload.get("delta")
    if kind in ANSWERS and isinstance(text, str) and text:
        delta.is_token = delta.is_answer = True
        delta.text = text
    elif kind in REASONING and isinstance(text, str) and text:
        delta.is_token = True
        delta.reasoning = text
    elif kind == "response.function_call_arguments.delta" and isinstance(text, str) and text:
        delta.is_token = delta.is_answer = True
        delta.tool_calls = [{"key": payload.get("output_index"), "function": {"arguments": text}}]
    elif kind == "response.output_item.added" and isinstance(payload.get("item"), dict):
        item = payload["item"]
        if item.get("type") == "function_call":
            call = {
                "key": payload.get("output_index"),
                "id": item.get("call_id"),
                "function": {"name": item.get("name")},
            }
            delta.tool_calls = [call]
    elif kind == "error":
        delta.error = error_text(payload.get("error") or payload)
    elif kind in ENDS:
        _read_response(payload.get("response"), delta)
        delta.done = True
    elif payload.get("object") == "response":
        _read_response(payload, delta)
        _read_output(payload.get("output"), delta)
    elif payload.get("error"):
        delta.error = error_text(payload["error"])
    return delta


def _read_response(response: Any, delta: Delta) -> None:
    """How it ended, and its usage in the words of Chat Completions."""
    if not isinstance(response, dict):
        return
    if response.get("error"):
        delta.error = error_text(response["error"])
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    status = response.get("status")
    if status == "completed":
        delta.finish_reason = "stop"
    elif status == "incomplete":
        delta.finish_reason = "length" if reason in (None, "max_output_tokens") else str(reason)
    elif status == "failed" and not delta.error:
        delta.error = "the response failed"
    usage = response.get("usage")
    if isinstance(usage, dict):
        delta.usage = {
            "prompt_tokens": count(usage, "input_tokens"),
            "completion_tokens": count(usage, "output_tokens"),
            "completion_tokens_details": {
                "reasoning_tokens": count(usage, "output_tokens_details", "reasoning_tokens")
            },
            "prompt_tokens_details": {"cached_tokens": count(usage, "input_tokens_details", "cached_tokens")},
        }


def _read_output(output: Any, delta: Delta) -> None:
    """The items of a whole response."""
    for item in output if isinstance(output, list) else ():
        if not isinstance(item, dict):
            continue
        parts = [part for key in ("content", "summary") for part in item.get(key) or () if isinstance(part, dict)]
        text = "".join(str(part.get("text") or part.get("refusal") or "") for part in parts)
        if item.get("type") == "message" and text:
            delta.is_token = delta.is_answer = True
            delta.text += text
        elif item.get("type") == "reasoning" and text:
            delta.is_token = True
            delta.reasoning += text
        elif item.get("type") == "function_call":
            delta.is_token = delta.is_answer = True
            call = {"id": item.get("call_id"), "function": {k: item.get(k) for k in ("name", "arguments")}}
            delta.tool_calls = [*(delta.tool_calls or []), call]


RESPONSES = Dialect("responses", "/v1/responses", body, read)
