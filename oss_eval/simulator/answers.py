"""Answers of the simulator to questions of an answer key: right as often as its profile states.

An answer key is a file of JSON lines {"prompt": ..., "right": ..., "wrong": [...]}: the complete prompt, the end
of a right answer, and the ends of wrong ones.
"""

from __future__ import annotations

import hashlib
import math
import random
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import NormalDist
from typing import Any

import orjson

from oss_eval.errors import UsageError
from oss_eval.simulator.engine import SENTENCES, words
from oss_eval.simulator.profiles import Profile

SPREAD = 1.5
"""How much problems differ in difficulty: standard deviation on the probit scale."""
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """Possible ends of the answer to a question."""

    right: str
    wrong: tuple[str, ...]


class AnswerKey:
    """Endings by prompt."""

    def __init__(self, path: Path | None = None) -> None:
        """Raises UsageError for a file that is no answer key."""
        self._known: dict[bytes, KnownAnswer] = {}
        if path is None:
            return
        try:
            for line in path.read_bytes().splitlines():
                entry = orjson.loads(line)
                self._known[_digest(entry["prompt"])] = KnownAnswer(entry["right"], tuple(entry["wrong"]))
        except OSError as error:
            raise UsageError(f"can't read the answer key {path}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{path} is no answer key ({error!r})",
                'each line: {"prompt": "...", "right": "...", "wrong": ["..."]}',
            ) from None

    def find(self, prompt: str) -> KnownAnswer | None:
        """The entry of a prompt; None without one."""
        return self._known.get(_digest(prompt)) if self._known else None


def _digest(prompt: str) -> bytes:
    return hashlib.sha1(prompt.encode(), usedforsecurity=False).digest()


def difficulty(prompt: str) -> float:
    """A problem's own difficulty, standard normal; the same for the same prompt."""
    return random.Random(prompt).gauss(0.0, 1.0)


def solve_chance(profile: Profile, prompt: str, effort: str | None) -> float:
    """Chance of a right answer: probit in ability minus difficulty.

    So the mean over problems is the profile's rate (E[phi(m + s Z)] = phi(m / sqrt(1 + s^2)) for standard normal
    Z), and more effort never hurts.
    """
    rate = profile.solve_rate.get(effort or "medium", profile.solve_rate["medium"])
    ability = _NORMAL.inv_cdf(rate) * math.sqrt(1 + SPREAD**2)
    return _NORMAL.cdf(ability - SPREAD * difficulty(prompt))


def solution(
    profile: Profile, known: KnownAnswer, prompt: str, effort: str | None, seed: Any
) -> tuple[int, list[str]]:
    """(reasoning tokens, the answer's words) of one attempt; the same for the same seed.

    Harder problems are thought about longer.
    """
    rng = random.Random(f"{prompt}/{effort}/{seed}")
    right = rng.random() < solve_chance(profile, prompt, effort)
    ending = known.right if right or not known.wrong else rng.choice(known.wrong)
    median = profile.reasoning_tokens.get(effort or "medium", profile.reasoning_tokens["medium"])
    reasoning = median * rng.lognormvariate(0.3 * difficulty(prompt), 0.3)
    end = [" " + word for word in ending.split()]
    length = max(len(end), round(profile.solution_tokens * rng.lognormvariate(0, 0.3)))
    prose = list(islice(words(rng.randrange(len(SENTENCES))), length - len(end)))
    return max(1, round(reasoning)), prose + end
