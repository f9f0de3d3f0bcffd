"""Decoding of whole captures: what is a token, what is a failure, and independence of how bytes were cut."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Callable

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai._streaming import SSEBytesDecoder, SSEDecoder

from oss_eval.endpoint.endpoint import parse_url
from oss_eval.probe.decode import ResponseDecoder
from oss_eval.probe.sse import SseDecoder
from oss_eval.records import RequestRecord
from tests.helpers.exchanges import blank_record
from tests.helpers.scripted_server import DONE, LAST_CHUNK, SSE_HEAD, STOP, chunk, delta, json_reply, usage

START = 1_000_000_000


def decode(
    *reads: bytes, error: str | None = None, text: bool = True, count_tokens: Callable[[str], int] | None = None
) -> tuple[RequestRecord, ResponseDecoder]:
    """Reads arrive 1 ms apart, each seen 0.1 ms after the kernel had it."""
    decoder = ResponseDecoder(blank_record(START), keep_text=text, count_tokens=count_tokens)
    for number, data in enumerate(reads, 1):
        decoder.feed(START + number * 1_000_000, START + number * 1_000_000 + 100_000, data)
    return decoder.finish(error, error), decoder


def stream(*events: bytes) -> list[bytes]:
    return [SSE_HEAD, *(chunk(event) for event in events), LAST_CHUNK]


def test_instants_channels_and_usage() -> None:
    record, _ = decode(
        *stream(
            b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n',
            delta("hm", "reasoning_content"),
            delta("so", "reasoning"),
            delta("42"),
            STOP,
            b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,"completion_tokens_details":'
            b'{"reasoning_tokens":2},"prompt_tokens_details":{"cached_tokens":8}}}\n\n',
            DONE,
        )
    )
    ms = 1_000_000
    assert record.headers_ns == START + 1 * ms
    assert record.first_token_ns == START + 3 * ms
    assert record.first_answer_ns == START + 5 * ms
    assert record.last_token_ns == START + 5 * ms
    assert record.end_ns == START + 9 * ms
    assert list(record.event_ns) == [3 * ms, 4 * ms, 5 * ms]
    assert (record.prompt_tokens, record.completion_tokens) == (9, 3)
    assert (record.reasoning_tokens, record.cached_tokens) == (2, 8)
    assert (record.status, record.finish_reason, record.token_source) == ("ok", "stop", "usage")
    assert (record.client_lag_p50_ns, record.client_lag_max_ns) == (100_000, 100_000)
    assert (record.text, record.reasoning_text) == ("42", "hmso")


@pytest.mark.parametrize(
    ("part", "tokens"),
    [
        ({"delta": {"content": "x"}}, 1),
        ({"delta": {"refusal": "no"}}, 1),
        ({"delta": {"tool_calls": [{"function": {"arguments": "{"}}]}}, 1),
        ({"delta": {"tool_calls": [{"function": {"name": "f", "arguments": ""}}]}}, 0),
        ({"text": "x"}, 1),
        ({"delta": {"role": "assistant"}}, 0),
        ({"delta": {"content": None, "reasoning_content": None}}, 0),
        ({"delta": {"content": ""}}, 0),
        ({"delta": {}, "finish_reason": "length"}, 0),
    ],
)
def test_what_a_token_event_is(part: dict[str, object], tokens: int) -> None:
    record, _ = decode(*stream(b"data: " + orjson.dumps({"choices": [part]}) + b"\n\n", STOP))
    assert record.n_events == tokens


def test_tokens_per_event_when_usage_comes_in_every_chunk() -> None:
    def event(text: str, total: int) -> bytes:
        choice = {"choices": [{"delta": {"content": text}}], "usage": {"completion_tokens": total}}
        return b"data: " + orjson.dumps(choice) + b"\n\n"

    record, _ = decode(*stream(event("a b", 2), event("c", 3), event("d e f", 6), STOP))
    assert list(record.event_tokens or ()) == [2, 1, 3]
    assert record.completion_tokens == 6


def test_absent_usage_is_null_or_counted_and_says_so() -> None:
    record, _ = decode(*stream(delta("a"), delta("b"), STOP))
    assert (record.prompt_tokens, record.completion_tokens, record.token_source) == (None, 2, "chunks")
    decoder = ResponseDecoder(blank_record(START), count_tokens=lambda text: len(text) * 10)
    for data in stream(delta("abc"), delta("r", "reasoning"), STOP):
        decoder.feed(START, START, data)
    record = decoder.finish(None, None)
    assert (record.completion_tokens, record.token_source) == (40, "tokenizer")


def test_no_kernel_stamp_falls_back_and_says_so() -> None:
    decoder = ResponseDecoder(blank_record(START))
    for data in stream(delta("a"), STOP):
        decoder.feed(0, START + 5, data)
    record = decoder.finish(None, None)
    assert (record.clock_source, record.first_token_ns) == ("user", START + 5)
    assert record.client_lag_max_ns is None


@pytest.mark.parametrize(
    ("reads", "kind", "words"),
    [
        (stream(delta("a"), b'data: {"error":{"message":"out of memory"}}\n\n'), "stream_error", "out of memory"),
        (stream(delta("a")), "stream_broken", "without a stop reason"),
        (stream(), "empty", "no token"),
        (stream(DONE), "empty", "no token"),
        (stream(b"data: {nonsense\n\n", STOP), "decode", "not JSON"),
        (stream(b"data: 17\n\n", STOP), "stream_error", "no JSON object"),
        ([json_reply(b'{"error":{"message":"bad key"}}', "401 Unauthorized")], "http_4xx", "bad key"),
        ([json_reply(b'{"detail":"slow down"}', "429 Too Many Requests")], "http_429", "slow down"),
        ([json_reply(b"<html><h1>Bad Gateway</h1></html>", "502 Bad Gateway")], "http_5xx", "Bad Gateway"),
        ([json_reply(b"", "503 Unavailable")], "http_5xx", "HTTP 503"),
        ([json_reply(b"", "307 Temporary Redirect")], "http_3xx", "HTTP 307"),
        ([json_reply(b"{")], "decode", "not JSON"),
        ([json_reply(b'{"choices":[]}')], "empty", "no token"),
    ],
)
def test_failures_that_look_like_answers(reads: list[bytes], kind: str, words: str) -> None:
    record, _ = decode(*reads)
    assert (record.status, record.error_kind) == ("error", kind)
    assert words in record.error_message
    assert "<" not in record.error_message


def test_a_whole_reply() -> None:
    body = orjson.dumps(
        {
            "choices": [{"message": {"content": "42", "reasoning_content": "hm"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 7},
        }
    )
    record, _ = decode(json_reply(body)[:40], json_reply(body)[40:])
    assert (record.status, record.completion_tokens, record.text) == ("ok", 7, "42")
    assert (record.first_token_ns, record.n_events, record.event_ns) == (None, 0, None)
    assert record.end_ns == START + 2_000_000


def test_a_compressed_body_is_read_all_the_same() -> None:
    body = gzip.compress(delta("zip") + STOP)
    record, _ = decode(
        SSE_HEAD[:-2] + b"Content-Encoding: gzip\r\n\r\n", chunk(body[:20]), chunk(body[20:]), LAST_CHUNK
    )
    assert (record.status, record.text) == ("ok", "zip")


def test_long_error_messages_are_cut_on_a_character() -> None:
    body = orjson.dumps({"error": {"message": "ä" * 3000}})
    record, _ = decode(json_reply(body, "500 Internal Server Error"))
    assert set(record.error_message) == {"ä"}
    kept = parse_url("http://h", "chat").redact(record.error_message)  # the cut comes after keys are taken out
    assert len(kept.encode()) <= 2048
    assert set(kept) == {"ä"}


EVENTS = st.lists(
    st.one_of(
        st.text(max_size=20).map(lambda t: b"data: " + orjson.dumps({"choices": [{"delta": {"content": t}}]})),
        st.just(b": comment"),
        st.just(b"event: ping\ndata: {}"),
        st.just(b"data:{}\ndata: 1"),
        st.just(b"id: 7"),
    ),
    max_size=12,
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(EVENTS, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.lists(st.integers(0, 4000), max_size=30))
def test_sse_does_not_depend_on_the_cuts_and_agrees_with_openai(
    events: list[bytes], end: bytes, places: list[int]
) -> None:
    wire = b"".join(event.replace(b"\n", end) + end + end for event in events)
    whole = SseDecoder().feed(wire)
    decoder = SseDecoder()
    pieces = [event for piece in cut(wire, places) for event in decoder.feed(piece)]
    assert pieces == whole
    reference: SSEBytesDecoder = SSEDecoder()
    theirs = [event.data for event in reference.iter_bytes(iter([wire])) if event.data]
    assert [event.decode() for event in whole if event] == theirs


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=10))
def test_any_bytes_are_decoded_without_an_exception(data: bytes, places: list[int]) -> None:
    for head in (b"", SSE_HEAD, b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"):
        record, _ = decode(*cut(head + data, places))
        assert record.status == "error"


TEXTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10), min_size=1, max_size=8
)


@given(TEXTS, st.lists(st.integers(0, 4000), max_size=30))
def test_text_survives_any_cut(texts: list[str], places: list[int]) -> None:
    events = [b"data: " + orjson.dumps({"choices": [{"delta": {"content": text}}]}) + b"\n\n" for text in texts]
    wire = b"".join(stream(*events, STOP, usage(1, len(texts))))
    record, _ = decode(*cut(wire, places))
    assert record.text == "".join(texts)
    assert (record.status, record.n_events, record.completion_tokens) == ("ok", len(texts), len(texts))
    assert list(record.event_ns) == sorted(record.event_ns)


PARTS = st.fixed_dictionaries(
    {},
    optional={
        "content": st.none() | st.sampled_from(["", "a", "b c", 'say "x"', "\\", "ä", "\x7f"]),
        "reasoning_content": st.none() | st.sampled_from(["", "hm", "a"]),
        "role": st.just("assistant"),
        "x": st.sampled_from(["a", "b", '","content":"z']),
    },
)


@given(st.lists(PARTS, min_size=1, max_size=12), st.booleans())
def test_templates_change_nothing(parts: list[dict[str, object]], spaces: bool) -> None:
    """Events whose shape repeats are read without parsing; that must give what parsing gives."""
    import json

    events = [b"data: " + json.dumps({"choices": [{"delta": p}]}, indent=None if spaces else 0).replace("\n", "").encode()
              for p in [{"content": "a"}, *parts]]  # fmt: skip
    record, _ = decode(*stream(*(event + b"\n\n" for event in events), STOP))
    texts = [(p.get("content") or "", p.get("reasoning_content") or "") for p in [{"content": "a"}, *parts]]
    assert record.text == "".join(t for t, _ in texts)
    assert record.reasoning_text == "".join(r for _, r in texts)
    assert record.n_events == sum(bool(t or r) for t, r in texts)


def test_a_longer_event_of_the_same_beginning_and_end_is_parsed() -> None:
    first = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
    other = b'data: {"choices":[{"delta":{"content":"","name":"b"}}]}\n\n'
    record, _ = decode(*stream(first, other, first, STOP))
    assert (record.n_events, record.text) == (2, "aa")


def test_a_segment_that_was_sent_again_holds_up_what_follows_it() -> None:
    """Its stamp is later than theirs; in the stream nothing is there before what stands in front of it."""
    decoder = ResponseDecoder(blank_record(START))
    stamps = [1, 2, 9, 3, 4, 10]
    for stamp, data in zip(stamps, [SSE_HEAD, *[chunk(delta(word)) for word in "abcde"]], strict=True):
        decoder.feed(START + stamp, START + 20, data)
    record = decoder.finish(None, None)
    assert list(record.event_ns or []) == [2, 9, 9, 9, 10]
    assert record.last_token_ns == START + 10
    assert record.client_lag_max_ns == 19, "how late the client was is told by each read's own stamp"


def test_a_first_token_that_came_with_a_later_one_has_a_lower_bound() -> None:
    """The read has the timestamp of its newest packet."""
    reads = {
        "alone": ([SSE_HEAD, chunk(delta("a")), chunk(delta("b"))], None),
        "with the next": ([SSE_HEAD, chunk(delta("a")) + chunk(delta("b"))], START + 1),
        "with everything": ([SSE_HEAD + chunk(delta("a")) + chunk(delta("b"))], START),
        "later ones": ([SSE_HEAD, chunk(delta("a")), chunk(delta("b")) + chunk(delta("c"))], None),
    }
    for name, (pieces, low) in reads.items():
        decoder = ResponseDecoder(blank_record(START))
        for number, piece in enumerate(pieces, 1):
            decoder.feed(START + number, START + number, piece)
        assert decoder.finish(None, None).first_token_low_ns == low, name


def test_a_tokenizer_counts_the_tokens_of_chunks_that_the_server_does_not() -> None:
    def event(key: str, text: str) -> bytes:
        return b"data: " + orjson.dumps({"choices": [{"delta": {key: text}}]}) + b"\n\n"

    events = [event("reasoning_content", "a b c"), event("reasoning_content", " d"), event("content", " e f")]
    record, _ = decode(*stream(*events, STOP), count_tokens=lambda text: len(text.split()))
    assert (record.completion_tokens, record.token_source) == (6, "tokenizer")
    assert list(record.event_tokens or ()) == [3, 1, 2]
    assert (record.first_event_tokens, record.tokens_to_answer) == (3, 6)


def test_counts_that_go_down_are_not_counts_of_events() -> None:
    def event(text: str, total: int) -> bytes:
        choice = {"choices": [{"delta": {"content": text}}], "usage": {"completion_tokens": total}}
        return b"data: " + orjson.dumps(choice) + b"\n\n"

    record, _ = decode(*stream(event("a", 5), event("b", 3), event("c", 6), STOP))
    assert (record.event_tokens, record.first_event_tokens, record.tokens_to_answer) == (None, None, None)
    assert record.completion_tokens == 6
