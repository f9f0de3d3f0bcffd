"""Faulty servers: every fault is called what it is, others are undisturbed, and the run comes to its end."""

from __future__ import annotations

from collections import Counter

import pytest

from oss_eval.errors import UsageError
from oss_eval.simulator.faults import FAULTS, Faults, parse_faults


def test_faults_by_name() -> None:
    assert parse_faults("reset") == {"reset": 1.0}
    assert parse_faults("reset:0.02,500:0.1") == {"reset": 0.02, "500": 0.1}
    everything = parse_faults("all:0.02")
    assert set(everything) == set(FAULTS) - {"tls"}
    assert parse_faults("") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rest", "fault=rest: unknown fault"),
        ("reset:2", "fault=reset:2: 2 is no probability"),
        ("reset:x", "fault=reset:x: x is no probability"),
        ("reset:0.6,500:0.6", "the probabilities of a request add up to 1.2"),
    ],
)
def test_mistakes_in_faults_are_explained(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("[", r"\[")) as caught:
        parse_faults(text)
    assert caught.value.hint


def test_faults_come_as_often_as_asked_for() -> None:
    faults = Faults({"reset": 0.1, "500": 0.2, "restart": 0.5})
    drawn = Counter(faults.of_request() for _ in range(20_000))
    assert drawn["reset"] / 20_000 == pytest.approx(0.1, abs=0.01)
    assert drawn["500"] / 20_000 == pytest.approx(0.2, abs=0.01)
    assert drawn["restart"] == 0
    assert sum(faults.of_second() == "restart" for _ in range(2000)) / 2000 == pytest.approx(0.5, abs=0.05)
    assert Faults().of_request() is None
