"""Ctrl-C and SIGTERM as a count, for code that must not be interrupted within a message or a row."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

STUCK_SECONDS = 3.0
"""Seconds. After the second signal the program ends within a second; a later signal means that it hangs."""
AGAIN_SECONDS = 0.01
_again = threading.Event()
"""Set when the next signal was already counted."""


def reraise_lost_interrupts() -> None:
    """Raise a KeyboardInterrupt again that was raised in a finalizer or in a weak reference's callback.

    Python prints such an exception and continues (sys.unraisablehook). Here it comes again a moment later, as
    SIGTERM, which is not ignored where SIGINT is, in a shell's background jobs.
    """
    otherwise, main = sys.unraisablehook, threading.main_thread().ident

    def hook(lost: Any) -> None:
        if lost.exc_type is not KeyboardInterrupt or main is None:
            otherwise(lost)
            return
        _again.set()
        timer = threading.Timer(AGAIN_SECONDS, signal.pthread_kill, (main, signal.SIGTERM))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = hook


def clear_unhandled_flag() -> None:
    """Leave by exit code, not as killed by SIGINT, whatever was interrupted before.

    CPython (Python/pythonrun.c) notes a KeyboardInterrupt that comes out of code given as text, as dataclasses are
    made of, as unhandled although somebody handles it later; other such code takes the note away.
    """
    eval("None")


class Interrupts:
    """Counts Ctrl-C and SIGTERM: the first asks to stop, the second to stop at once. Each raises
    KeyboardInterrupt, except within `deferred`.

    Works in the main thread only; elsewhere signals are handled as before.
    """

    def __init__(self) -> None:
        self.count = 0
        self._raises_at: float = 0
        self._second = 0.0
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc: object) -> None:
        with self.deferred():
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self, raises_at: float = math.inf) -> Iterator[None]:
        """In here signals are counted, and raise from number `raises_at` on, or when the program hangs."""
        before, self._raises_at = self._raises_at, raises_at
        try:
            yield
        finally:
            self._raises_at = before

    def _note(self, number: int, frame: object) -> None:
        self.count += not _again.is_set()
        _again.clear()
        now = time.monotonic()
        if self.count <= 2:
            self._second = now
        if self.count >= self._raises_at or now - self._second > STUCK_SECONDS:
            raise KeyboardInterrupt
