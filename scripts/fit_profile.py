"""Fit a simulator profile to a published sweep, by least fourth powers in virtual time.

Prints the parameters and, beside each published figure, the fitted one. The figures are EvalScope's sweep of
gpt-oss-20b on one H20-96GB with vLLM 0.10.1, 1024 tokens in and out
(https://evalscope.readthedocs.io/en/latest/best_practice/gpt_oss.html).
"""

from dataclasses import replace
from statistics import fmean

import numpy as np
from scipy.optimize import least_squares

from oss_eval.simulator.profiles import PROFILES, Profile
from oss_eval.simulator.virtual_time import closed_loop

# parallel, number: RPS, mean latency s, output tok/s, mean TPOT s, mean TTFT s
PUBLISHED = {
    (1, 5): (0.15, 6.811, 150.34, (6.811 - 0.094) / 1023, 0.094),
    (10, 20): (0.96, 10.374, 986.63, (10.374 - 0.865) / 1023, 0.865),
    (50, 100): (2.47, 20.222, 2529.14, (20.222 - 2.051) / 1023, 2.051),
    (100, 200): (3.37, 29.570, 3455.61, (29.570 - 2.354) / 1023, 2.354),
}
NAMES = ("RPS", "latency s", "tok/s", "TPOT s", "TTFT s")
WEIGHTS = np.array([1, 1, 1, 1, 0.375])  # 15% of the first four weighs as much as 40% of TTFT


def figures(profile: Profile, parallel: int, number: int) -> tuple[float, ...]:
    """The five figures of one level, in virtual time."""
    done = list(closed_loop(profile, parallel, lambda _: (1024, 1024), number))
    duration = max(r.last for r in done) - min(r.start for r in done)
    return (
        number / duration,
        fmean(r.last - r.start for r in done),
        number * 1024 / duration,
        fmean((r.last - r.first) / 1023 for r in done),
        fmean(r.first - r.start for r in done),
    )


def with_parameters(x: np.ndarray) -> Profile:
    """A profile out of the logarithms of its parameters."""
    step, sequence, power, prefill = np.exp(x)
    return replace(
        PROFILES["gpt-oss-20b-h20"],
        step_ms=step,
        sequence_ms=sequence,
        sequence_power=power,
        prefill_ms=prefill,
    )


def residuals(x: np.ndarray) -> np.ndarray:
    """Weighted log ratios of fitted to published figures, squared with their sign."""
    profile = with_parameters(x)
    ratios = [np.array(figures(profile, *level)) / np.array(want) for level, want in PUBLISHED.items()]
    off = np.concatenate([np.log(ratio) * WEIGHTS for ratio in ratios])
    return off * np.abs(off)  # least_squares squares this: fourth powers, so that no figure is far off


if __name__ == "__main__":
    start = np.log([6.2, 0.2, 0.95, 0.08])
    fit = least_squares(residuals, start, diff_step=1e-2)
    profile = with_parameters(fit.x)
    print(f"step_ms={profile.step_ms:.3f} sequence_ms={profile.sequence_ms:.3f}", end=" ")
    print(f"sequence_power={profile.sequence_power:.3f} prefill_ms={profile.prefill_ms:.4f}")
    for level, want in PUBLISHED.items():
        for name, got, published in zip(NAMES, figures(profile, *level), want, strict=True):
            print(
                f"{level[0]:4d}  {name:10s} {got:10.4f}  published {published:10.4f}  {got / published - 1:+7.1%}"
            )
