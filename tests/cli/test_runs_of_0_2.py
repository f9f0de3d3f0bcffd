"""Runs that version 0.2 stored: their files stay as they are, and every figure and JSON key of then is there.

Intervals are computed by the formulas of today.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.commands import ROOT, Command

EXAMPLES = ROOT / "results" / "examples"
FIGURES = Path(__file__).parent / "figures_of_0_2"
DIGEST = "5c93158dc51029991d71669710c16dbb1c7dc86793ff25cb380d201b449837d1"
"""Of names and contents of the files of 0.2 in results/examples."""


def digest(folder: Path) -> str:
    sha = hashlib.sha256()
    later = {"h100", "local"}
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    for path in sorted(path for path in files if not later & set(path.parts)):
        sha.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return sha.hexdigest()


INTERVALS = {"ci95", "low", "high"}


def differences(then: Any, now: Any, where: str = "") -> list[str]:
    """Values of `then` that `now` lacks or has otherwise; what `now` has beside them is no difference."""
    if isinstance(then, dict) and isinstance(now, dict):
        return [
            line
            for key, value in then.items()
            if key not in INTERVALS
            for line in differences(value, now.get(key), f"{where}.{key}")
        ]
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        return [
            line
            for i, (a, b) in enumerate(zip(then, now, strict=True))
            for line in differences(a, b, f"{where}[{i}]")
        ]
    same = (
        then == pytest.approx(now, rel=1e-9) if isinstance(then, float) and isinstance(now, float) else then == now
    )
    return [] if same else [f"{where}: {then!r} then, {now!r} now"]


def test_the_stored_examples_are_as_they_were() -> None:
    assert digest(EXAMPLES) == DIGEST


@pytest.mark.parametrize("figures", sorted(FIGURES.glob("*.json")), ids=lambda path: path.stem)
def test_figures_and_keys_of_0_2_hold(oss_eval: Command, figures: Path) -> None:
    then = json.loads(figures.read_text(encoding="utf-8"))
    done = oss_eval("show", then["run_id"], "--out", str(EXAMPLES), "--json")
    assert done.returncode == 0
    now = json.loads(done.stdout)
    assert differences(then, now) == []
    assert all("metrics" in point for point in now["points"]), "one shape for perf and bench"


def test_a_difference_would_be_seen() -> None:
    then = {"points": [{"metrics": {"ttft_ms": {"p50": 1.5}}}]}
    assert differences(then, {"points": [{"metrics": {"ttft_ms": {"p50": 1.5, "p99": 2}}}], "more": 1}) == []
    assert differences(then, {"points": [{"metrics": {"ttft_ms": {"p50": 1.6}}}]})
    assert differences(then, {"points": [{"metrics": {}}]})
    assert differences(then, {"points": []})
