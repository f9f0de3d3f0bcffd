"""What `bench --until` needs and how often it is right, by simulation of whole benchmarks through its own allocation.

    python benchmarks/until.py [--benchmarks 500] [--part error|decided]

`error`: 30 problems are asked until their score is known to ±E on these problems, 16 answers at a time. Printed are how often
the error stated at the end holds the truth (interval, and estimate within E), the bias of the estimate and of the plain mean,
the answers used, and those that fixed repeats need for the same mean width.
`decided`: B is asked until it is told from a reference of 8 answers to each problem: how often, and after how many answers, with
and without a difference.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from multiprocessing import Pool
from types import SimpleNamespace
from typing import Any

import numpy as np
from scipy import special

from oss_eval.analysis.score_interval import score_intervals
from oss_eval.analysis.scores import mean_score
from oss_eval.bench.allocation import Allocation, Goal

PROBLEMS, MOST, SLOTS = 30, 64, 16
SHAPES = ("u-shaped", "beta 0.3", "beta 10", "alike", "two classes")
CELLS = [
    (shape, score, error)
    for error in (0.02, 0.01)
    for shape, score in (
        ("u-shaped", 0.9375), ("u-shaped", 0.8), ("u-shaped", 0.5), ("beta 0.3", 0.9375), ("alike", 0.9375),
    )
]  # fmt: skip


def chances(shape: str, score: float, rng: np.random.Generator) -> np.ndarray:
    """Probabilities of a right answer."""
    if shape == "alike":
        return np.full(PROBLEMS, score)
    if shape == "two classes":
        return np.where(rng.random(PROBLEMS) < 0.5, score - 0.16, score + 0.16)
    c = {"u-shaped": 1.0, "beta 0.3": 0.3, "beta 10": 10.0}[shape]
    return rng.beta(score * c, (1 - score) * c, PROBLEMS)


def asked(goal: Goal, p: np.ndarray, rng: np.random.Generator) -> tuple[Allocation, list[list[float]]]:
    """One point asked by the allocation; the scores of each problem."""
    samples = [SimpleNamespace(subset="", sample_id=str(place)) for place in range(len(p))]
    jobs: list[Any] = [SimpleNamespace(sample=sample) for _ in range(MOST) for sample in samples]
    allocation = Allocation(jobs, {}, goal)
    scores: list[list[float]] = [[] for _ in p]
    while batch := allocation.next(SLOTS):
        for job in batch:
            place = int(job.sample.sample_id)
            score = float(rng.random() < p[place])
            scores[place].append(score)
            record: Any = SimpleNamespace(subset="", sample_id=str(place), score=score)
            allocation.add(record)
    return allocation, scores


def error(arguments: tuple[str, float, float, int]) -> list[float]:
    """One benchmark: interval holds, estimate within, biases, answers."""
    shape, score, goal, seed = arguments
    rng = np.random.default_rng([SHAPES.index(shape), round(1e4 * score), round(1e4 * goal), seed])
    p = chances(shape, score, rng)
    _, scores = asked(Goal(goal), p, rng)
    found = mean_score(scores, adaptive=True)
    truth, plain = float(p.mean()), float(np.mean([np.mean(values) for values in scores]))
    held = (found.these_low or 0) <= truth <= (found.these_high or 1)
    used = float(sum(map(len, scores)))
    return [held, abs(found.value - truth) <= goal, found.value - truth, plain - truth, used]


def fixed(shape: str, score: float, goal: float) -> int:
    """Answers of fixed repeats whose interval is as narrow in the mean."""
    rng = np.random.default_rng(1)
    for repeats in range(1, 200):
        right = np.array([rng.binomial(repeats, chances(shape, score, rng)) for _ in range(60)])
        if np.diff(score_intervals(right, repeats).these, axis=1).mean() / 2 <= goal:
            return repeats * PROBLEMS
    return 200 * PROBLEMS


def decided(arguments: tuple[float, float, int]) -> list[float]:
    """One benchmark against a reference: found a difference, answers used."""
    score, shift, seed = arguments
    rng = np.random.default_rng([round(1e4 * score), round(1e3 * shift), seed])
    p = chances("u-shaped", score, rng)
    reference = {("", str(i)): [float(x) for x in rng.random(8) < chance] for i, chance in enumerate(p)}
    lower = special.expit(special.logit(np.clip(p, 1e-9, 1 - 1e-9)) - shift)
    allocation, scores = asked(Goal(against=reference), lower, rng)
    return [float(allocation.reached is not None), float(sum(map(len, scores))), float((lower - p).mean())]


def mean(rows: Sequence[Sequence[float]]) -> list[float]:
    return [float(value) for value in np.mean(np.array(rows), axis=0)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--benchmarks", type=int, default=500)
    parser.add_argument("--part", choices=["error", "decided"])
    given = parser.parse_args()
    seeds = range(given.benchmarks)
    with Pool() as pool:
        if given.part in (None, "error"):
            print(
                "shape        score   error  interval  within  bias: estimate, plain mean   answers  fixed  ratio"
            )
            for shape, score, goal in CELLS:
                held, within, bias, plain, used = mean(
                    pool.map(error, [(shape, score, goal, s) for s in seeds], 10)
                )
                need = fixed(shape, score, goal)
                print(
                    f"{shape:12s} {score:6.4f} {goal:6.3f}  {held:8.3f} {within:7.3f}  {bias:+14.4f} {plain:+11.4f} "
                    f"{used:9.0f} {need:6d} {used / need:6.2f}",
                    flush=True,
                )
        if given.part in (None, "decided"):
            print("\nscore   mean drop  told  answers (of 1,920)")
            for score in (0.5, 0.8, 0.9375):
                for shift in (0.0, 0.5, 1.0, 2.0):
                    told, used, drop = mean(pool.map(decided, [(score, shift, s) for s in seeds], 10))
                    print(f"{score:6.4f}  {drop:+9.3f} {told:5.3f} {used:8.0f}", flush=True)


if __name__ == "__main__":
    main()
