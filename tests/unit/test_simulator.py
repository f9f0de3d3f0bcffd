"""The simulator: its model against the published sweep, and its server as a client sees it."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import pytest

from oss_eval.errors import UsageError
from oss_eval.simulator.engine import Engine, Sequence, engine_for
from oss_eval.simulator.process import SimulatorUrl, parse_sim_url
from oss_eval.simulator.profiles import PROFILES, get_profile
from tests.helpers.commands import ROOT

PROFILE = get_profile("gpt-oss-20b-h20")


def fit_module() -> Any:
    spec = importlib.util.spec_from_file_location("fit_profile", ROOT / "scripts" / "fit_profile.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["fit_profile"] = module  # where dataclasses look for the types of their fields
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "most", "most_ttft"),
    [
        ("gpt-oss-20b-h20", 0.02, 0.30),
        ("gpt-oss-20b-h100", 0.08, None),
        ("gpt-oss-20b-h100-2025", 0.03, None),
        ("gpt-oss-120b-h100", 0.04, None),
    ],
)
def test_measured_sweeps_are_reproduced(name: str, most: float, most_ttft: float | None) -> None:
    """Within the errors that docs/simulator.md gives."""
    fit = fit_module()
    levels, _, _ = fit.FITS[name]
    for level in levels:
        got = fit.figures(PROFILES[name], level)
        for figure, measured in level.measured.items():
            limit = most_ttft if figure == "TTFT s" else most
            assert got[figure] == pytest.approx(measured, rel=limit), (level.parallel, figure)


def test_a_full_batch_queues() -> None:
    engine = Engine(PROFILE)
    for _ in range(PROFILE.max_sequences + 5):
        engine.submit(Sequence(1, 2))
    engine.plan()
    assert len(engine.waiting) == 5


def test_a_long_prompt_is_prefilled_in_chunks() -> None:
    engine = Engine(PROFILE)
    engine.submit(Sequence(3 * PROFILE.batch_tokens, 1))
    steps = 0
    while engine.plan() is not None:
        engine.commit()
        steps += 1
    assert steps == 3


def test_a_dropped_sequence_gets_no_token() -> None:
    engine = Engine(PROFILE)
    stays, leaves = Sequence(1, 5), Sequence(1, 5)
    engine.submit(stays)
    engine.submit(leaves)
    engine.plan()
    engine.drop(leaves)
    assert engine.commit() == [stays]


def test_sim_urls() -> None:
    assert parse_sim_url("sim://gpt-oss-20b-h20?speed=20") == SimulatorUrl(PROFILE, 20.0)
    paced = parse_sim_url("sim://paced?rate=20&ttft=300").profile
    assert (paced.token_rate, paced.ttft_ms) == (20.0, 300.0)
    assert parse_sim_url("sim://instant") == SimulatorUrl(PROFILES["instant"])
    for url, words in (
        ("sim://gpt-oss-20b-h2O", "unknown simulator profile"),
        ("sim://instant?speed=0", "no positive number"),
        ("sim://instant?speed=nan", "no positive number"),
        ("sim://instant?color=red", "no setting 'color'"),
        ("sim://instant?rate=5", "no setting 'rate'"),
    ):
        with pytest.raises(UsageError, match=words):
            parse_sim_url(url)


def test_paced_streams_keep_their_own_time() -> None:
    profile = parse_sim_url("sim://paced?rate=50&ttft=100").profile
    engine = engine_for(profile)
    first, second = Sequence(1, 3), Sequence(1, 3)
    engine.submit(first)
    times: dict[Sequence, list[int]] = {first: [], second: []}
    for tick in range(1, 200):
        if engine.plan() is None:
            break
        for sequence in engine.commit():
            times[sequence].append(tick)
        if tick == 7:
            engine.submit(second)
    assert times == {first: [100, 120, 140], second: [107, 127, 147]}
