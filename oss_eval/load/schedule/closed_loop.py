"""Closed loop: a slot sends its next request when its last one has ended, so load follows the server's pace."""

from __future__ import annotations

import random
from dataclasses import dataclass

from oss_eval.load.schedule.cancellation import Cancellation


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """As many requests in flight as there are slots. No request has a planned timestamp."""

    slots: int
    """Requests in flight, over all workers."""
    ramp: float = 0.0
    """Seconds over which the slots begin, evenly."""
    think: tuple[float, float] = (0.0, 0.0)
    """Seconds that a slot waits after a request has ended: drawn evenly from this range."""
    seed: int = 0
    cancel: Cancellation | None = None
    conversations: bool = False
    """Whether a slot's requests are the turns of conversations: the next one is made when an answer has come."""

    def first_delay(self, slot: int) -> float:
        """Seconds after the start of the point at which a slot begins; slots are numbered over all workers."""
        return self.ramp * slot / self.slots

    def think_time(self, number: int) -> float:
        """Seconds before request `number`; the same for the same seed."""
        low, high = self.think
        return random.Random(f"{self.seed}/think/{number}").uniform(low, high) if high else 0.0
