"""How often the intervals of scores hold the truth, and what the comparison of two scores finds, by simulation.

    python benchmarks/coverage.py [--runs 2000] [--part intervals|of-k|alarms|power]

Problems have probabilities of a right answer, drawn anew for each run from a population of a given mean and shape:
`uniform` (as wide as the mean allows, at most 0 to 1), `u-shaped` (beta with concentration 1), `two classes` (half of them 80% of
the way to the nearer end, half as far on the other side), `alike`, and `one dead` (each is never solved with
probability 1 / problems, the others alike). "Like these" is held where the interval holds the population's mean,
"on these" where it holds the mean of the run's own problems. `before` is the interval of 0.2: Wilson's with a
clustered standard error. Takes about half an hour on two cores.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from multiprocessing import Pool
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats
from statsmodels.stats.contingency_tables import StratifiedTable

from oss_eval.analysis.score_interval import clustered_ends, score_intervals
from oss_eval.analysis.scores import clustered, pass_at_k, pass_hat_k
from oss_eval.analysis.stratified import interval, p_value, strata

SCORES = (0.05, 0.2, 0.5, 0.8, 0.9375, 0.97, 0.99)
SHAPES = ("uniform", "u-shaped", "two classes", "alike", "one dead")
PROBLEMS, ANSWERS = (10, 30, 200), (1, 4, 8, 64)
GOAL = (0.93, 0.975)
Floats = NDArray[np.float64]


class Cell(NamedTuple):
    """What is drawn."""

    shape: str
    score: float
    problems: int
    answers: int
    runs: int

    def generator(self) -> np.random.Generator:
        """Random numbers of this cell alone."""
        return np.random.default_rng([SHAPES.index(self.shape), round(1e4 * self.score), *self[2:4]])


def chances(cell: Cell, rng: np.random.Generator, runs: int) -> Floats:
    """Probabilities of a right answer, shape (runs, problems)."""
    size, score = (runs, cell.problems), cell.score
    reach = min(score, 1 - score)
    if cell.shape == "uniform":
        return rng.uniform(score - reach, score + reach, size)
    if cell.shape == "u-shaped":
        return rng.beta(score, 1 - score, size)
    if cell.shape == "two classes":
        return np.where(rng.random(size) < 0.5, score - 0.8 * reach, score + 0.8 * reach)
    if cell.shape == "alike":
        return np.full(size, score)
    return np.where(rng.random(size) < 1 / cell.problems, 0.0, alive(cell))


def alive(cell: Cell) -> float:
    """Of `one dead`: the probability of the others."""
    return min(1.0, cell.score / (1 - 1 / cell.problems))


def mean(cell: Cell) -> float:
    """The population's mean."""
    return alive(cell) * (1 - 1 / cell.problems) if cell.shape == "one dead" else cell.score


def held(low: Floats, high: Floats, truth: Floats | float) -> float:
    return float(np.mean((low <= truth + 1e-12) & (truth - 1e-12 <= high)))


def coverage(cell: Cell) -> tuple[Cell, float, float, float, float, float]:
    """Coverage like these, on these and of 0.2's interval, and the mean widths of the first two."""
    rng = cell.generator()
    p = chances(cell, rng, cell.runs)
    right = rng.binomial(cell.answers, p)
    found = score_intervals(right, cell.answers)
    before = clustered_ends(right / cell.answers, np.full(cell.runs, right[0].size * cell.answers))
    like = held(*found.like.T, mean(cell))
    these = held(*found.these.T, p.mean(axis=1))
    widths = (float(np.diff(ends, axis=1).mean()) for ends in (found.like, found.these))
    return cell, like, these, held(*before.T, mean(cell)), *widths


def of_k(cell: Cell) -> tuple[Cell, list[float]]:
    """Coverage of pass@2, pass@k, pass^2 and pass^k, as the product computes them."""
    rng, n = cell.generator(), cell.answers
    p = chances(cell, rng, cell.runs)
    right = rng.binomial(n, p)
    many = chances(cell, np.random.default_rng(1), 200_000 // cell.problems)
    found = []
    for chance, k in ((pass_at_k, 2), (pass_at_k, n), (pass_hat_k, 2), (pass_hat_k, n)):
        by_count = np.array([chance(c, n, k) for c in range(n + 1)])
        truth = float((1 - (1 - many) ** k if chance is pass_at_k else many**k).mean())
        total = right[0].size * n if chance is pass_hat_k else None
        ends = np.array([(e.low, e.high) for e in (clustered(by_count[row], total) for row in right)])
        found.append(held(*ends.T, truth))
    return cell, found


def pairs(cell: Cell, shift: float) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], float]]:
    """Right answers of A and B, whose log odds are lower by `shift`, and the true difference on these problems."""
    rng = cell.generator()
    for p in chances(cell, rng, cell.runs):
        lower = special.expit(special.logit(np.clip(p, 1e-12, 1 - 1e-12)) - shift) if shift else p
        yield rng.binomial(cell.answers, p), rng.binomial(cell.answers, lower), float((lower - p).mean())


def alarms(cell: Cell) -> tuple[Cell, float, float, float]:
    """Share of A/A pairs with p < 0.05, p of a test that p-values are uniform, and coverage of 0."""
    found = [strata(a, cell.answers, b, cell.answers) for a, b, _ in pairs(cell, 0.0)]
    values = np.array([p_value(data) for data in found])
    covered = np.mean([low <= 0 <= high for low, high in map(interval, found[:500])])
    return cell, float(np.mean(values < 0.05)), float(stats.kstest(values, "uniform").pvalue), float(covered)


def power(arguments: tuple[Cell, float]) -> tuple[Cell, float, list[float]]:
    """Mean drop, power of this test, of Cochran, Mantel and Haenszel's and of Student's t, coverage of the drop."""
    cell, shift = arguments
    n, seen, drops = cell.answers, [], []
    for place, (a, b, true) in enumerate(pairs(cell, shift)):
        data = strata(a, n, b, n)
        tables = [np.array([[x, n - x], [y, n - y]]) for x, y in zip(a, b, strict=True) if 0 < x + y < 2 * n]
        cmh = StratifiedTable(tables).test_null_odds(correction=False).pvalue if tables else 1.0
        apart = (b - a) / n
        t = stats.ttest_1samp(apart, 0).pvalue if apart.std() else 1.0
        held = np.nan
        if place < 500:  # it takes longer
            low, high = interval(data)
            held = low - 1e-9 <= true <= high + 1e-9
        seen.append([p_value(data) < 0.05, cmh < 0.05, t < 0.05, held])
        drops.append(true)
    return cell, float(np.mean(drops)), [float(np.nanmean(column)) for column in zip(*seen, strict=True)]


def marked(value: float) -> str:
    return f"{value:.3f}" + ("" if GOAL[0] <= value <= GOAL[1] else "-" if value < GOAL[0] else "+")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--part", choices=["intervals", "of-k", "alarms", "power"])
    given = parser.parse_args()
    grid = [
        Cell(shape, score, problems, answers, given.runs)
        for problems in PROBLEMS
        for answers in ANSWERS
        for shape in SHAPES
        for score in SCORES
    ]
    usual = [c for c in grid if c.problems == 30 and c.answers == 8]
    with Pool() as pool:
        if given.part in (None, "intervals"):
            print("problems answers shape        score    like   these  0.2's    width like, these")
            low = [1.0, 1.0]
            for cell, like, these, before, *widths in pool.imap(coverage, grid):
                columns = f"{marked(like):7s} {marked(these):7s} {marked(before):7s}"
                where = f"{cell.problems:8d} {cell.answers:7d} {cell.shape:12s} {cell.score:6.4f}"
                print(f"{where}  {columns}  {widths[0]:.3f} {widths[1]:.3f}", flush=True)
                if cell.problems >= 30 and cell.answers >= 4 and cell.shape != "one dead":
                    low = [min(low[0], like), min(low[1], these)]
            print(f"lowest with 30 problems and 4 answers or more, without `one dead`: {low[0]:.3f} {low[1]:.3f}")
        if given.part in (None, "of-k"):
            print("\nproblems answers shape        score   pass@2  pass@k  pass^2  pass^k")
            for cell, found in pool.imap(of_k, [c for c in grid if c.answers == 8 and c.problems >= 30]):
                where = f"{cell.problems:8d} {cell.answers:7d} {cell.shape:12s} {cell.score:6.4f}"
                print(where, " ".join(f"{marked(value):7s}" for value in found), flush=True)
        if given.part in (None, "alarms"):
            print("\nA/A: share of p < 0.05, p of uniformity, coverage of 0")
            cells = [c for c in grid if c.answers in (1, 4, 8) and c.shape in SHAPES[1:4]]
            for cell, share, uniform, covered in pool.imap(alarms, cells):
                where = f"{cell.problems:8d} {cell.answers:7d} {cell.shape:12s} {cell.score:6.4f}"
                print(f"{where}  {share:.4f}  {uniform:.3f}  {covered:.3f}", flush=True)
        if given.part in (None, "power"):
            print("\ndrop by a shift of the log odds: this test, Cochran-Mantel-Haenszel, Student's t, coverage")
            for cell, drop, found in pool.imap(power, [(c, shift) for c in usual for shift in (0.5, 1.0, 1.94)]):
                where = f"{cell.problems:8d} {cell.answers:7d} {cell.shape:12s} {cell.score:6.4f}"
                print(f"{where}  {drop:+.3f}  " + " ".join(f"{value:.3f}" for value in found), flush=True)


if __name__ == "__main__":
    main()
