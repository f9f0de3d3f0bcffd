"""Which reasoning effort: the cheapest one that is not worse than any other by more than a margin.

Each effort is tested against every other one, not against the one that happened to score highest: an effort that
is truly worse by the margin may score highest by chance. It is accepted if all of these tests say so, which
happens to one that is worse by the margin or more in at most 2.5% of runs (intersection-union test, Berger 1982,
Technometrics 24, 295-300, https://doi.org/10.1080/00401706.1982.10487790).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import pyarrow as pa

from oss_eval.analysis import gate, scores
from oss_eval.analysis.bench_summary import OVERALL, Group
from oss_eval.analysis.gate import HOLDS, LIMITED, REFUTED, UNDECIDED, Condition
from oss_eval.analysis.point_name import effort_rank
from oss_eval.analysis.stats import Difference, Estimate, Z, proportion
from oss_eval.analysis.stratified import score_difference
from oss_eval.errors import UsageError

DEFAULTS: dict[str, Any] = {"margin": 0.02, "slo": [], "gpu_price": None}
"""Settings of a sheet."""
NOT_WORSE, WORSE, CANT_TELL = "not worse", "worse", "can't tell"
POWER_90 = 1.2816
"""The normal distribution's quantile of 90%."""
SLO_COLUMNS = [
    "point_id", "task", "subset", "sample_id", "reasoning_effort", "status", *(f"{n}_ms" for n in LIMITED)
]  # fmt: skip
NEEDED = [*dict.fromkeys([*scores.SCORED, *SLO_COLUMNS])]
"""Columns of samples that `choose` needs."""


@dataclass(frozen=True, slots=True)
class EffortRow:
    """One effort of a task."""

    group: Group
    rival: str | None
    """The effort that it may be worst against; None without another one."""
    difference: Difference | None
    """Its score minus that one's."""
    verdict: str
    """NOT_WORSE (than any other by more than the margin), WORSE, or CANT_TELL; on these questions."""
    like_verdict: str
    """The same on questions like these."""
    cost: Estimate | None
    """Price of an answer; None without prices."""
    slo: tuple[tuple[str, str], ...]
    """(condition, HOLDS, REFUTED or UNDECIDED) of each SLO."""
    spent: float
    """What efforts are ordered by: money if it is known of all of them, else tokens."""

    @property
    def effort(self) -> str:
        """Its name."""
        return self.group.effort or "none"

    @property
    def meets_slo(self) -> bool:
        """Whether no SLO is established to be missed."""
        return all(state != REFUTED for _, state in self.slo)


@dataclass(frozen=True, slots=True)
class EffortChoice:
    """The efforts of a task, and which one to use."""

    task: str
    margin: float
    rows: tuple[EffortRow, ...]
    """In order of effort."""
    best: str | None
    """The highest score among the efforts that miss no SLO; None if all miss one."""
    chosen: str | None
    """The cheapest effort that is known not to be worse than any other by more than the margin; None if that is
    known of none."""
    undecided: tuple[str, ...]
    """Cheaper efforts of which that can't be told; all such efforts where none is chosen."""
    unscored: tuple[str, ...]
    """Efforts without any scored answer, which have no row."""

    @property
    def fit(self) -> bool:
        """Whether every effort may be used: none is established to miss an SLO."""
        return all(row.meets_slo for row in self.rows)

    def row(self, effort: str) -> EffortRow:
        """The row of an effort."""
        return next(row for row in self.rows if row.effort == effort)


def choose_by(settings: dict[str, Any], found: Sequence[Group], samples: pa.Table) -> list[EffortChoice]:
    """As `choose`, by the settings of a sheet as a manifest has them. Raises UsageError, and ValueError or
    TypeError for damaged ones."""
    settings = {**DEFAULTS, **settings}
    slo = [check_slo(gate.parse(str(text), "--slo")) for text in settings["slo"] or ()]
    price = settings["gpu_price"]
    return choose(found, samples, float(settings["margin"]), slo, None if price is None else float(price))


def choose(
    found: Sequence[Group],
    samples: pa.Table,
    margin: float,
    slo: Sequence[Condition] = (),
    gpu_price: float | None = None,
) -> list[EffortChoice]:
    """The choice for each task of a benchmark run that has several efforts, from its groups and samples.

    `slo`: conditions on figures of the run; of one like `latency_p95<30s`, whether 95% of the answers to these
    questions are within the limit, failed ones not. `gpu_price`: price of the server's GPUs an hour, which gives
    the price of an answer instead of the endpoint's prices. Raises UsageError for an SLO on a figure that the run
    does not have, and where no task has two efforts.
    """
    whole = [group for group in found if group.subset == OVERALL]
    answers = scores.by_point(samples.select(scores.SCORED).to_pylist())
    rows = samples.select(SLO_COLUMNS).to_pylist() if slo else []
    tasks: dict[str, list[Group]] = defaultdict(list)
    for group in whole:
        tasks[group.task].append(group)
    choices = [
        _choice(task, some, answers, margin, {g.point_id: _slo(g, rows, slo) for g in some if g.score}, gpu_price)
        for task, some in tasks.items()
        if len([group for group in some if group.score is not None]) > 1
    ]
    if not choices:
        raise UsageError(
            "no task of the run has scores of two efforts", "--reasoning-effort low medium high asks at three"
        )
    return choices


Answers = dict[str, dict[scores.Problem, list[float]]]
States = tuple[tuple[str, str], ...]


def _choice(
    task: str, some: list[Group], answers: Answers, margin: float, slo: dict[str, States], gpu_price: float | None
) -> EffortChoice:
    scored = [(group, slo[group.point_id]) for group in some if group.score is not None]
    scored.sort(key=lambda one: effort_rank(one[0].effort))
    fit = [group for group, states in scored if all(state != REFUTED for _, state in states)]
    best = max(fit, key=lambda group: group.score.value if group.score else 0.0, default=None)
    rows = []
    costs = {group.point_id: _cost(group, gpu_price) for group, _ in scored}
    spent = costs if None not in costs.values() else {group.point_id: group.tokens for group, _ in scored}
    for group, states in scored:
        against = {
            other.effort or "none": _difference(answers, other, group) for other in fit if other is not group
        }
        rival = min(against, key=lambda name: _low(against[name]), default=None)
        differences = list(against.values())
        verdict = _worst(verdict_of(d and d.low, d and d.high, margin) for d in differences)
        like = _worst(verdict_of(d and d.like_low, d and d.like_high, margin) for d in differences)
        difference, value = against[rival] if rival else None, spent[group.point_id]
        rows.append(
            EffortRow(
                group, rival, difference, verdict, like, costs[group.point_id], states,
                float("inf") if value is None else value.value,
            )
        )  # fmt: skip
    able = sorted((row for row in rows if row.meets_slo), key=lambda row: row.spent)
    chosen = next((row for row in able if row.verdict == NOT_WORSE), None)
    limit = float("inf") if chosen is None else chosen.spent
    undecided = tuple(row.effort for row in able if row.verdict == CANT_TELL and row.spent < limit)
    named = None if best is None else best.effort or "none"
    unscored = tuple(group.effort or "none" for group in some if group.score is None)
    return EffortChoice(
        task, margin, tuple(rows), named, None if chosen is None else chosen.effort, undecided, unscored
    )


def _low(difference: Difference | None) -> float:
    """The lower end of a difference; without one, the lowest there is."""
    return float("-inf") if difference is None or difference.low is None else difference.low


def _worst(verdicts: Iterable[str]) -> str:
    """Of the verdicts against each other effort."""
    found = set(verdicts)
    return next((verdict for verdict in (WORSE, CANT_TELL) if verdict in found), NOT_WORSE)


def _difference(answers: Answers, other: Group, group: Group) -> Difference | None:
    """A group's score minus the other one's, on the problems that both have scores of; None without any."""
    before, after = answers[other.point_id], answers[group.point_id]
    common = [key for key in before if key in after]
    if not common:
        return None
    sides = [before[key] for key in common], [after[key] for key in common]
    return score_difference(*sides, (other.adaptive, group.adaptive))


def verdict_of(low: float | None, high: float | None, margin: float) -> str:
    """What the interval of a difference says: not worse by more than the margin, worse, or neither."""
    if low is not None and low > -margin:
        return NOT_WORSE
    return WORSE if high is not None and high < -margin else CANT_TELL


def _cost(group: Group, gpu_price: float | None) -> Estimate | None:
    """The price of an answer: its share of the GPUs' time, by its tokens; without `gpu_price`, by the endpoint's
    prices."""
    if gpu_price is None:
        return group.cost
    if not group.output_tps or group.tokens is None:
        return None
    each = gpu_price / 3600 / group.output_tps
    low, high = (None if end is None else end * each for end in (group.tokens.low, group.tokens.high))
    return Estimate(group.tokens.value * each, low, high)


def _slo(group: Group, rows: Sequence[dict[str, Any]], slo: Sequence[Condition]) -> States:
    own = [row for row in rows if row["point_id"] == group.point_id]
    return tuple((condition.text, _state(condition, group, own)) for condition in slo)


def check_slo(condition: Condition) -> Condition:
    """The condition, if an effort can be judged by it: `success>99%`, `truncated<5%`, or a duration such as
    `latency_p95<30s` or `ttfa<2s`. Raises UsageError."""
    hint = "for example: --slo 'latency_p95<30s' 'ttfa_p90<5s' 'success>99%' 'truncated<5%'"
    upward = condition.operator[0] == ">"
    if condition.metric in LIMITED:
        if upward or condition.unit not in ("s", "ms"):
            raise UsageError(f"--slo {condition.text!r} is no limit of a time", hint)
        if condition.stat == "max":
            raise UsageError(f"--slo {condition.text!r}: a maximum can't be told from some answers", hint)
        return condition
    if condition.metric not in ("success", "truncated") or condition.stat is not None:
        raise UsageError(f"--slo {condition.text!r} is on no figure of an effort", hint)
    right_way = upward == (condition.metric == "success")
    if condition.unit not in ("", "%") or not 0 <= _share(condition) <= 1 or not right_way:
        raise UsageError(f"--slo {condition.text!r} is no limit of a share", hint)
    return condition


def _share(condition: Condition) -> float:
    return condition.value / 100 if condition.unit == "%" else condition.value


def _state(condition: Condition, group: Group, rows: Sequence[dict[str, Any]]) -> str:
    if condition.metric == "success":
        share = proportion(group.samples - group.failed, group.samples)
        return _against(share, _share(condition), condition)
    if condition.metric in LIMITED and condition.stat is not None and condition.stat.startswith("p"):
        limit = gate.in_ms(condition)
        met: dict[scores.Problem, list[float]] = defaultdict(list)
        for row in rows:
            value = row[f"{condition.metric}_ms"]
            if row["status"] == "ok" and value is None:
                return UNDECIDED  # not streamed, say: nobody knows
            within = row["status"] == "ok" and value < limit
            met[row["subset"], row["sample_id"]].append(float(within))
        found = scores.mean_score(list(met.values()))
        wanted = float(condition.stat[1:]) / 100
        low, high = found.these_low, found.these_high
        if low is not None and low >= wanted:
            return HOLDS
        return REFUTED if high is not None and high < wanted else UNDECIDED
    [outcome] = gate.on_points(condition, [(group.effort or "", group.metrics())])
    return outcome.state


def _against(found: Estimate, value: float, condition: Condition) -> str:
    if found.low is None or found.high is None:
        return UNDECIDED
    upward = condition.operator[0] == ">"
    if found.low >= value:
        return HOLDS if upward else REFUTED
    return (REFUTED if upward else HOLDS) if found.high < value else UNDECIDED


def times_more(row: EffortRow, margin: float) -> float | None:
    """How many times the answers it takes to tell, 9 times in 10, if the difference is the one seen; None where it
    is not known, or is the margin itself."""
    if row.difference is None or row.difference.error is None:
        return None
    apart = abs(row.difference.value + margin)
    if apart < 1e-9:
        return None
    return max(1.0, ceil(10 * ((Z + POWER_90) * row.difference.error / apart) ** 2) / 10)
