"""From stored samples to scores: one formula a figure, all from unrounded per-sample scores.

A problem is a sample of a subset; its epochs are answers to it. Scores are means over problems of each problem's
mean, with two intervals (see `scores.mean_score`). Samples that failed or could not be graded have no
score: they are counted, and `of_all` shows the score with each of them as wrong.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pyarrow as pa

from oss_eval.analysis import scores, stats
from oss_eval.analysis.figures import Metric, PointMetrics
from oss_eval.analysis.metrics import by_kind
from oss_eval.analysis.scores import ScoreEstimate
from oss_eval.analysis.stats import Estimate
from oss_eval.analysis.stratified import score_difference
from oss_eval.results.manifest import adaptive_points

Row = dict[str, Any]
OVERALL = "OVERALL"

COLUMNS = [
    "point_id", "task", "subset", "sample_id", "epoch", "reasoning_effort", "answer", "score", "correct",
    "second_score", "leaked", "truncated", "attempts", "status", "error_kind", "http_status", "error_message",
    "unscored_reason", "prompt_tokens", "completion_tokens", "reasoning_tokens", "ttft_ms", "ttfa_ms", "tpot_ms",
    "latency_ms", "start_ns", "end_ns", "token_source",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Group:
    """The samples of one task and effort, of one subset or of all (OVERALL)."""

    point_id: str
    task: str
    effort: str | None
    subset: str
    problems: int
    epochs: int
    """Most answers to one problem."""
    samples: int
    """Stored rows: problems x epochs, as far as they are asked."""
    scored: int
    failed: int
    unscored: int
    adaptive: bool
    """Whether answers were asked for until the score was known: `score` is then the model's estimate."""
    score: ScoreEstimate | None
    """avg@k over the scored samples; None when there are none."""
    of_all: ScoreEstimate | None
    """The same with every failed or unscored sample as 0."""
    pass_at: dict[int, ScoreEstimate]
    """pass@k for every k, over the problems that have k scored answers."""
    pass_hat: dict[int, ScoreEstimate]
    """pass^k, all of k answers right, for every k above 1."""
    majority: ScoreEstimate | None
    """maj@k over all of a problem's answers."""
    majority_at: dict[int, ScoreEstimate]
    """maj@j for every j from 2 up to k - 1, over the problems that have j scored answers."""
    truncated: Estimate | None
    """Share of the answered samples that reached --max-tokens."""
    disagreements: int
    """Samples on which the second scorer disagrees."""
    second_looked: int
    leaked: int
    retried: int
    token_sources: tuple[str, ...]
    prompt_tokens: Estimate | None
    tokens: Estimate | None
    """Mean tokens of an answer, reasoning included."""
    reasoning_tokens: Estimate | None
    answer_tokens: Estimate | None
    ttft_ms: Estimate | None
    ttfa_ms: Estimate | None
    tpot_ms: Estimate | None
    latency_ms: Estimate | None
    cost: Estimate | None
    """Mean price of an answer, in the currency of the prices; None without prices."""
    wall_seconds: float | None
    """Time with at least one sample in progress."""
    output_tps: float | None
    """Tokens of all answers / wall_seconds."""
    failures: dict[str, tuple[int, str]]
    """Failed samples by kind of error: how many, and one message."""
    unscored_reasons: dict[str, int]

    def metrics(self) -> PointMetrics:
        """Every figure in the shape that load sweeps have too: by (metric, stat), with interval, n and unit."""
        figures: dict[tuple[str, str], Metric] = {}

        def put(metric: str, stat: str, value: Any, n: int, unit: str = "") -> None:
            if value is None:
                return
            low, high, number = None, None, value
            if isinstance(value, Estimate | ScoreEstimate):
                low, high, number = value.low, value.high, value.value
            figures[metric, stat] = Metric(metric, stat, float(number), low, high, n, unit)

        put("score", f"avg@{self.epochs}", self.score, self.scored)
        if self.score and self.score.these_low is not None:
            on_these = Estimate(self.score.value, self.score.these_low, self.score.these_high)
            put("score", "on_these", on_these, self.scored)
        put("score", "se", self.score and self.score.se, self.problems)
        put("score", "of_all", self.of_all, self.samples)
        for k, estimate in self.pass_at.items():
            put("score", f"pass@{k}", estimate, estimate.problems)
        for k, estimate in self.pass_hat.items():
            put("score", f"pass^{k}", estimate, estimate.problems)
        for k, estimate in self.majority_at.items():
            put("score", f"maj@{k}", estimate, estimate.problems)
        put("score", f"maj@{self.epochs}", self.majority, self.majority.problems if self.majority else 0)
        answered = self.samples - self.failed
        put("truncated", "value", self.truncated, answered)
        for name in ("failed", "unscored", "disagreements", "leaked", "retried"):
            put(name, "value", getattr(self, name), self.samples)
        for name in ("prompt_tokens", "tokens", "reasoning_tokens", "answer_tokens"):
            put(name, "mean", getattr(self, name), answered, "tokens")
        put("cost", "mean", self.cost, answered)
        for name in ("ttft_ms", "ttfa_ms", "tpot_ms", "latency_ms"):
            put(name, "mean", getattr(self, name), answered, "ms")
        put("duration", "value", self.wall_seconds, self.samples, "s")
        put("output_tps", "value", self.output_tps, answered, "tokens/s")
        return PointMetrics(figures)


Prices = dict[str, float]
"""Price of a million tokens: `input` and `output`."""


def groups(samples: pa.Table, manifest: dict[str, Any] | None = None) -> list[Group]:
    """Every task and effort with its subsets, OVERALL last; a single subset is OVERALL alone. The run's manifest
    has the prices, and which points were asked until their score was known."""
    manifest = manifest or {}
    prices, adaptive = (manifest.get("endpoint") or {}).get("prices"), adaptive_points(manifest)
    by_point: dict[str, list[Row]] = defaultdict(list)
    for row in samples.select(COLUMNS).to_pylist():
        by_point[row["point_id"]].append(row)
    found: list[Group] = []
    for point_id in sorted(by_point):
        rows = by_point[point_id]
        subsets = sorted({row["subset"] for row in rows}, key=_natural)
        if len(subsets) > 1:
            parts = {subset: [row for row in rows if row["subset"] == subset] for subset in subsets}
            found += [_group(subset, part, prices, point_id in adaptive) for subset, part in parts.items()]
        found.append(_group(OVERALL, rows, prices, point_id in adaptive))
    return found


@dataclass(frozen=True, slots=True)
class EffortComparison:
    """Two efforts of one task on the same problems: the second one's score minus the first one's."""

    less: Group
    more: Group
    difference: stats.Difference
    p: float | None
    """Corrected for the number of comparisons (Holm)."""


def comparisons(samples: pa.Table, found: list[Group]) -> list[EffortComparison]:
    """Each effort of a task against each one before it, over the problems that both have scores of."""
    answers = scores.by_point(samples.select(scores.SCORED).to_pylist())
    whole = [group for group in found if group.subset == OVERALL]
    compared: list[tuple[Group, Group, stats.Difference]] = []
    for less, more in combinations(whole, 2):
        if less.task != more.task:
            continue
        before, after = answers[less.point_id], answers[more.point_id]
        common = [key for key in before if key in after]
        if common:
            sides = [before[key] for key in common], [after[key] for key in common]
            compared.append((less, more, score_difference(*sides, (less.adaptive, more.adaptive))))
    corrected = stats.holm([difference.p for _, _, difference in compared])
    return [EffortComparison(*pair, p) for pair, p in zip(compared, corrected, strict=True)]


def _natural(name: str) -> tuple[int, str]:
    return len(name), name


def _group(subset: str, rows: list[Row], prices: Prices | None, adaptive: bool) -> Group:
    first = rows[0]
    problems: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        problems[row["subset"], row["sample_id"]].append(row)
    answered = [row for row in rows if row["status"] == "ok"]
    scored = [row for row in rows if row["score"] is not None]
    epochs = max(len(answers) for answers in problems.values())
    known = [[r["score"] for r in answers if r["score"] is not None] for answers in problems.values()]
    known = [values for values in known if values]
    with_all = [[r["score"] or 0.0 for r in answers] for answers in problems.values()]
    # Where problems have as many answers as it took, only what all of them have is comparable.
    most = min(map(len, known), default=0) if adaptive else epochs
    binary = all(row["correct"] is not None for row in scored)
    voting = binary and any(row["answer"] is not None for row in scored)
    votes = [
        [(r["answer"], r["correct"]) for r in answers if r["score"] is not None]
        for answers in problems.values()
        if voting and any(r["score"] is not None for r in answers)
    ]
    looked = [row for row in scored if row["second_score"] is not None]
    cut = sum(bool(row["truncated"]) for row in answered)
    wall = busy_seconds((r["start_ns"], r["end_ns"]) for r in rows)
    tokens = [row["completion_tokens"] for row in answered if row["completion_tokens"] is not None]

    def mean_of(figure: Callable[[Row], float | None]) -> Estimate | None:
        by_problem = [[figure(row) for row in rows if row["status"] == "ok"] for rows in problems.values()]
        return scores.mean_of_answers([[v for v in values if v is not None] for values in by_problem])

    return Group(
        point_id=first["point_id"],
        task=first["task"],
        effort=first["reasoning_effort"],
        subset=subset,
        problems=len(problems),
        epochs=epochs,
        samples=len(rows),
        scored=len(scored),
        failed=len(rows) - len(answered),
        unscored=len(answered) - len(scored),
        adaptive=adaptive,
        score=scores.mean_score(known, adaptive) if known else None,
        of_all=scores.mean_score(with_all, adaptive),
        pass_at=_of_k(scores.pass_at_k, known, range(1, most + 1)) if binary else {},
        pass_hat=_of_k(scores.pass_hat_k, known, range(2, most + 1), len(scored)) if binary else {},
        majority=scores.clustered([scores.majority(v) for v in votes]) if votes and not adaptive else None,
        majority_at={} if adaptive else _majority_at(votes),
        truncated=stats.proportion(cut, len(answered)) if answered else None,
        disagreements=sum((row["second_score"] >= 0.5) != (row["score"] >= 0.5) for row in looked),
        second_looked=len(looked),
        leaked=sum(bool(row["leaked"]) for row in answered),
        retried=sum((row["attempts"] or 0) > 1 for row in rows),
        token_sources=tuple(sorted({row["token_source"] for row in answered if row["token_source"]})),
        prompt_tokens=mean_of(lambda r: r["prompt_tokens"]),
        tokens=mean_of(lambda r: r["completion_tokens"]),
        reasoning_tokens=mean_of(lambda r: r["reasoning_tokens"]),
        answer_tokens=mean_of(lambda r: _minus(r["completion_tokens"], r["reasoning_tokens"])),
        ttft_ms=mean_of(lambda r: r["ttft_ms"]),
        ttfa_ms=mean_of(lambda r: r["ttfa_ms"]),
        tpot_ms=mean_of(lambda r: r["tpot_ms"]),
        latency_ms=mean_of(lambda r: r["latency_ms"]),
        cost=mean_of(lambda r: _cost(r, prices)) if prices else None,
        wall_seconds=wall,
        output_tps=sum(tokens) / wall if wall and tokens else None,
        failures=by_kind((r["error_kind"], r["error_message"]) for r in rows if r["status"] != "ok"),
        unscored_reasons=dict(Counter(r["unscored_reason"] or "" for r in answered if r["score"] is None)),
    )


def _of_k(
    chance: Callable[[int, int, int], float | None],
    known: list[list[float]],
    sizes: range,
    answers: int | None = None,
) -> dict[int, ScoreEstimate]:
    """pass@k or pass^k by k. `answers`: see `scores.clustered`; without it, which is careful, a problem counts
    once."""
    found: dict[int, ScoreEstimate] = {}
    for k in sizes:
        chances = [chance(sum(v >= 1.0 for v in values), len(values), k) for values in known]
        present = [value for value in chances if value is not None]
        if present:
            found[k] = scores.clustered(present, answers)
    return found


def _majority_at(votes: list[list[tuple[str | None, bool]]]) -> dict[int, ScoreEstimate]:
    most = max(map(len, votes), default=0)
    if not 2 < most <= scores.MOST_VOTES:
        return {}
    chances = [scores.majority_at(answers) for answers in votes]
    return {j: scores.clustered([of[j - 1] for of in chances if len(of) >= j]) for j in range(2, most)}


def _cost(row: Row, prices: Prices) -> float | None:
    """prompt tokens x input price + completion tokens x output price, prices a million tokens."""
    if row["prompt_tokens"] is None or row["completion_tokens"] is None:
        return None
    asked, said = (
        row["prompt_tokens"] * prices.get("input", 0.0),
        row["completion_tokens"] * prices.get("output", 0.0),
    )
    return float(asked + said) / 1e6


def _minus(total: int | None, part: int | None) -> int | None:
    return None if total is None or part is None else total - part


def busy_seconds(spans: Iterable[tuple[int | None, int | None]]) -> float | None:
    """Length of the union of (start_ns, end_ns) spans: pauses between a stop and a resume don't count."""
    total, reached = 0, None
    for start, end in sorted((s, e) for s, e in spans if s is not None and e is not None):
        if reached is None or start > reached:
            total += end - start
            reached = end
        elif end > reached:
            total += end - reached
            reached = end
    return total / 1e9 if total else None


def summary_rows(manifest: dict[str, Any], found: list[Group]) -> list[Row]:
    """Rows of summary.parquet for a benchmark run."""
    return [
        row
        for group in found
        for row in group.metrics().summary_rows(
            {
                "run_id": manifest["run_id"], "point_id": group.point_id, "kind": "bench", "task": group.task,
                "model": manifest["model"], "subset": None if group.subset == OVERALL else group.subset,
                "reasoning_effort": group.effort, "parallel": None, "rate": None, "number": group.samples,
            }
        )
    ]  # fmt: skip
