"""The types of a benchmark: samples, model outputs, scores, and the interface of a source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # the scorer process imports this module, and has to start quickly
    from oss_eval.bench.client import SampleClient
    from oss_eval.load.client import Answer

Message = dict[str, Any]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""Names of the options of a multiple-choice question."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample. `messages` is sent first; `target` is the right answer, or "" where there is none."""

    subset: str
    sample_id: str
    messages: list[Message]
    target: str
    raw: Any = field(default=None, repr=False)
    """The benchmark's own object."""
    form: str = "plain"
    """Form of the answer: `box`, `choice` or `plain`. The simulator answers in it."""
    choices: int = 0


@dataclass(slots=True)
class ModelOutput:
    """The final answer of a model to a sample."""

    response: str
    reasoning: str
    messages: list[Message]
    """The conversation without its last answer."""
    finish_reason: str | None
    raw: Any = field(default=None, repr=False)

    @property
    def truncated(self) -> bool:
        """Whether the answer reached its maximum length."""
        return self.finish_reason == "length"

    @classmethod
    def single(cls, messages: list[Message], answer: Answer, raw: Any = None) -> ModelOutput:
        """The output of a single request."""
        return cls(answer.reply.text, answer.reply.reasoning, messages, answer.record.finish_reason, raw)


class Benchmark(Protocol):
    """Samples, how to ask them, and how to score the answers. Methods are called from many threads."""

    name: str
    source: dict[str, Any]
    """Where the samples come from: dataset, revision, hub, versions. For the manifest."""

    def samples(self) -> list[Sample]:
        """All samples, in an order that stays the same."""

    def prepare(self) -> None:
        """Get ready for samples that another process has loaded, instead of `samples`. Raises what that raises."""

    def answer(self, sample: Sample, client: SampleClient) -> ModelOutput:
        """Ask the sample. Raises what the client raises."""

    def grade(self, sample: Sample, output: ModelOutput) -> Score:
        """The score of an answer. An exception leaves the sample without a score."""

    def close(self) -> None:
        """End processes and remove temporary files."""


@dataclass(frozen=True, slots=True)
class Score:
    """The score of an answer; None where there is none, and then `unscored` says why."""

    score: float | None
    answer: str | None = None
    """The answer that was scored, normalised so that equal answers compare equal; None without one."""
    route: str = ""
    """Where it was found: `box`, `answer line`, `bold`, `cut box`, `none`, ..."""
    unscored: str | None = None
    second: float | None = None
    """Score of the second scorer; None where it was not used."""
    metrics: dict[str, float] | None = None
    """All metrics of a benchmark that has several."""
    binary: bool = True
    """Whether the score means right or wrong; 1 of 10 points means neither."""
