"""What the tests of faults share."""

from __future__ import annotations

from oss_eval.simulator.faults import FAULTS

OF_REQUESTS = [name for name, fault in FAULTS.items() if not fault.server]


def every(chance: float, names: list[str]) -> str:
    return ",".join(f"{name}:{chance}" for name in names)
