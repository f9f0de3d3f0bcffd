"""The probe against servers that do odd but legal things, and against ones that break."""

from __future__ import annotations

import socket
import ssl
import sys
import time

import pytest
import trustme

from tests.helpers.exchanges import ask
from tests.helpers.scripted_server import (
    CLOSE,
    DONE,
    LAST_CHUNK,
    RESET,
    SSE_HEAD,
    STOP,
    ScriptedServer,
    answering,
    chunk,
    deaf_server,
    delta,
)

HELLO = delta("Hel") + delta("lo") + STOP + DONE


def test_stamps_come_from_the_kernel_and_precede_the_reading() -> None:
    with ScriptedServer(answering(SSE_HEAD, 0.05, chunk(HELLO), LAST_CHUNK)) as server:
        before = time.time_ns()
        [asked] = ask(server)
        after = time.time_ns()
    record = asked.record
    assert record.status == "ok"
    assert asked.reply.text == "Hello"
    assert before <= record.start_ns <= record.headers_ns <= record.first_token_ns <= record.end_ns <= after
    assert record.first_token_ns - record.start_ns > 45e6
    if sys.platform.startswith("linux"):
        assert record.clock_source == "kernel"
        assert 0 < record.client_lag_max_ns < 1e9


def test_a_busy_client_does_not_age_the_tokens() -> None:
    """The loop sleeps through the arrival of the reply; its instants must not move."""
    if not sys.platform.startswith("linux"):
        pytest.skip("kernel receive stamps are Linux's")
    with ScriptedServer(answering(0.15, SSE_HEAD, chunk(HELLO), LAST_CHUNK)) as server:
        [asked] = ask(server, during=lambda connection: time.sleep(0.6))
    record = asked.record
    assert 0.14e9 < record.first_token_ns - record.start_ns < 0.35e9
    assert record.client_lag_max_ns > 0.3e9


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_a_response_cut_anywhere(size: int) -> None:
    wire = SSE_HEAD + chunk(delta("äö€")) + chunk(delta("𝄞!") + STOP) + chunk(DONE) + LAST_CHUNK
    pieces: list[bytes | float] = []
    for start in range(0, len(wire), size):
        pieces += [wire[start : start + size], 0.0005]
    with ScriptedServer(answering(*pieces)) as server:
        first, second = ask(server, times=2)
    for asked in (first, second):
        assert asked.record.status == "ok"
        assert asked.reply.text == "äö€𝄞!"
        assert asked.record.n_events == 2


def test_crlf_comments_pings_and_several_events_in_one_read() -> None:
    body = b": ping\r\n\r\n" + HELLO.replace(b"\n", b"\r\n") + b"event: ping\r\ndata: {}\r\n\r\n"
    with ScriptedServer(answering(SSE_HEAD + chunk(body) + LAST_CHUNK)) as server:
        [asked] = ask(server)
    assert asked.reply.text == "Hello"
    assert asked.record.n_events == 2
    assert asked.record.n_shared == 1


def test_content_length_and_end_of_connection_frame_bodies() -> None:
    length = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(HELLO)
    until_close = b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    with ScriptedServer(answering(length + HELLO)) as server:
        assert [a.record.status for a in ask(server, times=2)] == ["ok", "ok"]
    with ScriptedServer(answering(until_close, HELLO[:30], 0.01, HELLO[30:], CLOSE)) as server:
        first, second = ask(server, times=2)
    assert (first.reply.text, second.reply.text) == ("Hello", "Hello")
    assert first.connection is second.connection


def test_connection_close_is_honoured() -> None:
    head = SSE_HEAD.replace(b"Transfer", b"Connection: close\r\nTransfer")
    with ScriptedServer(answering(head + chunk(HELLO) + LAST_CHUNK, CLOSE)) as server:
        assert [a.record.status for a in ask(server, times=3)] == ["ok"] * 3


def test_an_interim_response_is_not_the_answer() -> None:
    with ScriptedServer(
        answering(b"HTTP/1.1 100 Continue\r\n\r\n", SSE_HEAD + chunk(HELLO) + LAST_CHUNK)
    ) as server:
        [asked] = ask(server)
    assert (asked.record.status, asked.record.http_status, asked.reply.text) == ("ok", 200, "Hello")


def test_trailers_end_a_response_too() -> None:
    with ScriptedServer(answering(SSE_HEAD + chunk(HELLO) + b"0\r\nX-Checksum: 1\r\n\r\n")) as server:
        assert [a.record.status for a in ask(server, times=2)] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("steps", "kind", "words"),
    [
        ([SSE_HEAD + chunk(delta("Hel")), CLOSE], "stream_broken", "before the response ended"),
        ([SSE_HEAD + chunk(delta("Hel")), 0.05, RESET], "stream_broken", "reset"),
        ([CLOSE], "stream_broken", "without an answer"),
        ([b"HTTP/1.1 200 OK\r\nContent-Le", CLOSE], "stream_broken", "before the response ended"),
        ([b"SSH-2.0-OpenSSH_9.2\r\n"], "decode", "not HTTP"),
        ([SSE_HEAD + b"zz\r\n"], "decode", "not HTTP"),
    ],
)
def test_broken_responses_are_errors(steps: list[bytes | str], kind: str, words: str) -> None:
    with ScriptedServer(answering(*steps)) as server:
        [asked] = ask(server)
    assert (asked.record.status, asked.record.error_kind) == ("error", kind)
    assert words in asked.record.error_message.lower() or words in asked.record.error_message


def test_giving_up_ends_an_exchange() -> None:
    with ScriptedServer(answering(SSE_HEAD, 5.0)) as server:
        [asked] = ask(server, during=lambda connection: connection.give_up("timeout_idle", "no byte within 1 s"))
    assert (asked.record.status, asked.record.error_kind) == ("timeout", "timeout_idle")


def test_a_large_request_is_sent_whole() -> None:
    body = b'{"prompt":"' + b"x" * 8_000_000 + b'"}'
    with ScriptedServer(answering(SSE_HEAD + chunk(HELLO) + LAST_CHUNK)) as server:
        [asked] = ask(server, body)
        assert server.requests[0].endswith(body)
    assert asked.record.status == "ok"


def test_tls_keeps_the_kernel_stamps() -> None:
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    steps = [SSE_HEAD, chunk(delta("Hel")), 0.05, chunk(delta("lo")), chunk(STOP + DONE) + LAST_CHUNK]
    with ScriptedServer(answering(*steps), server_side) as server:
        first, second = ask(server, times=2, context=client_side, host="localhost")
    for asked in (first, second):
        assert asked.reply.text == "Hello"
        assert asked.record.event_ns[1] - asked.record.event_ns[0] > 40e6
        assert asked.record.clock_source == ("kernel" if sys.platform.startswith("linux") else "user")


def test_an_untrusted_certificate_is_named() -> None:
    from oss_eval.probe.outcome import ConnectionFailed

    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(server_side)
    with (
        ScriptedServer(answering(), server_side) as server,
        pytest.raises(ConnectionFailed, match="unable to get local issuer") as failure,
    ):
        ask(server, context=ssl.create_default_context(), host="localhost")
    assert failure.value.kind == "tls"


def test_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    try:
        server = ScriptedServer(answering(SSE_HEAD + chunk(HELLO) + LAST_CHUNK), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with server:
        [asked] = ask(server)
    assert asked.reply.text == "Hello"
    assert b"Host: [::1]:" in server.requests[0]


def test_tokens_that_share_a_read_are_counted_under_tls_too() -> None:
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    # The client's loop stands still from 0.1 s to 0.4 s; everything comes meanwhile.
    steps = [
        0.2,
        SSE_HEAD,
        chunk(delta("a")),
        chunk(delta("b")),
        chunk(delta("c")),
        chunk(STOP + DONE) + LAST_CHUNK,
    ]
    with ScriptedServer(answering(*steps), server_side) as server:
        [asked] = ask(server, context=client_side, host="localhost", during=lambda connection: time.sleep(0.3))
    assert asked.reply.text == "abc"
    assert asked.record.n_shared == 2


def test_a_dead_first_address_leaves_time_for_the_second() -> None:
    """The first address drops packets: its share of the timeout passes, then the second one is used."""
    import asyncio

    import uvloop

    from oss_eval.probe.connection import Connection
    from oss_eval.probe.poller import Poller
    from oss_eval.probe.target import Target

    with deaf_server() as port, ScriptedServer(answering()) as server:
        addresses = ((socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET, ("127.0.0.1", server.port)))
        target = Target("h", server.port, False, "/", (), addresses)

        async def go() -> bool:
            loop = asyncio.get_running_loop()
            connection = Connection(loop, Poller(loop, patient=False), target, None, lambda *read: None)
            await connection.open(1.0)
            opened = connection.is_open
            connection.close()
            return opened

        assert uvloop.run(go())
