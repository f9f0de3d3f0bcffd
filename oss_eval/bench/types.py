"""The vocabulary of benchmarks: what is asked, what was said, who can ask and grade."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from oss_eval.bench.client import SampleClient
from oss_eval.load.client import Answer

Message = dict[str, Any]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""What options are called."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample. `messages` is what is sent first; `target` the right answer, or "" where a text has none."""

    subset: str
    sample_id: str
    messages: list[Message]
    target: str
    raw: Any = field(default=None, repr=False)
    """The benchmark's own object."""
    form: str = "plain"
    """How an answer is asked for: `box`, `choice` or `plain`. What the simulator answers with."""
    choices: int = 0


@dataclass(slots=True)
class ModelOutput:
    """What a model said to a question in the end."""

    response: str
    reasoning: str
    messages: list[Message]
    """The conversation without its last answer."""
    finish_reason: str | None
    raw: Any = field(default=None, repr=False)

    @property
    def truncated(self) -> bool:
        """Whether the answer was cut at its longest length."""
        return self.finish_reason == "length"

    @classmethod
    def single(cls, messages: list[Message], answer: Answer, raw: Any = None) -> ModelOutput:
        """One question, one answer."""
        return cls(answer.reply.text, answer.reply.reasoning, messages, answer.record.finish_reason, raw)


class Benchmark(Protocol):
    """Questions, a way to ask them and a way to grade what was said. Methods are called from many threads."""

    name: str
    source: dict[str, Any]
    """Where the questions come from: dataset, revision, hub, versions. For the manifest."""

    def samples(self) -> list[Sample]:
        """All samples, in an order that stays the same."""

    def answer(self, sample: Sample, client: SampleClient) -> ModelOutput:
        """Ask. Raises what the voice raises."""

    def grade(self, sample: Sample, output: ModelOutput) -> Score:
        """A verdict. Whatever it raises makes the sample unscored."""

    def close(self) -> None:
        """Let go of processes and temporary files."""


@dataclass(frozen=True, slots=True)
class Score:
    """A verdict. `score` is None where there is none: `unscored` then says why."""

    score: float | None
    answer: str | None = None
    """What was taken for the answer, in a form in which equal answers are equal; None when there was none."""
    route: str = ""
    """Where it was found: `box`, `answer line`, `bold`, `cut box`, `none`, ..."""
    unscored: str | None = None
    second: float | None = None
    """The second grader's score; None where it did not look."""
    metrics: dict[str, float] | None = None
    """Every figure of a benchmark that has several."""
    binary: bool = True
    """Whether a score says right or wrong: 1 of 10 points is not right."""
