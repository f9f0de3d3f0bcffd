"""Ctrl-C and SIGTERM as a count, for code that must not be torn apart in the middle of a message or a row."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Interrupts:
    """Counts Ctrl-C and SIGTERM: the first asks for an end, the second for a quick one, the third one raises.

    `before` were counted elsewhere, `raises_at` is the one that raises KeyboardInterrupt. Only the main thread can
    have it so; elsewhere signals go where they went before.
    """

    def __init__(self, before: int = 0, raises_at: int = 3) -> None:
        self.count = before
        self._raises_at = raises_at
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._handlers[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.count += 1
        if self.count >= self._raises_at:
            raise KeyboardInterrupt
