"""The instrument doubting itself: calibration, worker processes, findings, limits."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from oss_eval.probe.poller import FLOOD, Poller
from tests.helpers.exchanges import ask
from tests.helpers.scripted_server import (
    CLOSE,
    DONE,
    LAST_CHUNK,
    SSE_HEAD,
    STOP,
    ScriptedServer,
    answering,
    chunk,
    delta,
)


def test_a_patient_poller_reads_the_same() -> None:
    wire = SSE_HEAD + chunk(delta("Hel")) + chunk(delta("lo") + STOP + DONE) + LAST_CHUNK
    pieces: list[bytes | float] = []
    for start in range(0, len(wire), 9):
        pieces += [wire[start : start + 9], 0.0005]
    with ScriptedServer(answering(*pieces)) as server:
        for asked in ask(server, times=3, patient=True):
            assert (asked.record.status, asked.reply.text) == ("ok", "Hello")
    with ScriptedServer(answering(SSE_HEAD + chunk(delta("Hi")), CLOSE)) as server:
        [asked] = ask(server, patient=True)
    assert asked.record.error_kind == "stream_broken"


class SteppedLoop:
    """An event loop whose time is set by the test: real epoll readiness, no dependence on this machine's load."""

    def __init__(self) -> None:
        self.now = 0.0
        self._readers: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[float, Callable[[], None]]] = []

    def add_reader(self, descriptor: int, callback: Callable[[], None]) -> None:
        self._readers[descriptor] = callback

    def remove_reader(self, descriptor: int) -> None:
        del self._readers[descriptor]

    def call_later(self, seconds: float, callback: Callable[[], None]) -> SimpleNamespace:
        timer = self.now + seconds, callback
        self._timers.append(timer)
        return SimpleNamespace(cancel=lambda: self._timers.remove(timer))

    def step(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self._timers if timer[0] <= self.now]
        self._timers = [timer for timer in self._timers if timer not in due]
        for _, callback in due:
            callback()
        for descriptor, callback in list(self._readers.items()):
            if select.select([descriptor], [], [], 0)[0]:
                callback()


def trickle(sockets: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """(wake-ups, reads) of 3,000 sockets made readable one after the other, 0.1 ms apart."""
    loop = SteppedLoop()
    monkeypatch.setattr("oss_eval.probe.poller.time", SimpleNamespace(monotonic=lambda: loop.now))
    poller = Poller(loop, patient=True)  # type: ignore[arg-type]
    looks = reads = 0
    look = poller._look

    def counting() -> int:
        nonlocal looks
        looks += 1
        return look()

    monkeypatch.setattr(poller, "_look", counting)

    def reader(end: socket.socket) -> None:
        nonlocal reads
        end.recv(100)
        reads += 1

    with contextlib.ExitStack() as stack:
        pairs = [tuple(map(stack.enter_context, socket.socketpair())) for _ in range(sockets)]
        for ours, _ in pairs:
            ours.setblocking(False)
            poller.watch(ours.fileno(), lambda ours=ours: reader(ours))
        for number in range(3000):
            pairs[number % sockets][1].send(b"x")
            loop.step(1e-4)
        loop.step(0.05)
        poller.close()
    return looks, reads


def test_a_trickle_is_looked_at_every_millisecond_or_two(monkeypatch: pytest.MonkeyPatch) -> None:
    looks, reads = trickle(4 * FLOOD, monkeypatch)
    assert reads == 3000
    assert 150 < looks < 250, "every millisecond or two"


def test_two_fast_streams_are_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trickle(2, monkeypatch) == (3000, 3000)
