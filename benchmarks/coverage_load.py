"""How often the intervals of a load run's figures hold the mean over repeats of the run, by simulation.

    python benchmarks/coverage_load.py [--runs 200] [--pairs 1000]

The simulator's service model in virtual time, without sockets: a closed loop against `gpt-oss-20b-h20` with prompts
of about 200 tokens and answers of about 60 (log-normal, sigma 0.5) or 20 (sigma 1.0), and steps that take 10% more or
less than the model says. The truth of a figure is its mean over all runs. `given` is the share of runs with an
interval. Then pairs of runs of the same server are compared: how often a figure differs "significantly".
"""

from __future__ import annotations

import argparse
import random
from multiprocessing import Pool
from typing import NamedTuple

import numpy as np

from oss_eval.analysis.compare import sweeps
from oss_eval.analysis.figures import PointMetrics
from oss_eval.analysis.metrics import point_metrics
from oss_eval.records import RequestRecord
from oss_eval.results.tables import requests_table
from oss_eval.simulator.profiles import PROFILES
from oss_eval.simulator.virtual_time import closed_loop

FIGURES = (
    ("ttft_ms", "mean"), ("ttft_ms", "p50"), ("tpot_ms", "mean"), ("tpot_ms", "p90"), ("latency_ms", "mean"),
    ("latency_ms", "p50"), ("latency_ms", "p90"), ("latency_ms", "p99"), ("rps", "value"), ("output_tps", "value"),
    ("plateau_output_tps", "value"),
)  # fmt: skip


class Cell(NamedTuple):
    """What is run: concurrency, requests, and the lengths of answers."""

    parallel: int
    number: int
    tokens: float
    sigma: float


CELLS = tuple(
    Cell(parallel, number, *lengths)
    for parallel, number in ((1, 10), (1, 40), (8, 32), (8, 80), (8, 160), (64, 256), (64, 640))
    for lengths in ((60.0, 0.5), (20.0, 1.0))
)


def run(arguments: tuple[Cell, int]) -> PointMetrics:
    """The figures of one run in virtual time."""
    cell, seed = arguments
    rng = random.Random(f"{cell}/{seed}")
    records: list[RequestRecord] = []

    def lengths(number: int) -> tuple[int, int]:
        prompt = max(1, round(200 * rng.lognormvariate(0, 0.5)))
        answer = max(2, round(cell.tokens * rng.lognormvariate(0, cell.sigma)))
        records.append(record(number, cell.parallel, prompt, answer))
        return prompt, answer

    def slower(now: float) -> float:
        return rng.lognormvariate(0, 0.1)

    for ended in closed_loop(PROFILES["gpt-oss-20b-h20"], cell.parallel, lengths, cell.number, slower):
        row, start = records[ended.number], round(ended.start * 1e9)
        row.scheduled_ns = row.start_ns = start
        row.event_ns = [round(token * 1e9) - start for token in ended.tokens]
        row.n_events = len(row.event_ns)
        row.first_token_ns = row.first_answer_ns = start + row.event_ns[0]
        row.end_ns = row.last_token_ns = start + row.event_ns[-1]
    return point_metrics(requests_table(records))


def record(number: int, parallel: int, prompt: int, answer: int) -> RequestRecord:
    return RequestRecord(
        run_id="r", point_id="p", request_id=f"{number}", worker=0, warmup=False, attempt=1, model="m",
        reasoning_effort=None, parallel=parallel, rate=None, scheduled_ns=0, prompt_tokens=prompt,
        completion_tokens=answer, status="ok", finish_reason="stop", session=1,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=1000)
    given = parser.parse_args()
    with Pool() as pool:
        print("conc. number tokens sigma  figure                 sd     coverage given  half width")
        for cell in CELLS:
            found = pool.map(run, [(cell, seed) for seed in range(given.runs)], chunksize=10)
            for key in FIGURES:
                some = [m for point in found if (m := point.metric(*key)) is not None]
                truth = float(np.mean([m.value for m in some]))
                known = [m for m in some if m.low is not None or m.high is not None]
                if key[1] == "p99" and some[0].n < 100:
                    continue
                held = [(m.low is None or m.low <= truth) and (m.high is None or truth <= m.high) for m in known]
                halves = [(m.high - m.low) / 2 / truth for m in known if m.low is not None and m.high is not None]
                where = f"{cell.parallel:5d} {cell.number:6d} {cell.tokens:6.0f} {cell.sigma:5.1f}"
                name = f"{key[0]} {key[1]}"
                deviation = np.std([m.value for m in some]) / truth
                covered = f"{np.mean(held):8.3f}" if held else "       –"
                width = f"{np.mean(halves):10.1%}" if halves else "         –"
                share = len(known) / len(some)
                print(f"{where}  {name:24s} {deviation:5.1%} {covered} {share:6.2f} {width}", flush=True)
        print("\nA/A pairs: share of figures with p < 0.05")
        for cell in CELLS:
            found = pool.map(run, [(cell, seed) for seed in range(2 * given.pairs)], chunksize=10)
            alarms: dict[str, list[bool]] = {}
            for a, b in zip(found[::2], found[1::2], strict=True):
                for c in sweeps("", [a], [b]):
                    if c.difference.p is not None:
                        alarms.setdefault(f"{c.metric} {c.stat}", []).append(
                            c.verdict in ("better", "worse", "different")
                        )
            where = f"{cell.parallel:5d} {cell.number:6d} {cell.tokens:6.0f} {cell.sigma:5.1f}"
            everything = [alarm for some in alarms.values() for alarm in some]
            worst = max(alarms, key=lambda name: np.mean(alarms[name])) if alarms else "–"
            print(
                f"{where}  all {np.mean(everything) if everything else 0:.4f}, most: {worst} "
                f"{np.mean(alarms[worst]) if alarms else 0:.4f} of {len(alarms.get(worst, []))}",
                flush=True,
            )


if __name__ == "__main__":
    main()
