"""Recommendations: sentences with the numbers that they follow from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import ceil

from oss_eval.analysis.bench_summary import EffortComparison, Group
from oss_eval.analysis.perf_summary import PointReport
from oss_eval.analysis.run_interval import FEWEST
from oss_eval.analysis.stats import P99_NEEDS

RISING = 1.10
"""Throughput is rising when the last step in concurrency added at least this share."""
CLOSE = 0.05
"""Half the interval width that is narrow enough to compare models."""
HEALTHY = 0.95
"""Points with a lower success rate are not considered."""
Z = 1.96
NO_ADVICE = "No recommendation"
SHARE = 0.95
"""The knee is the lowest concurrency with this share of the best throughput."""


def best(points: Sequence[PointReport]) -> list[tuple[str, str]]:
    """The best points of a sweep: highest throughput, lowest latency, fastest for one user."""
    working = [p for p in _healthy(points) if p.metrics.get("rps")]
    found: list[tuple[str, str]] = []

    def add(name: str, metric: str, stat: str, text: str, scale: float = 1.0, largest: bool = False) -> None:
        having = [p for p in working if p.metrics.get(metric, stat) is not None]
        if having:
            chosen = (max if largest else min)(having, key=lambda p: p.metrics.get(metric, stat) or 0.0)
            value = (chosen.metrics.get(metric, stat) or 0.0) * scale
            found.append((name, f"{_where(chosen)} ({text.format(value)})"))

    add("Highest RPS", "rps", "value", "{:.2f} req/s", largest=True)
    add("Highest output rate", "output_tps", "value", "{:,.1f} tok/s", largest=True)
    add("Lowest latency", "latency_ms", "mean", "{:.3f} s", 1e-3)
    add("Lowest TTFT", "ttft_ms", "mean", "{:.3f} s", 1e-3)
    add("Lowest price", "price_per_mtok", "value", "{:.4g} for 1M output tokens")
    return found


def _healthy(points: Sequence[PointReport]) -> list[PointReport]:
    """Points with enough successful requests to describe the server."""
    return [p for p in points if (p.metrics.get("success_rate") or 0.0) >= HEALTHY]


def _where(point: PointReport) -> str:
    effort = f"effort {point.reasoning_effort}, " if point.reasoning_effort else ""
    return f"{effort}{point.level_text}"


def advise(points: Sequence[PointReport]) -> list[str]:
    """Recommendations, each from numbers of this run."""
    lines: list[str] = []
    for effort, group in groupby(points, key=lambda p: p.reasoning_effort):
        some, prefix = sorted(group, key=lambda p: p.level), f"Effort {effort}: " if effort else ""
        closed = [p for p in some if p.parallel is not None]
        lines += _throughput(closed, prefix) + _sustained([p for p in some if p.rate is not None], prefix)
    lines += _failures(points)
    lines += _cut(points)
    few = [p for p in points if 0 < (p.metrics.get("requests") or 0) < P99_NEEDS]
    if few:
        lines.append(
            f"{_levels(few)}: fewer than {P99_NEEDS} requests, so their P99 is the largest value; "
            f"use --number {P99_NEEDS} or more for a P99"
        )
    short = [p for p in points if 0 < (p.metrics.get("requests") or 0) < (FEWEST + 1) * (p.parallel or 0)]
    if short:
        lines.append(
            f"{_levels(short)}: fewer than four requests a slot, so there are no intervals; "
            "use a --number of 10 times the concurrency for narrow ones"
        )
    return lines or [NO_ADVICE]


def _levels(points: Sequence[PointReport]) -> str:
    """The loads of some points, at the begin of a sentence."""
    closed = ", ".join(dict.fromkeys(str(p.parallel) for p in points if p.rate is None))
    planned = ", ".join(dict.fromkeys(f"{p.rate:g}" for p in points if p.rate is not None))
    return "; ".join(filter(None, (closed and f"Concurrency {closed}", planned and f"{planned} requests/s")))


def _sustained(points: Sequence[PointReport], prefix: str) -> list[str]:
    """Which request rates an open loop's server has kept up with."""
    growing = [p for p in points if p.metrics.get("queue_growth")]
    kept = [p for p in _healthy(points) if p not in growing]
    if not points:
        return []
    if not growing:
        last = points[-1]
        return [f"{prefix}no queue grows up to {last.rate:g} requests/s: the limit is not reached"]
    first = min(growing, key=lambda p: p.level)
    text = f"{prefix}at {first.rate:g} requests/s more requests arrive than the server ends: its queue grows"
    below = [p for p in kept if p.level < first.level]
    return [f"{text}; the highest rate without that is {below[-1].rate:g}" if below else text]


def _throughput(points: Sequence[PointReport], prefix: str) -> list[str]:
    rates = [(p, p.metrics.get("output_tps") or p.metrics.get("rps")) for p in _healthy(points)]
    known = [(p, r) for p, r in rates if r]
    if not known:
        return []
    if len(known) < 2:
        only = int(known[0][0].level)
        return [
            f"{prefix}one level shows no trend; add levels around it, "
            f"e.g. --parallel {' '.join(map(str, sorted({1, only, 2 * only})))}"
        ]
    top = max(rate for _, rate in known)
    (before, rate_before), (last, rate_last) = known[-2], known[-1]
    growth = rate_last / rate_before
    if growth >= RISING and rate_last >= top:
        return [
            f"{prefix}throughput still rises ({growth - 1:+.0%} from concurrency {before.parallel} to "
            f"{last.parallel}): the limit is not reached, try --parallel {2 * int(last.level)}"
        ]
    knee, best_rate = next((p, rate) for p, rate in known if rate >= SHARE * top)
    if knee is last:
        return [
            f"{prefix}throughput levels off at concurrency {last.parallel} "
            f"({growth - 1:+.0%} from {before.parallel})"
        ]
    slow, slowest = knee.metrics.get("latency_ms", "mean"), last.metrics.get("latency_ms", "mean")
    grown = f" while mean latency grows {slowest / slow:.1f} times" if slow and slowest and slowest > slow else ""
    after = min(rate for _, rate in known[known.index((knee, best_rate)) + 1 :])
    held = (
        f"throughput stays within {1 - SHARE:.0%} of its best"
        if after >= SHARE * top
        else f"throughput falls by up to {1 - after / best_rate:.0%}"
    )
    return [f"{prefix}the knee is at concurrency {knee.parallel}: beyond it, up to {last.parallel}, {held}{grown}"]


def _failures(points: Sequence[PointReport]) -> list[str]:
    lines = []
    for point in points:
        failed, total = point.metrics.get("failures") or 0, point.metrics.get("requests") or 0
        if failed:
            kinds = ", ".join(f"{count} {kind}" for kind, (count, _) in point.failures.items())
            lines.append(
                f"{_where(point)[0].upper()}{_where(point)[1:]}: {failed:.0f} of {total:.0f} requests failed "
                f"({kinds}); its metrics describe the others only"
            )
    return lines


def _cut(points: Sequence[PointReport]) -> list[str]:
    """Answers truncated at max_tokens before they began: their latency is that of the limit."""
    thinking = []
    for p in points:
        first, answered = p.metrics.metric("ttft_ms", "mean"), p.metrics.metric("ttfa_ms", "mean")
        if p.metrics.get("truncated") and first and (answered.n if answered else 0) < first.n:
            thinking.append(p)
    if not thinking:
        return []
    plain = not any(p.reasoning_effort for p in thinking)
    levels = _levels(thinking) if plain else ", ".join(_where(p) for p in thinking)
    return [
        f"{levels}: some responses were truncated by --max-tokens before the answer; TTFA is that of the others"
    ]


def advise_scores(found: Sequence[Group], compared: Sequence[EffortComparison]) -> list[str]:
    """Recommendations from a benchmark's scores, given one group for each task and effort."""
    lines = [_compared(pair) for pair in compared]
    for task, efforts in groupby(found, lambda group: group.task):
        widest = max(efforts, key=_width)
        if _width(widest) > 2 * CLOSE and widest.score is not None and widest.score.se:
            name = " ".join(filter(None, (task, widest.effort)))
            needed = ceil(widest.problems * (Z * widest.score.se / CLOSE) ** 2)
            lines.append(
                f"{name}: the interval is {_width(widest):.2f} wide; about {needed:,} problems would make it "
                f"±{CLOSE:g}, more --repeats of these {widest.problems} only help in part"
            )
    return lines


def _width(group: Group) -> float:
    score = group.score
    return 0.0 if score is None or score.low is None or score.high is None else score.high - score.low


def _compared(pair: EffortComparison) -> str:
    """Two efforts of one task side by side."""
    less, more, gain = pair.less, pair.more, pair.difference
    text = f"{less.task}: {more.effort} scores {gain.value:+.3f} over {less.effort}"
    if gain.low is not None and gain.high is not None and pair.p is not None:
        text += f" (95% {gain.low:+.3f} to {gain.high:+.3f} on these problems, p {p_text(pair.p)})"
        if pair.p >= 0.05:
            text += ", which may be chance,"
    if less.tokens and more.tokens and less.tokens.value:
        text += f" for {more.tokens.value / less.tokens.value:.1f} times the tokens"
    if less.latency_ms and more.latency_ms and less.latency_ms.value:
        text += f" and {more.latency_ms.value / less.latency_ms.value:.1f} times the latency"
    return text


def p_text(value: float) -> str:
    """A p-value after the letter p."""
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"
