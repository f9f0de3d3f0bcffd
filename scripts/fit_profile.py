"""Fit the simulator's profiles to measured sweeps, by least fourth powers in virtual time.

Prints the parameters and, beside each measured figure, the fitted one: python scripts/fit_profile.py [PROFILE ...]
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import fmean, median

import numpy as np
from scipy.optimize import least_squares

from oss_eval.simulator.profiles import PROFILES, Profile
from oss_eval.simulator.virtual_time import closed_loop

WEIGHTS = {"TTFT s": 0.375}  # 15% of the others weighs as much as 40% of TTFT


@dataclass(frozen=True)
class Level:
    """A measured level: its load, the lengths of its requests, and the figures that are known of it."""

    parallel: int
    number: int
    prompt: int
    output: int
    measured: dict[str, float]


def h20(parallel: int, number: int, rps: float, latency: float, rate: float, ttft: float) -> Level:
    """A level of EvalScope's sweep."""
    figures = {"RPS": rps, "latency s": latency, "tok/s": rate, "TPOT s": (latency - ttft) / 1023, "TTFT s": ttft}
    return Level(parallel, number, 1024, 1024, figures)


# gpt-oss-20b on one H20-96GB with vLLM 0.10.1:
# https://evalscope.readthedocs.io/en/latest/best_practice/gpt_oss.html
H20 = [
    h20(1, 5, 0.15, 6.811, 150.34, 0.094),
    h20(10, 20, 0.96, 10.374, 986.63, 0.865),
    h20(50, 100, 2.47, 20.222, 2529.14, 2.051),
    h20(100, 200, 3.37, 29.570, 3455.61, 2.354),
]
# gpt-oss-20b's architecture on one H100-80GB with vLLM 0.24, random weights: docs/h100.md
H100 = [
    Level(1, 5, 1024, 1024, {"tok/s": 304, "TPOT s": 0.00327}),
    Level(50, 100, 1024, 1024, {"tok/s": 5679, "TPOT s": 0.00744}),
    Level(100, 200, 1024, 1024, {"tok/s": 9546, "TPOT s": 0.00968}),
    Level(256, 2000, 20, 256, {"tok/s": 20100, "TPOT s": 0.0112}),
]
# The stress tests of August 2025 on one H100-80GB with vLLM: one level each, so one factor on all times is fitted.
# https://github.com/xinyuwei-david/david-share/tree/master/Deep-Learning/OAI-OSS-on-Azure
AZURE_20B = [Level(256, 2000, 80, 256, {"RPS": 29.9, "tok/s": 7645.2, "P50 s": 8.835})]
AZURE_120B = [Level(256, 2000, 80, 128, {"RPS": 32.9, "tok/s": 4215.6, "P50 s": 8.254})]


def figures(profile: Profile, level: Level) -> dict[str, float]:
    """The figures of a level, in virtual time."""
    done = list(closed_loop(profile, level.parallel, lambda _: (level.prompt, level.output), level.number))
    duration = max(r.last for r in done) - min(r.start for r in done)
    return {
        "RPS": level.number / duration,
        "latency s": fmean(r.last - r.start for r in done),
        "P50 s": median(r.last - r.start for r in done),
        "tok/s": level.number * level.output / duration,
        "TPOT s": fmean((r.last - r.first) / (level.output - 1) for r in done),
        "TTFT s": fmean(r.first - r.start for r in done),
    }


Make = Callable[[np.ndarray], Profile]


def with_parameters(x: np.ndarray) -> Profile:
    """A profile out of the logarithms of its parameters."""
    step, sequence, power, prefill = map(float, np.exp(x))
    return replace(
        PROFILES["gpt-oss-20b-h20"],
        step_ms=step, sequence_ms=sequence, sequence_power=power, prefill_ms=prefill,
    )  # fmt: skip


def slower(x: np.ndarray) -> Profile:
    """The H100's profile with all times longer by one factor, out of its logarithm."""
    factor, base = float(np.exp(x[0])), PROFILES["gpt-oss-20b-h100"]
    return replace(
        base, step_ms=base.step_ms * factor, sequence_ms=base.sequence_ms * factor,
        prefill_ms=base.prefill_ms * factor,
    )  # fmt: skip


FITS: dict[str, tuple[list[Level], Make, list[float]]] = {
    "gpt-oss-20b-h20": (H20, with_parameters, [6.2, 0.2, 0.95, 0.08]),
    "gpt-oss-20b-h100": (H100, with_parameters, [3.0, 0.2, 0.7, 0.02]),
    "gpt-oss-20b-h100-2025": (AZURE_20B, slower, [2.5]),
    "gpt-oss-120b-h100": (AZURE_120B, slower, [2.5]),
}


def fit(name: str) -> None:
    """Fit a profile and print it."""
    levels, make, start = FITS[name]

    def residuals(x: np.ndarray) -> np.ndarray:
        """Weighted log ratios of fitted to measured figures, squared with their sign."""
        profile, off = make(x), []
        for level in levels:
            got = figures(profile, level)
            off += [np.log(got[key] / want) * WEIGHTS.get(key, 1.0) for key, want in level.measured.items()]
        ratios = np.array(off)
        return ratios * np.abs(ratios)  # least_squares squares this: fourth powers, so that no figure is far off

    profile = make(least_squares(residuals, np.log(start), diff_step=1e-2).x)
    print(f"{name}: step_ms={profile.step_ms:.3f} sequence_ms={profile.sequence_ms:.3f}", end=" ")
    print(f"sequence_power={profile.sequence_power:.3f} prefill_ms={profile.prefill_ms:.4f}")
    for level in levels:
        got = figures(profile, level)
        for key, want in level.measured.items():
            off = got[key] / want - 1
            print(f"{level.parallel:4d}  {key:10s} {got[key]:10.4f}  measured {want:10.4f}  {off:+7.1%}")


if __name__ == "__main__":
    for name in sys.argv[1:] or FITS:
        fit(name)
