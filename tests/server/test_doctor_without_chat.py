"""`doctor` where the chat API fails, and where the named model is not served."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tests.helpers.commands import Command
from tests.helpers.scripted_server import LAST_CHUNK, SSE_HEAD, ScriptedServer, Step, body_of, chunk, json_reply


def wanted(request: bytes) -> int:
    return body_of(request).get("max_tokens") or 16


def words(count: int, finish: str) -> Sequence[Step]:
    """A completion of so many tokens."""
    events: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "text": f" word{i}", "finish_reason": None}]} for i in range(count)
    ]
    events += [{"choices": [{"index": 0, "text": "", "finish_reason": finish}]},
               {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": count}}]  # fmt: skip
    return [SSE_HEAD + b"".join(chunk(b"data: %s\n\n" % json.dumps(e).encode()) for e in events) + LAST_CHUNK]


def base_model(number: int, request: bytes) -> Sequence[Step]:
    """A server of a base model: no chat template."""
    if request.startswith(b"GET"):
        return [json_reply(b'{"object": "list", "data": [{"id": "base-7b"}, {"id": "base-13b"}]}')]
    if b"/chat/completions" in request.partition(b"\r\n")[0]:
        return [json_reply(b'{"error": {"message": "the model has no chat template"}}', "400 Bad Request")]
    return words(min(wanted(request), 8), "stop")


def test_completions_are_looked_at_when_chat_fails(oss_eval: Command) -> None:
    with ScriptedServer(base_model) as server:
        done = oss_eval("doctor", "--url", server.url, "--model", "base-7b")
    assert done.returncode == 1
    assert "fail chat: the model has no chat template" in done.stdout
    assert "--api completions" in done.stdout
    assert "pass token counts: usage comes with the answer" in done.stdout
    assert "not looked at: the completions API has no field for it" in done.stdout


def test_a_wrong_model_name_lists_what_is_served(oss_eval: Command) -> None:
    with ScriptedServer(base_model) as server:
        done = oss_eval("doctor", "--url", server.url, "--model", "base-70b", "--api", "completions")
    assert "served are base-7b, base-13b" in done.stdout


def endless_vllm(number: int, request: bytes) -> Sequence[Step]:
    """vLLM with a model that never ends an answer."""
    if request.startswith(b"GET /version"):
        return [json_reply(b'{"version": "0.24.0"}')]
    if request.startswith(b"GET"):
        return [json_reply(b'{"object": "list", "data": [{"id": "m", "owned_by": "vllm"}]}')]
    return words(wanted(request), "length")


def test_what_an_engine_is_known_for_counts_where_it_cannot_be_seen(oss_eval: Command) -> None:
    with ScriptedServer(endless_vllm) as server:
        done = oss_eval("doctor", "--url", server.url, "--model", "m", "--api", "completions")
    assert "pass fixed lengths: vLLM honours ignore_eos and min_tokens; not seen here" in done.stdout
