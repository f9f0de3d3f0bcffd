"""Open loop: requests start at planned times, whatever the server does.

Times between arrivals are independent draws from one law with mean 1 / rate: `constant`; `poisson` (exponential);
`gamma` with a stated coefficient of variation, whose shape is 1 / CV**2 (vLLM's --burstiness is that shape). The
same seed gives the same arrivals, whatever the number of workers.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from oss_eval.errors import UsageError
from oss_eval.load.schedule.cancellation import Cancellation

NS = 1e9


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Requests at planned times."""

    max_in_flight: int
    """Over all workers. A request that is due while as many are in flight starts late: its dispatch delay says by
    how much."""
    cancel: Cancellation | None = None


@dataclass(frozen=True, slots=True)
class Law:
    """The law of the times between arrivals."""

    name: str
    cv: float
    """Coefficient of variation: 0 constant, 1 Poisson."""

    def gap(self, rng: random.Random) -> float:
        """A time between arrivals, with mean 1."""
        if not self.cv:
            return 1.0
        shape = 1 / self.cv**2
        return rng.expovariate(1.0) if self.cv == 1 else rng.gammavariate(shape, 1 / shape)


def law(text: str) -> Law:
    """`poisson`, `constant` or `gamma:CV`. Raises UsageError."""
    name, _, cv = text.partition(":")
    try:
        if text in ("poisson", "constant"):
            return Law(text, 1.0 if text == "poisson" else 0.0)
        if name == "gamma" and 0 < float(cv) < math.inf:
            return Law(name, float(cv))
    except ValueError:
        pass
    raise UsageError(
        f"--arrival {text!r} is no law of arrivals",
        "poisson, constant, or gamma:CV with the coefficient of variation, for example gamma:2",
    )


def arrivals(arrival: Law, rate: float, seed: str, ramp: float = 0.0) -> Iterator[int]:
    """Endless arrivals in ns after the start of the point. During the first `ramp` seconds the rate grows evenly
    from 0 to `rate`: arrivals of rate 1 are mapped by the inverse of the integrated rate (Lewis and Shedler 1979,
    Naval Research Logistics 26, 403-413)."""
    rng = random.Random(seed)
    expected = 0.0
    in_ramp = rate * ramp / 2
    while True:
        expected += arrival.gap(rng)
        seconds = math.sqrt(2 * expected * ramp / rate) if expected < in_ramp else expected / rate + ramp / 2
        yield round(seconds * NS)
