"""The service model as a state machine in virtual time, without clock or sockets.

The server runs it against the wall clock, `virtual_time` without one.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace

from oss_eval.simulator.profiles import Paced, Profile


@dataclass(slots=True, eq=False)
class Sequence:
    """One request inside the engine."""

    prompt_tokens: int
    output_tokens: int
    prefilled: int = 0
    emitted: int = 0

    @property
    def finished(self) -> bool:
        """Whether all its tokens have been emitted."""
        return self.emitted >= self.output_tokens


class Engine:
    """Continuous batching with chunked prefill: `plan` the next step, `commit` it when its time has passed."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.waiting: deque[Sequence] = deque()
        self.prefilling: list[Sequence] = []
        self.running: dict[Sequence, None] = {}
        self._chunks: list[tuple[Sequence, int]] = []

    def submit(self, sequence: Sequence) -> None:
        """A request has arrived."""
        self.waiting.append(sequence)

    def drop(self, sequence: Sequence) -> None:
        """Its client went away."""
        self.running.pop(sequence, None)
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        if sequence in self.prefilling:
            self.prefilling.remove(sequence)

    def plan(self) -> float | None:
        """Duration in ms of the next step, or None when there is nothing to do."""
        p = self.profile
        while self.waiting and len(self.running) + len(self.prefilling) < p.max_sequences:
            self.prefilling.append(self.waiting.popleft())
        if not self.running and not self.prefilling:
            return None
        budget = max(1, p.batch_tokens - len(self.running))
        self._chunks, tokens = [], 0
        for sequence in self.prefilling:
            chunk = min(sequence.prompt_tokens - sequence.prefilled, budget - tokens)
            if chunk <= 0 and sequence.prompt_tokens > sequence.prefilled:
                break
            self._chunks.append((sequence, chunk))
            tokens += chunk
        n = len(self.running)
        return p.step_ms + (p.sequence_ms * n**p.sequence_power if n else 0.0) + p.prefill_ms * tokens

    def commit(self) -> list[Sequence]:
        """The planned step has passed: sequences that got a token, in order of arrival."""
        emitting = list(self.running)
        for sequence, chunk in self._chunks:
            if sequence not in self.prefilling:
                continue  # dropped while the step ran
            sequence.prefilled += chunk
            if sequence.prefilled >= sequence.prompt_tokens:
                self.prefilling.remove(sequence)
                self.running[sequence] = None
                emitting.append(sequence)
        for sequence in emitting:
            sequence.emitted += 1
            if sequence.finished:
                self.running.pop(sequence, None)
        return emitting


class PacedEngine:
    """Each sequence's tokens at fixed times after its arrival, in steps of TICK_MS. Same verbs as `Engine`."""

    TICK_MS = 1.0

    def __init__(self, profile: Paced) -> None:
        self.profile = profile
        self.waiting: deque[Sequence] = deque()
        """Always empty: no sequence waits here."""
        self._now = 0.0
        self._due: list[tuple[float, int, Sequence]] = []
        self._dropped: set[Sequence] = set()
        self._count = 0

    def submit(self, sequence: Sequence) -> None:
        """A request has arrived."""
        self._count += 1
        heappush(self._due, (self._now + self.profile.ttft_ms, self._count, sequence))

    def drop(self, sequence: Sequence) -> None:
        """Its client went away."""
        self._dropped.add(sequence)

    def plan(self) -> float | None:
        """Duration in ms of the next step, or None when there is nothing to do."""
        return self.TICK_MS if self._due else None

    def commit(self) -> list[Sequence]:
        """A step has passed: sequences whose next token is due."""
        self._now += self.TICK_MS
        due, emitting = self._due, []
        gap = 1000.0 / self.profile.token_rate
        while due and due[0][0] <= self._now:
            at, number, sequence = due[0]
            if sequence in self._dropped:
                self._dropped.discard(sequence)
                heappop(due)
                continue
            sequence.emitted += 1
            if sequence.finished:
                heappop(due)
            else:
                heapreplace(due, (at + gap, number, sequence))
            emitting.append(sequence)
        return emitting


def engine_for(profile: Profile) -> Engine | PacedEngine:
    """The engine that a profile describes."""
    return PacedEngine(profile) if isinstance(profile, Paced) else Engine(profile)


def lengths(profile: Profile, effort: str | None, seed: int) -> tuple[int, int]:
    """(reasoning, answer) tokens of an unlimited answer; the same for the same seed."""
    rng = random.Random(seed)
    medium = profile.reasoning_tokens["medium"]
    reasoning = profile.reasoning_tokens.get(effort or "medium", medium) * rng.lognormvariate(0, 0.3)
    answer = profile.answer_tokens * rng.lognormvariate(0, 0.3)
    return max(1, round(reasoning)), max(1, round(answer))


SENTENCES = (
    "This text is simulated: no model has run, and each word stands for one token of a reply.",
    "The simulator sends every word at the time that the profile of its deployment gives.",
    "These sentences are repeated until the reply has its length.",
)


def words(seed: int) -> Iterator[str]:
    """Endless words of one token each, with a leading space; the same for the same seed."""
    start = seed % len(SENTENCES)
    while True:
        for sentence in SENTENCES[start:]:
            for word in sentence.split():
                yield " " + word
        start = 0
