"""The arrivals of an open loop follow their law, at fixed seeds, and do not depend on anything else."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from scipy import stats

from oss_eval.errors import UsageError
from oss_eval.load.schedule.open_loop import arrivals, law

RATE = 25.0


def gaps(text: str, seed: str, count: int = 4000) -> np.ndarray:
    times = np.array([0, *islice(arrivals(law(text), RATE, seed), count)]) / 1e9
    return np.diff(times)


@pytest.mark.parametrize("seed", ["1", "2", "3"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("poisson", stats.expon(scale=1 / RATE)),
        ("gamma:2", stats.gamma(0.25, scale=4 / RATE)),
        ("gamma:0.5", stats.gamma(4, scale=0.25 / RATE)),
    ],
)
def test_gaps_have_their_law(text: str, expected: object, seed: str) -> None:
    assert stats.kstest(gaps(text, seed), expected.cdf).pvalue > 0.001


def test_the_laws_differ() -> None:
    """The test above can fail: each law is refused by the others' gaps."""
    assert stats.kstest(gaps("gamma:2", "1"), stats.expon(scale=1 / RATE).cdf).pvalue < 1e-6
    assert stats.kstest(gaps("poisson", "1"), stats.gamma(4, scale=0.25 / RATE).cdf).pvalue < 1e-6


def test_constant_arrivals() -> None:
    assert gaps("constant", "1") == pytest.approx(1 / RATE, abs=1e-8)


def test_the_same_seed_gives_the_same_arrivals() -> None:
    one, two, other = (list(islice(arrivals(law("poisson"), RATE, seed), 50)) for seed in ("a", "a", "b"))
    assert one == two != other


def test_the_rate_rises_over_the_ramp() -> None:
    """Half as many requests in the ramp as in the same time after it, a quarter of them in its first half."""
    times = np.array(list(islice(arrivals(law("poisson"), 200.0, "1", ramp=20.0), 6000))) / 1e9
    counts = np.histogram(times, bins=[0, 10, 20, 40])[0]
    assert counts == pytest.approx([500, 1500, 4000], rel=0.1)


@pytest.mark.parametrize(
    "text", ["", "uniform", "gamma", "gamma:0", "gamma:-1", "gamma:x", "poisson:2", "gamma:inf"]
)
def test_what_is_no_law(text: str) -> None:
    with pytest.raises(UsageError, match="is no law of arrivals"):
        law(text)
