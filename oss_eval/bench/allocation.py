"""Which answer is asked for next, and when there are enough: `--until`, `--budget-tokens`, `--budget-usd`."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np

from oss_eval.analysis.score_interval import error_reduction
from oss_eval.analysis.scores import Problem, mean_score
from oss_eval.analysis.stats import CONFIDENCE
from oss_eval.analysis.stratified import score_difference
from oss_eval.bench.plan import SampleJob
from oss_eval.records import RequestRecord, SampleRecord

FIRST = 2
"""Answers to each problem before any problem gets more than another."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What a point is asked for."""

    error: float | None = None
    """Half the interval of its score on these problems."""
    against: dict[Problem, list[float]] | None = None
    """Scores of the answers of a reference run, from which the score is to be told."""


@dataclass(slots=True)
class Budget:
    """What all answers of a run may cost together, in tokens or money. Answers in flight are reserved as the
    dearest ones, so that it is not exceeded; points share it evenly."""

    whole: float
    dearest: float
    """The most that one answer can cost."""
    cost: Callable[[RequestRecord], float]
    spent: float = 0.0
    _until: float = 0.0

    def begin(self, points_left: int) -> None:
        """A point begins, one of `points_left`."""
        self._until = self.spent + (self.whole - self.spent) / points_left

    def room(self, in_flight: int) -> int:
        """How many more answers can be asked for."""
        return max(0, int((self._until - self.spent - in_flight * self.dearest) // self.dearest))

    def add(self, record: RequestRecord) -> None:
        """A request has ended. One that was lost with its node may have been answered in full."""
        lost = record.status == "error" and record.error_kind == "client" and record.completion_tokens is None
        self.spent += self.dearest if lost else self.cost(record)


class Allocation:
    """The answers of one point, asked for as far as its goal calls for them.

    With an error to reach, answers go where they are expected to reduce it most, and the model's interval says
    when it is reached: it does not depend on that choice (see `score_intervals`). Against a reference, problems
    are asked equally often, and the test is made after 1, 2, 4, 8, ... answers to each, at 5% / the number of
    these looks (Bonferroni), so that in 5% of the runs at most a difference is found where there is none.
    """

    def __init__(self, jobs: Iterable[SampleJob], stored: Mapping[Problem, list[float]], goal: Goal) -> None:
        self._goal = goal
        self._left: dict[Problem, deque[SampleJob]] = {}
        for job in jobs:
            self._left.setdefault((job.sample.subset, job.sample.sample_id), deque()).append(job)
        self._scores: dict[Problem, list[float]] = defaultdict(list)
        self._asked: dict[Problem, int] = defaultdict(int)
        for problem, scores in stored.items():
            self._scores[problem] = list(scores)
            self._asked[problem] = len(scores)
        self.most = max((self._asked[p] + len(left) for p, left in self._left.items()), default=0)
        looks = 1
        while 2**looks < self.most:
            looks += 1
        self._level = (1 - CONFIDENCE) / (looks + 1)
        self._looked = 0
        self.half: float | None = None
        """Half the interval of the score so far."""
        self.reached: str | None = None
        """Why no more answers are asked for."""

    def add(self, record: SampleRecord) -> None:
        """An answer has ended."""
        if record.score is not None:
            self._scores[record.subset, record.sample_id].append(record.score)

    def next(self, count: int) -> list[SampleJob]:
        """The next answers to ask for, at most `count`; none when the goal is reached. Answers that were under way
        then may show that an error is not reached yet: ask again when they have ended."""
        goal = self._goal
        if goal.error is not None:
            self.reached = None
        if goal.against is not None and not self.reached:
            self._compare()
        if self.reached:
            return []
        if goal.error is None:
            return self._evenly(count, self.most)
        first = self._evenly(count, FIRST)
        if first:
            return first
        known = {p: values for p, values in self._scores.items() if values}
        if len(known) < 2:
            return self._evenly(count, self.most)
        found = mean_score(list(known.values()), adaptive=True)
        if found.these_low is None or found.these_high is None:
            return self._evenly(count, self.most)
        self.half = (found.these_high - found.these_low) / 2
        if self.half <= goal.error:
            self.reached = f"±{self.half:.4f} on these problems, ±{goal.error:g} was asked for"
            return []
        if any(value not in (0, 1) for values in known.values() for value in values):
            return self._evenly(count, self.most)
        return self._where_it_helps(count, known)

    def _evenly(self, count: int, most: int) -> list[SampleJob]:
        """Answers to the problems with the fewest, none beyond `most`."""
        found: list[SampleJob] = []
        heap = [(self._asked[p], place, p) for place, (p, left) in enumerate(self._left.items()) if left]
        heapify(heap)
        while heap and len(found) < count and heap[0][0] < most:
            asked, place, problem = heappop(heap)
            found.append(self._take(problem))
            if self._left[problem]:
                heappush(heap, (asked + 1, place, problem))
        return found

    def _where_it_helps(self, count: int, known: dict[Problem, list[float]]) -> list[SampleJob]:
        problems = list(known)
        right = np.array([sum(known[p]) for p in problems])
        answers = np.array([len(known[p]) for p in problems])
        # Answers that are under way count: they will lower the variance too.
        heap = []
        for place, gain in enumerate(error_reduction(right, answers)):
            n = self._asked[problems[place]]
            heap.append((-gain * ((answers[place] + 1) / (n + 1)) ** 2, place, n))
        heapify(heap)
        found: list[SampleJob] = []
        while heap and len(found) < count:
            gain, place, n = heappop(heap)
            if self._left.get(problems[place]):
                found.append(self._take(problems[place]))
                heappush(heap, (gain * ((n + 1) / (n + 2)) ** 2, place, n + 1))
        return found

    def _take(self, problem: Problem) -> SampleJob:
        self._asked[problem] += 1
        return self._left[problem].popleft()

    def _compare(self) -> None:
        """Look whether the score can be told from the reference's, if a look is due."""
        against = self._goal.against or {}
        common = [p for p in against if self._scores[p]]
        answered = sum(len(self._scores[p]) for p in common) // max(1, len(self._asked))
        if answered < max(1, 2 * self._looked):
            return
        self._looked = answered
        difference = score_difference([against[p] for p in common], [self._scores[p] for p in common])
        if difference.p is not None and difference.p < self._level:
            word = "better" if difference.value > 0 else "worse"
            self.reached = f"{word} than the reference by {abs(difference.value):.4f} (p {difference.p:.2g})"
