"""Ctrl-C and SIGTERM: what is in flight finishes or is given up, what was finished is stored, how to go on is said."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from oss_eval.system.signals import Interrupts


@pytest.fixture
def sigint_arrives() -> Iterator[None]:
    """A shell's background jobs, and so tests begun as one, ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint_arrives")
def test_signals_are_counted_where_they_must_not_tear(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts() as interrupts:
        with interrupts.deferred():
            for _ in range(5):  # somebody holds the keys down
                signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            assert interrupts.count == 6
            with monkeypatch.context() as hanging:
                hanging.setattr("oss_eval.system.signals.STUCK_SECONDS", -1)
                with pytest.raises(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert interrupts.count == 8
    assert signal.getsignal(signal.SIGTERM) == before
    with Interrupts() as interrupts, interrupts.deferred(raises_at=2):
        signal.raise_signal(signal.SIGINT)
        with interrupts.deferred():
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("sigint_arrives")
def test_a_signal_that_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)  # raises nothing
    assert interrupts.count == 0
