"""Requests that the client cancels, as users do who leave."""

from __future__ import annotations

import random
from dataclasses import dataclass

from oss_eval.config.fields import as_seconds
from oss_eval.errors import UsageError


@dataclass(frozen=True, slots=True)
class Cancellation:
    """A share of the requests, and how long after their start they are cancelled."""

    share: float
    seconds: float
    seed: int = 0

    def of(self, number: int) -> float | None:
        """Seconds after which request `number` is cancelled; None: it is not. The same for the same seed."""
        return self.seconds if random.Random(f"{self.seed}/cancel/{number}").random() < self.share else None


def cancellation(text: str, seed: int = 0) -> Cancellation:
    """`0.1:2s`. Raises UsageError."""
    share, _, after = text.partition(":")
    try:
        if 0 < float(share) <= 1 and (seconds := as_seconds(after)) > 0:
            return Cancellation(float(share), seconds, seed)
    except ValueError:
        pass
    raise UsageError(f"--cancel {text!r} is no share and time", "for example: --cancel 0.1:2s")
