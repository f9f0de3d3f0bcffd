"""EvalScope's view of the probe: a ModelAPI whose requests are measured by kernel stamps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from evalscope.api.messages import ChatMessage
from evalscope.api.messages.perf_metrics import PerformanceMetrics
from evalscope.api.model import GenerateConfig, ModelAPI, ModelOutput
from evalscope.api.tool import ToolChoice, ToolInfo
from evalscope.models.utils.openai import (
    chat_choices_from_openai,
    model_output_from_openai,
    openai_chat_messages,
    openai_chat_tool_choice,
    openai_chat_tools,
    openai_completion_params,
)
from openai.types.chat import ChatCompletion

from oss_eval.analysis.latency import record_durations
from oss_eval.load.client import Answer

Ask = Callable[[dict[str, Any]], Answer]
"""Sends the fields of a chat completion request, and gives its answer."""


class ProbeModel(ModelAPI):  # type: ignore[misc]  # evalscope has no types
    """One sample's model: EvalScope's benchmarks call `generate` once or, in conversations, several times."""

    def __init__(self, model_name: str, ask: Ask) -> None:
        super().__init__(model_name)
        self._ask = ask

    def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """An answer with its timings in `message.perf_metrics` and `metadata`. Raises what asking raises."""
        body = request_fields(self.model_name, input, tools, tool_choice, config)
        return model_output(self.model_name, self._ask(body), tools)


def request_fields(
    model: str, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
) -> dict[str, Any]:
    """Fields of the request that EvalScope's own client would send."""
    params = openai_completion_params(model, config, bool(tools))
    for client_side in ("timeout", "extra_headers", "extra_query"):
        params.pop(client_side, None)
    body = {**params, **params.pop("extra_body", {})}
    body["messages"] = openai_chat_messages(input, reasoning_format=config.reasoning_history or "reasoning_field")
    if tools:
        body["tools"] = openai_chat_tools(tools)
        body["tool_choice"] = openai_chat_tool_choice(tool_choice)
    return body


def model_output(model: str, answer: Answer, tools: list[ToolInfo]) -> ModelOutput:
    """An answer as EvalScope's ModelOutput."""
    record, reply = answer.record, answer.reply
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None}
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    if reply.tool_calls:
        message["tool_calls"] = [
            {**call, "id": call["id"] or f"call_{index}"} for index, call in enumerate(reply.tool_calls)
        ]
    usage = None
    if record.prompt_tokens is not None and record.completion_tokens is not None:
        details = None if record.reasoning_tokens is None else {"reasoning_tokens": record.reasoning_tokens}
        usage = {
            "prompt_tokens": record.prompt_tokens,
            "completion_tokens": record.completion_tokens,
            "total_tokens": record.prompt_tokens + record.completion_tokens,
            "completion_tokens_details": details,
        }
    completion = ChatCompletion.model_validate(
        {
            "id": record.request_id,
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": _finish_reason(record.finish_reason)}],
            "usage": usage,
        }
    )
    output = model_output_from_openai(completion, chat_choices_from_openai(completion, tools))
    seconds = {name: None if ms is None else ms / 1000 for name, ms in record_durations(record).items()}
    output.time = seconds["latency"]
    output.message.perf_metrics = PerformanceMetrics(
        latency=seconds["latency"] or 0.0,
        ttft=seconds["ttft"],
        input_tokens=record.prompt_tokens or 0,
        output_tokens=record.completion_tokens or 0,
    )
    output.metadata = {
        **(output.metadata or {}),
        "oss_eval": {
            "request_id": record.request_id,
            "attempt": record.attempt,
            "start_ns": record.start_ns,
            "first_token_ns": record.first_token_ns,
            "first_answer_ns": record.first_answer_ns,
            "last_token_ns": record.last_token_ns,
            "clock_source": record.clock_source,
        },
    }
    return output


def _finish_reason(reason: str | None) -> str:
    known = ("stop", "length", "tool_calls", "content_filter", "function_call")
    return reason if reason in known else "stop"
