"""The compiled reader: the same records as without it, whatever the stream."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oss_eval.load.workers.in_flight import InFlight
from oss_eval.load.workers.messages import Batch
from oss_eval.probe import timestamps
from oss_eval.probe.decode_options import DecodeOptions
from oss_eval.probe.known_events import KnownShapes
from oss_eval.probe.reads import (
    COMPLETE,
    ENDED,
    EXTRA,
    FAILED,
    MALFORMED,
    READABLE,
    TOO_LARGE,
    ReadBuffer,
    compiled_reader,
)
from oss_eval.records import RequestRecord
from oss_eval.results.manifest import read_manifest
from tests.helpers.commands import Command, only_run
from tests.helpers.scripted_server import LAST_CHUNK, MODELS, SSE_HEAD, ScriptedServer, chunk, saying
from tests.server.test_events_without_text import chat, usage

pytestmark = pytest.mark.skipif(compiled_reader() is None, reason="the reader is not compiled here")
EPOLLIN = 1


@pytest.fixture(scope="module", autouse=True)
def _stamps() -> Iterator[None]:
    """The kernel stamps packets a moment after the first socket has asked for it, for as long as one does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking, connection() as (client, server):
        timestamps.enable(asking)
        deadline, stamp = time.monotonic() + 5, 0
        while not stamp:
            assert time.monotonic() < deadline, "the kernel gives no timestamps"
            server.send(b"x")
            time.sleep(0.01)
            stamp = timestamps.kernel_ns(client.recvmsg(10, timestamps.ANCILLARY_BYTES)[1])
        yield


@contextlib.contextmanager
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """(the client's end, with receive timestamps; the server's)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        with client, server:
            client.setblocking(False)
            timestamps.enable(client)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield client, server


def polled(reader: Any, count: int = 1) -> list[tuple[int, int]]:
    """(what, errno) of the next reports, waiting for that many ready sockets."""
    deadline, found = time.monotonic() + 5, []
    while count > 0:
        assert time.monotonic() < deadline, "nothing arrived"
        ready, reports = reader.poll(100)
        found += [(what, error) for _, what, error in reports]
        count -= ready
    return found


def row(reader: Any) -> list[tuple[int, ...]]:
    """The rows of the buffer, which is emptied."""
    numbers = memoryview(reader.take()[0]).cast("q").tolist()
    return [tuple(numbers[i : i + 5]) for i in range(0, len(numbers), 5)]


WHOLE = b"5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n"


@pytest.mark.parametrize("cut", range(1, len(WHOLE)))
def test_the_end_of_a_response_is_seen_wherever_it_is_cut(cut: int) -> None:
    reader = compiled_reader()
    with connection() as (client, server):
        reader.register(client.fileno(), EPOLLIN)
        assert reader.stream(client.fileno(), 7, 1000, 1, b"")
        server.send(WHOLE[:cut])
        assert polled(reader) == []
        server.send(WHOLE[cut:])
        assert polled(reader) == [(COMPLETE, 0)]
        rows = row(reader)
        assert [(tag, length) for tag, _, _, length, _ in rows] == [(7, cut), (7, len(WHOLE) - cut)]
        assert all(0 < kernel <= seen == pytest.approx(time.time_ns(), abs=5e9) for _, kernel, seen, _, _ in rows)
        server.send(b"next")  # no longer a stream
        assert polled(reader) == [(READABLE, 0)]


@pytest.mark.parametrize(
    ("sent", "left", "report"),
    [
        (b"0\r\nX-Trailer: 1\r\n\r\n", 100, COMPLETE),
        (b"0\r\n\r\nHTTP/1.1 200 OK", 100, EXTRA),
        (b"xyz\r\n", 100, MALFORMED),
        (b"5\r\nhelloX", 100, MALFORMED),
        (b"fffffffffffffffff\r\n", 100, MALFORMED),
        (b"a\r\n0123456789\r\n", 9, TOO_LARGE),
    ],
)
def test_other_ends(sent: bytes, left: int, report: int) -> None:
    reader = compiled_reader()
    with connection() as (client, server):
        reader.register(client.fileno(), EPOLLIN)
        assert reader.stream(client.fileno(), 1, left, 1, b"")
        server.send(sent)
        assert polled(reader) == [(report, 0)]
        assert reader.take()[1] == sent


def test_data_and_the_end_of_the_connection_may_come_together() -> None:
    reader = compiled_reader()
    with connection() as (client, server):
        reader.register(client.fileno(), EPOLLIN)
        assert reader.stream(client.fileno(), 1, 1000, 1, b"")
        server.send(b"5\r\nhello\r\n")
        server.shutdown(socket.SHUT_WR)
        time.sleep(0.05)
        assert polled(reader) == [(ENDED, 0)]
        assert reader.take()[1] == b"5\r\nhello\r\n"


def test_a_reset_is_an_error() -> None:
    reader = compiled_reader()
    with connection() as (client, server):
        reader.register(client.fileno(), EPOLLIN)
        assert reader.stream(client.fileno(), 1, 1000, 1, b"")
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        server.close()
        [(what, error)] = polled(reader)
        assert (what, error > 0) == (FAILED, True)


def test_a_body_that_has_ended_is_no_stream() -> None:
    reader = compiled_reader()
    with connection() as (client, _):
        reader.register(client.fileno(), EPOLLIN)
        assert not reader.stream(client.fileno(), 1, 1000, 1, WHOLE)
        assert not reader.stream(client.fileno(), 1, 1000, 1, b"no chunk")
        assert reader.stream(client.fileno(), 1, 1000, 5, b"5\r\nhe")
        assert reader.seen(client.fileno()) == 5


# -- the same records ----------------------------------------------------------------------------------------------


def blank() -> RequestRecord:
    return RequestRecord(
        run_id="r", point_id="p", request_id="1", worker=0, warmup=False, attempt=1, model="m", reasoning_effort=None,
        parallel=1, start_ns=1,
    )  # fmt: skip


def in_python(pieces: list[bytes], api: str) -> RequestRecord:
    """The record of a response whose pieces are read one by one, decoded without the reader."""
    decoder = DecodeOptions(api).decoder(blank())
    for number, piece in enumerate(pieces, 1):
        decoder.feed(1000 * number, 1000 * number + 1, piece)
    return decoder.finish(None, None)


def compiled(pieces: list[bytes], api: str) -> tuple[RequestRecord, int]:
    """The same through the reader; the number of events that came as timestamps alone."""
    reader, shapes, ended, reading = compiled_reader(), KnownShapes(), [], DecodeOptions(api)
    known = 0
    in_flight = InFlight(
        lambda worker, tag, attempt, start, server, scheduled: reading.decoder(blank(), on_shape=shapes.add),
        lambda tag, decoder, record: ended.append(record), shapes,
    )  # fmt: skip
    in_flight.take(0, Batch(started=[(1, 1, 1, 0, None)]))
    with connection() as (client, server):
        reader.register(client.fileno(), EPOLLIN)
        head, *rest = pieces
        reader.append(1, time.time_ns(), time.time_ns(), head)
        assert reader.stream(client.fileno(), 1, 1 << 40, 1, b"")
        for piece in [b"", *rest]:
            if piece:
                server.send(piece)
                polled(reader)
            batch = Batch()
            batch.rows, batch.data = reader.take()
            known += sum(length < 0 for length in memoryview(batch.rows).cast("q")[3::5].tolist())
            in_flight.take(0, batch)
            for shape in shapes.new:
                assert reader.learn(shape.parts)
            shapes.new.clear()
    in_flight.take(0, Batch(ended=[(1, 1, 1, time.time_ns(), None, None, 0, None)]))
    [record] = ended
    return record, known


def same(pieces: list[bytes], api: str = "chat") -> int:
    """Hold the one record to the other; the number of events that came as timestamps alone."""
    expected, (found, known) = in_python(pieces, api), compiled(pieces, api)
    for name in ("status", "error_kind", "finish_reason", "prompt_tokens", "completion_tokens", "event_tokens",
                 "token_source", "n_events", "n_shared", "leaked", "server_timings"):  # fmt: skip
        assert getattr(found, name) == getattr(expected, name), name
    assert len(found.event_ns or ()) == len(expected.event_ns or ())
    for first, second in (("first_token_ns", "first_answer_ns"), ("first_token_ns", "last_token_ns")):
        ours, theirs = ((getattr(r, first), getattr(r, second)) for r in (found, expected))
        assert (ours[0] is None, ours[1] is None, ours[0] == ours[1]) == (
            theirs[0] is None,
            theirs[1] is None,
            theirs[0] == theirs[1],
        )
    return known


TEXTS = ["a", " the", "ä", "€", "😀", 'say "x"', "\\", "\n", "\x7f", "<think>", "", "\ud83d".encode("utf-16", "surrogatepass").decode("utf-16", "replace")]  # fmt: skip
EVENTS = st.one_of(
    st.builds(lambda text: {"content": text}, st.sampled_from(TEXTS)),
    st.builds(lambda text: {"reasoning_content": text}, st.sampled_from(TEXTS)),
    st.builds(lambda text: {"content": text, "x": text}, st.sampled_from(TEXTS)),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(EVENTS, min_size=1, max_size=12),
    st.booleans(),
    st.booleans(),
    st.lists(st.integers(1, 400), max_size=4),
)
def test_any_stream_gives_the_same_record(
    deltas: list[dict[str, str]], usages: bool, ascii_only: bool, cuts: list[int]
) -> None:
    events = []
    for number, delta in enumerate(deltas, 1):
        event: dict[str, Any] = {
            "id": f"c-{number}",
            "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
        }
        if usages:
            event["usage"] = {"prompt_tokens": 3, "completion_tokens": number, "total_tokens": 3 + number}
        events.append(chunk(b"data: %s\n\n" % json.dumps(event, ensure_ascii=ascii_only).encode()))
    events += [chat({}, "stop"), usage(len(deltas)), chunk(b"data: [DONE]\n\n"), LAST_CHUNK]
    whole = b"".join(events[:-4])
    if cuts:  # reads that end anywhere
        places = [0, *sorted(place for place in cuts if place < len(whole)), len(whole)]
        begin = [whole[a:b] for a, b in itertools.pairwise(places) if a < b]
    else:
        begin = events[:-4]
    same([SSE_HEAD, *begin, *events[-4:]])


@pytest.mark.parametrize(
    "more",
    [{}, {"obfuscation": "x"}, {"usage": 1}, {"timings": 1}],
    ids=["constant", "obfuscation", "usage", "timings"],
)
def test_events_of_a_known_shape_come_as_timestamps(more: dict[str, Any]) -> None:
    events = []
    for number in range(1, 31):
        event: dict[str, Any] = {"id": "c-1", "object": "chat.completion.chunk", "created": 1795758243,
                                 "choices": [{"index": 0, "delta": {"content": f" w{number}"}, "finish_reason": None}]}  # fmt: skip
        if "obfuscation" in more:
            event["obfuscation"] = "abc"[: number % 4]
        if "usage" in more:
            event["usage"] = {"prompt_tokens": 3, "completion_tokens": number}
        if "timings" in more:
            event["timings"] = {"predicted_n": number, "predicted_ms": number * 1.5}
        events.append(chunk(b"data: %s\n\n" % json.dumps(event).encode()))
    end = [chat({}, "length"), usage(30), LAST_CHUNK]
    found = (
        same([SSE_HEAD, *events, *end])
        if "timings" not in more
        else compiled([SSE_HEAD, *events, *end], "chat")[1]
    )
    assert found >= 27
    assert same([SSE_HEAD, *events[:10], b"".join(events[10:20]), *events[20:], *end]) >= 27 if not more else True


def test_json_lines_are_known_too() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
    lines = [chunk(json.dumps({"model": "m", "created_at": f"2026-11-27T00:00:0{n}Z", "message": {"role": "assistant", "content": f" {n}"},
                               "done": False}).encode() + b"\n") for n in range(10)]  # fmt: skip
    last = {"model": "m", "message": {"content": ""}, "done": True, "done_reason": "stop", "eval_count": 10}
    assert same([head, *lines, chunk(json.dumps(last).encode() + b"\n"), LAST_CHUNK], "ollama") >= 7


def test_a_sweep_without_the_compiled_reader(oss_eval: Command, tmp_path: Path) -> None:
    """The same command in Python alone, as on a machine without a compiler."""

    def script(number: int, request: bytes) -> list[object]:
        return [MODELS] if request.startswith(b"GET") else [saying("Hello there")]

    with ScriptedServer(script) as server:
        done = oss_eval(
            "perf",
            "--url",
            server.url,
            "--parallel",
            "2",
            "--number",
            "6",
            "--prompt",
            "Hi",
            OSS_EVAL_NO_EXTENSIONS="1",
        )
    assert done.returncode == 0, done.stderr
    assert "100%" in done.stdout
    assert read_manifest(only_run(tmp_path))["environment"]["reader"] == "python"


def test_the_buffer_in_python_has_the_same_rows() -> None:
    ours, theirs = ReadBuffer(), compiled_reader()
    for buffer in (ours, theirs):
        buffer.append(1, 2, 3, b"abc")
        buffer.append(4, 5, 6, b"")
        assert buffer.held() == (2, 3)
    assert ours.take() == theirs.take()
    assert ours.take() == theirs.take() == (b"", b"")


def told(text: bytes, more: bytes = b"") -> bytes:
    return b'data: {"id":"c-1","choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":null}]%s}\n\n' % (
        text,
        more,
    )


ODD = {
    "no text": told(b""),
    "half a surrogate pair": told(rb"\ud83d"),
    "a surrogate pair": told(rb"\ud83d\ude00"),
    "an unknown escape": told(rb"\x"),
    "half an escape": told(rb"\u12"),
    "a control character": told(b"\t"),
    "bytes that are no UTF-8": told(b"\xff"),
    "half a character": told(b"\xe2\x82"),
    "a surrogate as UTF-8": told(b"\xed\xa0\x80"),
    "too long a form": told(b"\xc0\x80"),
    "characters": told("ä€😀".encode()),
    "another answer": told(b"x").replace(b'"index":0', b'"index":1'),
    "a field more": told(b"x", b',"error":"e"'),
    "a stop reason": told(b"x").replace(b"null", b'"stop"'),
    "a number that is none": told(b"x", b',"created":01'),
    "an event without its end": told(b"x")[:-1],
    "half of an event": told(b"x")[:40],
    "two events": told(b"x") + told(b"y"),
    "a comment": b": ping\n\n",
    "an event with a comment": b": ping\n" + told(b"x"),
    "lines that end otherwise": told(b"x").replace(b"\n", b"\r\n"),
    "no space": told(b"x").replace(b"data: ", b"data:"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_event_among_known_ones(name: str) -> None:
    usual = [chunk(told(b" w%d" % number)) for number in range(6)]
    end = [chat({}, "length"), usage(12), LAST_CHUNK]
    assert same([SSE_HEAD, *usual, chunk(ODD[name]), *usual, *end]) >= 3
    odd = chunk(ODD[name])
    for cut in (1, 5, len(odd) // 2, len(odd) - 1):
        same([SSE_HEAD, *usual, odd[:cut], odd[cut:], *usual, *end])


def test_a_chunk_of_another_size_than_its_event() -> None:
    usual, event = [chunk(told(b" w")) for _ in range(6)], told(b"x")
    for size in (len(event) - 1, len(event) + 2):
        same([SSE_HEAD, *usual, b"%x\r\n%s\r\n" % (size, event), *usual, LAST_CHUNK])


def test_reasoning_that_leaks_is_seen_in_every_stream() -> None:
    """The second stream begins with an event of a shape that is known from the first."""
    reader, shapes, ended = compiled_reader(), KnownShapes(), {}
    in_flight = InFlight(
        lambda worker, tag, attempt, start, server, scheduled: DecodeOptions("chat").decoder(blank(), on_shape=shapes.add),
        lambda tag, decoder, record: ended.update({tag: record}), shapes,
    )  # fmt: skip
    for tag, first in ((1, b"So"), (2, b"<think>")):
        in_flight.take(0, Batch(started=[(tag, 1, 1, 0, None)]))
        with connection() as (client, server):
            reader.register(client.fileno(), EPOLLIN)
            reader.append(tag, time.time_ns(), time.time_ns(), SSE_HEAD)
            assert reader.stream(client.fileno(), tag, 1 << 40, 1, b"")
            for text in (b"", first, b" we", b" think"):
                server.send(chunk(told(text)))
                polled(reader)
                batch = Batch()
                batch.rows, batch.data = reader.take()
                in_flight.take(0, batch)
                for shape in shapes.new:
                    assert reader.learn(shape.parts)
                shapes.new.clear()
            reader.unregister(client.fileno())
        in_flight.take(0, Batch(ended=[(tag, 1, 1, time.time_ns(), None, None, 0, None)]))
    assert (ended[1].leaked, ended[2].leaked) == (False, True)
    assert (ended[1].n_events, ended[2].n_events) == (3, 3)


def test_a_flood_on_one_stream_does_not_keep_the_caller() -> None:
    """Each poll reads a stream once, and the rest is read by the next ones."""
    reader, sent = compiled_reader(), b"fffff\r\n" + b"x" * 0xFFFFF + b"\r\n"
    with connection() as (client, server):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        reader.register(client.fileno(), EPOLLIN)
        assert reader.stream(client.fileno(), 1, 1 << 40, 1, b"")
        server.setblocking(False)
        done, polls, data = 0, 0, b""
        while len(data) < len(sent):
            with contextlib.suppress(BlockingIOError):
                done += server.send(sent[done:])
            before = len(data)
            reader.poll(100)
            data += reader.take()[1]
            assert len(data) - before <= 65536
            polls += 1
        assert data == sent
        assert polls >= 16
