"""Mixes within one point: of reasoning efforts, or of task files, with weights."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

from oss_eval.errors import UsageError


class MixPart(NamedTuple):
    """What a request of a mix is: its effort, and the task file that it comes from."""

    effort: str | None
    task: str | None = None


@dataclass(frozen=True, slots=True)
class Mix:
    """Names of efforts or task files (.yaml), and their shares."""

    names: tuple[str, ...]
    weights: tuple[float, ...]
    seed: str

    def of(self, number: int) -> str:
        """The name of request `number`; the same for the same seed."""
        return random.Random(f"{self.seed}/mix/{number}").choices(self.names, self.weights)[0]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of task files."""
        return tuple(name for name in self.names if name.endswith((".yaml", ".yml")))


def parse_mix(text: str, seed: str = "") -> Mix:
    """`low:0.7,high:0.3` or `chat.yaml:0.7,report.yaml:0.3`: names and weights, which need not add up to 1. Raises
    UsageError."""
    names: list[str] = []
    weights = []
    for part in text.split(","):
        name, colon, weight = part.strip().rpartition(":")
        try:
            value = float(weight)
        except ValueError:
            value = 0.0
        if not colon or not name or not 0 < value < float("inf") or name in names:
            raise UsageError(
                f"--mix {text!r} is no mix of efforts or task files",
                "for example: --mix low:0.7,high:0.3, or --mix chat.yaml:0.7,report.yaml:0.3",
            )
        names.append(name)
        weights.append(value)
    return Mix(tuple(names), tuple(weights), seed)
