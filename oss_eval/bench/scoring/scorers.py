"""The scorers of task files, by name.

A scorer takes the answer channel only (reasoning is never graded) and says how it found the answer: the `route`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from oss_eval.bench.scoring.choices import choice
from oss_eval.bench.scoring.expressions import math
from oss_eval.bench.scoring.integers import integer
from oss_eval.bench.scoring.texts import contains, exact, regex
from oss_eval.bench.types import Score

Scorer = Callable[[str, str, bool, dict[str, Any]], Score]
"""(answer, target, truncated, the task's settings) -> score."""

SCORERS: dict[str, Scorer] = {
    "integer": integer, "math": math, "exact": exact, "choice": choice, "contains": contains, "regex": regex,
}  # fmt: skip
"""By name, as in task files; `judge` asks a model and is not here."""

MAY_HANG = ("math", "regex")
"""These run in a process that can be ended."""
