"""Bad input: nothing but OssEvalError, nothing that hangs, nothing that runs what it should read."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings

from tests.helpers.exchanges import ask
from tests.helpers.hostile_input_helpers import HTTP, WIRE, soup
from tests.helpers.scripted_server import DONE, LAST_CHUNK, SSE_HEAD, STOP, ScriptedServer, answering, chunk, delta


@settings(deadline=None, max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(soup(HTTP + WIRE))
def test_whatever_a_server_sends_the_exchange_ends(data: bytes) -> None:
    with ScriptedServer(answering(data or b"x", "close")) as server:
        [asked] = ask(server)
    assert asked.record.status in ("ok", "error")


def test_a_good_stream_is_still_read() -> None:
    """That the targets above are not refusing everything."""
    with ScriptedServer(answering(SSE_HEAD, chunk(delta("hi") + STOP + DONE), LAST_CHUNK)) as server:
        [asked] = ask(server)
    assert (asked.record.status, asked.reply.text) == ("ok", "hi")


def test_text_that_is_no_utf8_is_found_in_plain_events_too() -> None:
    events = [delta("plain"), delta("plain"), delta("X").replace(b"X", b"\xff\xfe"), delta("é"), STOP, DONE]
    with ScriptedServer(answering(SSE_HEAD, chunk(b"".join(events)), LAST_CHUNK)) as server:
        [asked] = ask(server)
    assert asked.record.error_kind == "decode"
    assert "not JSON" in (asked.record.error_message or "")
    assert asked.reply.text == "plainplainé"
