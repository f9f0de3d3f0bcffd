"""Ctrl-C and SIGTERM as a flag, for code that must not be torn apart in the middle of a message or a row."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Interrupts:
    """Counts Ctrl-C and SIGTERM instead of raising; the second one raises.

    Only the main thread can have it so; elsewhere signals go where they went before.
    """

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt
