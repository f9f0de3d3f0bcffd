"""Mixes of reasoning efforts within one point, with weights."""

from __future__ import annotations

import random
from dataclasses import dataclass

from oss_eval.errors import UsageError


@dataclass(frozen=True, slots=True)
class EffortMix:
    """Efforts and their shares."""

    efforts: tuple[str, ...]
    weights: tuple[float, ...]
    seed: str

    def of(self, number: int) -> str:
        """The effort of request `number`; the same for the same seed."""
        return random.Random(f"{self.seed}/mix/{number}").choices(self.efforts, self.weights)[0]


def effort_mix(text: str, seed: str = "") -> EffortMix:
    """`low:0.7,high:0.3`: efforts and weights, which need not add up to 1. Raises UsageError."""
    efforts, weights = [], []
    for part in text.split(","):
        effort, colon, weight = part.strip().rpartition(":")
        try:
            value = float(weight)
        except ValueError:
            value = 0.0
        if not colon or not effort or not 0 < value < float("inf") or effort in efforts:
            raise UsageError(f"--mix {text!r} is no mix of efforts", "for example: --mix low:0.7,high:0.3")
        efforts.append(effort)
        weights.append(value)
    return EffortMix(tuple(efforts), tuple(weights), seed)
