"""Events whose text is empty, streams without any text, and text in a field that nobody knows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from oss_eval.probe.decode import ResponseDecoder
from oss_eval.records import RequestRecord
from oss_eval.results.reader import find_run, read_requests
from tests.helpers.commands import Command
from tests.helpers.scripted_server import LAST_CHUNK, MODELS, SSE_HEAD, ScriptedServer, Step, chunk, json_reply

MS = 1_000_000


def event(payload: dict[str, Any]) -> bytes:
    return chunk(b"data: %s\n\n" % json.dumps(payload).encode())


def chat(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def text(said: str, finish: str | None = None) -> bytes:
    return event({"choices": [{"index": 0, "text": said, "finish_reason": finish}]})


def usage(tokens: int) -> bytes:
    return event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": tokens}})


def decoded(api: str, events: Sequence[bytes], start: int = 1_000_000_000) -> RequestRecord:
    """The record of a stream whose events arrive every 10 ms."""
    record = RequestRecord(
        run_id="r", point_id="p", request_id="1", worker=0, warmup=False, attempt=1, model="m", reasoning_effort=None,
        parallel=1, start_ns=start,
    )  # fmt: skip
    decoder = ResponseDecoder(record, api=api)
    decoder.feed(start + MS, start + MS, SSE_HEAD)
    for number, data in enumerate(events, 1):
        at = start + number * 10 * MS
        decoder.feed(at, at, data)
    decoder.feed(at, at, LAST_CHUNK)
    return decoder.finish(None, None)


def offsets(record: RequestRecord) -> list[float]:
    return [value / MS for value in record.event_ns or ()]


def test_empty_texts_are_tokens_where_the_server_counts_them() -> None:
    record = decoded("completions", [text(""), text("a"), text(""), text("b"), text("", "length"), usage(5)])
    assert offsets(record) == [10, 20, 30, 40, 50]
    assert (record.n_events, record.completion_tokens) == (5, 5)
    assert record.first_token_ns == record.first_answer_ns == 1_000_000_000 + 10 * MS
    assert record.last_token_ns == 1_000_000_000 + 50 * MS


def test_the_stop_token_is_the_event_with_the_stop_reason() -> None:
    begin = [chat({"role": "assistant", "content": ""}), chat({"content": "a"}), chat({"content": ""})]
    counted = decoded("chat", [*begin, chat({"content": "b"}), chat({}, "stop"), usage(4)])
    assert offsets(counted) == [20, 30, 40, 50], "the role alone is no token"
    not_counted = decoded("chat", [*begin, chat({"content": "b"}), chat({}, "stop"), usage(3)])
    assert offsets(not_counted) == [20, 30, 40]
    with_text = decoded("chat", [*begin, chat({"content": "b"}, "stop"), usage(4)])
    assert offsets(with_text) == [20, 30, 40], "the stop token has no event"


def test_an_end_by_length_has_no_stop_token() -> None:
    """llama.cpp sends no event for the first bytes of a character: two tokens came with the second event."""
    record = decoded("chat", [chat({"content": "a"}), chat({"content": "\u00e9"}), chat({}, "length"), usage(3)])
    assert offsets(record) == [10, 20]


@pytest.mark.parametrize("tokens", [2, 7, 40])
def test_signs_of_life_are_no_tokens(tokens: int) -> None:
    """Empty events during hidden reasoning: the server's count says that they are not its tokens."""
    quiet = [chat({"content": ""})] * 3
    record = decoded(
        "chat", [*quiet, chat({"content": "a"}), chat({"content": "b"}), chat({}, "stop"), usage(tokens)]
    )
    assert offsets(record) == [40, 50]
    assert record.first_token_ns == 1_000_000_000 + 40 * MS


def test_without_a_count_only_text_is_a_token() -> None:
    assert offsets(decoded("completions", [text(""), text("a"), text("", "stop")])) == [20]


def silent(delta: dict[str, Any]) -> Any:
    """A server whose streams have usage, and these deltas only."""

    def script(number: int, request: bytes) -> Sequence[Step]:
        if request.startswith(b"GET"):
            return [MODELS]
        if b'"stream":true' not in request.replace(b" ", b""):
            message = {"choices": [{"index": 0, "message": {"role": "assistant", **delta}, "finish_reason": "stop"}],
                       "usage": {"prompt_tokens": 3, "completion_tokens": 16}}  # fmt: skip
            return [json_reply(json.dumps(message).encode())]
        events = [chat({"role": "assistant", "content": ""}), *[chat(delta)] * 16, chat({}, "stop"), usage(16)]
        return [SSE_HEAD + b"".join(events) + LAST_CHUNK]

    return script


@pytest.mark.parametrize(
    ("delta", "said"),
    [({"content": None}, "the answer has no text, although the server counts 16 tokens"),
     ({"thoughts_text": "hm"}, "the field 'thoughts_text' holds one")],
)  # fmt: skip
def test_a_stream_without_readable_text_is_said_to_be_that(
    delta: dict[str, Any], said: str, oss_eval: Command, tmp_path: Path
) -> None:
    with ScriptedServer(silent(delta)) as server:
        ask = oss_eval("ask", "Hi", "--url", server.url)
        doctor = oss_eval("doctor", "--url", server.url)
        perf = oss_eval("perf", "--url", server.url, "--parallel", "1", "--number", "2")
    assert (ask.returncode, said in ask.stderr) == (2, True), ask.stderr
    assert said in " ".join(doctor.stdout.split())
    assert doctor.returncode == 1
    assert "need streaming" not in perf.stdout
    assert "the streams carried no text in a field that oss-eval knows" in " ".join(perf.stdout.split())
    assert "clean at every point" not in perf.stdout
    rows = read_requests(find_run("last", tmp_path / "results")).to_pylist()
    assert {row["first_token_ns"] for row in rows} == {None}


def test_checks_are_not_clean_where_every_request_failed(oss_eval: Command) -> None:
    def script(number: int, request: bytes) -> Sequence[Step]:
        if request.startswith(b"GET"):
            return [MODELS]
        if b"/00-c" not in request:  # before the load
            return [SSE_HEAD + chat({"content": "a"}, "stop") + LAST_CHUNK]
        return [json_reply(b'{"error": {"message": "no"}}', "500 Internal Server Error")]

    with ScriptedServer(script) as server:
        done = oss_eval("perf", "--url", server.url, "--parallel", "1", "--number", "3")
    assert "clean at every point" not in done.stdout
