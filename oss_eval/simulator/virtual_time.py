"""The simulator's service model without a clock: complete sweeps within a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from oss_eval.simulator.engine import Engine, Sequence
from oss_eval.simulator.profiles import Profile

Lengths = Callable[[int], tuple[int, int]]
"""(prompt tokens, answer tokens) of request n."""


@dataclass(slots=True)
class Replayed:
    """One request, by its number, and its times in seconds."""

    number: int
    start: float
    first: float = 0.0
    last: float = 0.0
    tokens: list[float] = field(default_factory=list)


def closed_loop(
    profile: Profile,
    parallel: int,
    lengths: Lengths,
    number: int | None = None,
    slower: Callable[[float], float] = lambda now: 1.0,
) -> Iterator[Replayed]:
    """Requests of a closed loop of `parallel` slots, `number` of them or endless, in the order in which they end.
    `slower` gives the factor by which a step that begins at a time takes longer.

    As over a network, a request arrives a moment after the step that let it be sent: the next step is planned
    without it, and the very first step serves the first request alone.
    """
    engine = Engine(profile)
    results: dict[Sequence, Replayed] = {}
    now, asked, free = 0.0, 0, parallel
    while True:
        duration = engine.plan()
        while free and asked != number:
            sequence = Sequence(*lengths(asked))
            results[sequence] = Replayed(asked, now)
            engine.submit(sequence)
            asked, free = asked + 1, free - 1
            if duration is None:
                duration = engine.plan()
        if duration is None:
            return
        now += duration / 1000 * slower(now)
        for ended in _step(engine, results, now):
            free += 1
            yield ended


def open_loop(profile: Profile, arrivals: Iterator[float], lengths: Lengths) -> Iterator[Replayed]:
    """Endless requests that arrive at given times, in seconds, in the order in which they end."""
    engine = Engine(profile)
    results: dict[Sequence, Replayed] = {}
    now, asked, due = 0.0, 0, next(arrivals)
    while True:
        while due <= now:
            sequence = Sequence(*lengths(asked))
            results[sequence] = Replayed(asked, due)
            engine.submit(sequence)
            asked, due = asked + 1, next(arrivals)
        duration = engine.plan()
        if duration is None:
            now = due
            continue
        now += duration / 1000
        yield from _step(engine, results, now)


def _step(engine: Engine, results: dict[Sequence, Replayed], now: float) -> Iterator[Replayed]:
    """The requests that end with the step that ends now."""
    for sequence in engine.commit():
        result = results[sequence]
        result.first = result.first or now
        result.last = now
        result.tokens.append(now)
        if sequence.finished:
            yield results.pop(sequence)
