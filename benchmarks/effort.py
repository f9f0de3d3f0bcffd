"""How often the effort sheet's decision is wrong, by simulation.

A cheap and a dear effort answer the same problems. The cheap one is truly worse by some difference on these problems. How often
is it chosen, called worse, or left undecided? Choosing it when it is worse by the margin or more is the error that the sheet
promises to make in at most 2.5% of cases.

    python benchmarks/effort.py [--sheets 1000]
"""

import argparse

import numpy as np
from scipy import special

from oss_eval.analysis.effort_choice import CANT_TELL, NOT_WORSE, WORSE, verdict_of
from oss_eval.analysis.stratified import score_difference

CELLS = [
    (problems, answers, margin) for margin in (0.02, 0.05) for problems, answers in ((100, 4), (200, 8), (500, 8))
]
WORSE_BY = (0.0, 0.5, 1.0, 2.0)
"""True differences, in margins."""


def shifted(chances: np.ndarray, difference: float) -> np.ndarray:
    """Chances lower by `difference` on average, each on the logit scale by the same amount."""
    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        mean = special.expit(special.logit(chances) - middle).mean()
        low, high = (middle, high) if chances.mean() - mean < difference else (low, middle)
    return special.expit(special.logit(chances) - low)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sheets", type=int, default=1000)
    sheets = parser.parse_args().sheets
    rng = np.random.default_rng(20261128)
    print(f"{sheets} sheets a row; score about 0.85, difficulty of problems Beta(1.7, 0.3)")
    print(
        f"{'margin':>6} {'problems':>8} {'answers':>7} {'worse by':>8} {'chosen':>7} {'worse':>7} {'undecided':>9}"
    )
    for problems, answers, margin in CELLS:
        for worse_by in WORSE_BY:
            seen = dict.fromkeys((NOT_WORSE, WORSE, CANT_TELL), 0)
            for _ in range(sheets):
                dear = np.clip(rng.beta(1.7, 0.3, problems), 1e-6, 1 - 1e-6)
                cheap = shifted(dear, worse_by * margin)
                sides = [
                    [[1.0] * right + [0.0] * (answers - right) for right in rng.binomial(answers, chances)]
                    for chances in (dear, cheap)
                ]
                found = score_difference(*sides)
                seen[verdict_of(found.low, found.high, margin)] += 1
            shares = [seen[key] / sheets for key in (NOT_WORSE, WORSE, CANT_TELL)]
            difference = worse_by * margin
            print(
                f"{margin:>6} {problems:>8} {answers:>7} {difference:>8.3f} "
                f"{shares[0]:>7.1%} {shares[1]:>7.1%} {shares[2]:>9.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
