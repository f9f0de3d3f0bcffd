"""One check of `oss-eval doctor`."""

from __future__ import annotations

from dataclasses import dataclass

PASS, WARN, FAIL = "pass", "warn", "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name, verdict, observation, and advice."""

    name: str
    verdict: str
    seen: str
    advice: str = ""
