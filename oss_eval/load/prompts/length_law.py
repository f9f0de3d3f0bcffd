"""Laws of lengths: how many tokens a prompt, or an answer, has."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from oss_eval.errors import UsageError
from oss_eval.system.files import read_file

MOST_BYTES = 64_000_000


@dataclass(frozen=True, slots=True)
class LengthLaw:
    """A law, from which lengths are drawn: `fixed`, `uniform`, `normal`, `lognormal` with two parameters, or
    `file`."""

    kind: str
    first: float
    second: float
    values: tuple[int, ...] = ()

    def draw(self, rng: random.Random, number: int) -> int:
        """The length of request `number`, at least 1; of a file, its rows one after the other."""
        match self.kind:
            case "uniform":
                length: float = rng.randint(int(self.first), int(self.second))
            case "normal":
                length = rng.gauss(self.first, self.second)
            case "lognormal":
                length = self.first * rng.lognormvariate(0, self.second)
            case "file":
                length = self.values[number % len(self.values)]
            case _:
                length = self.first
        return max(1, round(length))


def length_law(text: str, flag: str, column: int = 0) -> LengthLaw:
    """`512`, `256-1024`, `normal:MEAN:SD`, `lognormal:MEDIAN:SIGMA`, or `file:PATH`, whose lines have numbers:
    of the prompt, then of the answer; `column` is which of them. Raises UsageError."""
    kind, _, rest = text.partition(":")
    try:
        if kind == "file":
            return LengthLaw("file", 0, 0, _column(Path(rest), column))
        if kind in ("normal", "lognormal"):
            first, second = map(float, rest.split(":"))
            if 0 < first < 1e9 and 0 <= second < 1e9:
                return LengthLaw(kind, first, second)
            raise ValueError
        low, dash, high = text.partition("-")
        if 0 < int(low) <= int(high if dash else low):
            return LengthLaw("uniform" if dash else "fixed", int(low), int(high if dash else low))
    except ValueError:
        pass
    raise UsageError(
        f"{flag} {text!r} is no law of lengths", "512, 256-1024, normal:512:100, lognormal:512:0.5 or file:PATH"
    )


def _column(path: Path, column: int) -> tuple[int, ...]:
    try:
        lines = read_file(path, MOST_BYTES).decode("utf-8").split("\n")
    except OSError as error:
        raise UsageError(f"can't read the lengths in {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"the lengths in {path} are not UTF-8 text") from None
    found = []
    for number, line in enumerate(lines, 1):
        parts = line.replace(",", " ").split()
        if not parts:
            continue
        try:
            value = int(parts[min(column, len(parts) - 1)])
        except ValueError:
            value = 0
        if value < 1:
            raise UsageError(f"{path}, line {number}: {line.strip()[:80]!r} is no number of tokens")
        found.append(value)
    if not found:
        raise UsageError(f"{path} has no lengths")
    return tuple(found)
