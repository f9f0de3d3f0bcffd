"""OpenAI's Chat Completions and Completions, as the servers that speak them really do.

Sources: https://platform.openai.com/docs/api-reference/chat and .../completions, streaming included; usage in
every chunk: vLLM's `continuous_usage_stats` (https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html);
`reasoning_content` (vLLM, SGLang, llama.cpp, DeepSeek; https://docs.vllm.ai/en/latest/features/reasoning_outputs.html),
`reasoning` (vLLM since 0.12, LM Studio, Groq, Ollama), `reasoning_details` (OpenRouter,
https://openrouter.ai/docs/use-cases/reasoning-tokens); usage under `x_groq` (Groq, https://console.groq.com/docs);
`timings` (llama.cpp, https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md).
"""

from __future__ import annotations

from typing import Any

from oss_eval.probe.apis.base import (
    Delta,
    Dialect,
    Generation,
    Prompt,
    error_text,
    messages_of,
    put_effort,
    text_of,
    with_system_effort,
)


def _body(generation: Generation) -> dict[str, Any]:
    body: dict[str, Any] = {"model": generation.model}
    if generation.max_tokens is not None:
        body[generation.limit_field] = generation.max_tokens
    for name in ("min_tokens", "temperature", "top_p", "seed"):
        value = getattr(generation, name)
        if value is not None:
            body[name] = value
    put_effort(body, generation)
    body["stream"] = generation.stream
    if generation.stream and generation.include_usage:
        body["stream_options"] = {"include_usage": True}
        if generation.continuous_usage:
            body["stream_options"]["continuous_usage_stats"] = True
    return body


def chat_body(prompt: Prompt, generation: Generation) -> dict[str, Any]:
    """Fields of a chat completion request."""
    messages = messages_of(prompt)
    if generation.reasoning_effort and generation.effort_style == "system":
        messages = with_system_effort(messages, generation.reasoning_effort)
    body = _body(generation)
    return {"model": body.pop("model"), "messages": messages, **body, **dict(generation.extra)}


def completions_body(prompt: Prompt, generation: Generation) -> dict[str, Any]:
    """Fields of a completion request; messages become one text."""
    body = _body(generation)
    return {"model": body.pop("model"), "prompt": text_of(prompt), **body, **dict(generation.extra)}


def read_event(payload: Any) -> Delta:
    """Read a chunk of a stream (`delta`), or a whole response (`message`), of either API.

    An object without choices, usage or error is an empty Delta: role-only, ping and vendor events are no
    token events.
    """
    delta = Delta()
    if not isinstance(payload, dict):
        delta.error = f"an event that is no JSON object: {str(payload)[:200]}"
        return delta
    if payload.get("error"):
        delta.error = error_text(payload["error"])
    delta.usage = _usage(payload)
    timings = payload.get("timings")
    if isinstance(timings, dict):
        delta.timings = timings
        if delta.usage is None and isinstance(timings.get("predicted_n"), int):
            prompt, cached = timings.get("prompt_n"), timings.get("cache_n") or 0
            prompt = prompt + cached if isinstance(prompt, int) and isinstance(cached, int) else prompt
            delta.usage = {"prompt_tokens": prompt, "completion_tokens": timings["predicted_n"]}
    choices = payload.get("choices")
    if not isinstance(choices, list):
        return delta
    for choice in choices:
        if not isinstance(choice, dict):
            continue
        if choice.get("finish_reason"):
            delta.finish_reason = str(choice["finish_reason"])
        part = choice.get("delta") or choice.get("message") or choice
        if isinstance(part, dict):
            _read_part(part, delta, choice.get("index") in (None, 0))
    return delta


REASONING = ("reasoning_content", "reasoning")
KNOWN = frozenset("role name id object finish_reason stop_reason type function_call audio".split())
"""Fields of a delta or a choice that hold a text which is no answer."""


def _read_part(part: dict[str, Any], delta: Delta, first: bool) -> None:
    """`first`: the first of several answers, or the only one. The others' tokens count, their text stays out."""
    answer = part.get("content") or part.get("text") or part.get("refusal")
    if isinstance(answer, list):  # content parts (Mistral, some gateways)
        answer = "".join(str(p.get("text", "")) for p in answer if isinstance(p, dict))
    reasoning = part.get("reasoning_content") or part.get("reasoning") or _details(part.get("reasoning_details"))
    delta.opens |= "role" in part
    if first and not answer and not reasoning:
        delta.is_empty |= any(part.get(key) == "" for key in ("content", "text", *REASONING))
        delta.unknown = delta.unknown or next(
            (str(key) for key, value in part.items() if value and isinstance(value, str) and key not in KNOWN), ""
        )
    if answer and isinstance(answer, str):
        delta.is_token = delta.is_answer = True
        delta.text += answer if first else ""
    calls = part.get("tool_calls")
    if isinstance(calls, list) and calls:
        delta.tool_calls = calls
        if _calls_tool(calls):
            delta.is_token = delta.is_answer = True
    if reasoning and isinstance(reasoning, str):
        delta.is_token = True
        delta.reasoning += reasoning if first else ""


def _usage(payload: dict[str, Any]) -> dict[str, Any] | None:
    for holder in (payload, payload.get("x_groq")):
        usage = holder.get("usage") if isinstance(holder, dict) else None
        if isinstance(usage, dict):
            return usage
    return None


def _details(details: Any) -> str:
    """The text of OpenRouter's reasoning details; encrypted ones have none."""
    if not isinstance(details, list):
        return ""
    texts = [part.get("text") or part.get("summary") for part in details if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))


def _calls_tool(calls: list[Any]) -> bool:
    """Whether a delta carries arguments of a tool call; its name alone is no token event."""
    functions = [call.get("function") for call in calls if isinstance(call, dict)]
    return any(isinstance(function, dict) and function.get("arguments") for function in functions)


CHAT = Dialect("chat", "/v1/chat/completions", chat_body, read_event)
COMPLETIONS = Dialect("completions", "/v1/completions", completions_body, read_event)
