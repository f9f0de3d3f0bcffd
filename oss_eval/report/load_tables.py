"""Tables of a sweep beside its main one: whole points beside their steady states, and the arrivals of an open
loop."""

from __future__ import annotations

from rich.table import Table

from oss_eval.analysis.perf_summary import RunReport
from oss_eval.analysis.stats import P99_NEEDS
from oss_eval.report.format import LARGEST_VALUE, number, percent, scaled
from oss_eval.report.point_rows import coordinates, point_table

BURST_SHARE = 1.25
"""A P99 of the whole point that is larger by this factor than that of the steady state is of the start."""


def whole_table(report: RunReport, width: int, notes: list[str]) -> Table:
    """The same figures of whole points: with their start, their end, and what was not steady."""
    table = point_table("Whole points: with start and end", report)
    for title in ("RPS", "tok/s", "Lat. avg", "Lat. P99", "TTFT avg", "TTFT P99", "TPOT avg"):
        table.add_column(title, justify="right", no_wrap=True)
    if width >= 120:
        table.add_column("n", justify="right")
    for point in report.points:
        m, steady = point.metrics, point.metrics.steady
        row = [*coordinates(report, point), number(m.get("rps")), number(m.get("output_tps"))]
        for metric, factor in (("latency_ms", 1e-3), ("ttft_ms", 1e-3), ("tpot_ms", 1.0)):
            row.append(scaled(m.get(metric, "mean"), factor))
            if metric != "tpot_ms":
                tail, is_largest = m.tail(metric)
                row.append(scaled(tail.value if tail else None, factor) + ("^" if is_largest else ""))
                if is_largest:
                    notes.append(LARGEST_VALUE.format(n=P99_NEEDS))
        if width >= 120:
            row.append(number(m.get("requests")))
        table.add_row(*row)
        whole, kept = (None if s is None else s.tail("ttft_ms")[0] for s in (m, steady))
        if whole is not None and kept is not None and whole.value > BURST_SHARE * kept.value:
            notes.append(
                f"{point.level_text}: the whole point's TTFT P99 is that of its start "
                f"({scaled(whole.value, 1e-3)} s; {scaled(kept.value, 1e-3)} s in the steady state)"
            )
    return table


def arrivals_table(report: RunReport, notes: list[str]) -> Table | None:
    """Planned against achieved starts of an open loop, and latency from the planned start beside latency."""
    points = [point for point in report.points if point.rate is not None]
    if not points:
        return None
    table = point_table("Arrivals", report)
    for title in (
        "Planned\n(req/s)", "Achieved\n(req/s)", "Delay\nP99 (ms)", "In flight\navg", "In flight\nmax",
        "Lat.\nP99 (s)", "Scheduled\nlat. P99",
    ):  # fmt: skip
        table.add_column(title, justify="right", no_wrap=True)
    for point in points:
        m = point.metrics
        growth = m.get("queue_growth")
        table.add_row(
            *coordinates(report, point),
            number(m.get("planned_rate")),
            number(m.get("achieved_rate")),
            scaled(_value(m.tail("dispatch_delay_ms")), 1.0),
            number(m.get("in_flight", "mean")),
            number(m.get("in_flight", "max")) + ("↑" if growth else ""),
            scaled(_value(m.tail("latency_ms")), 1e-3),
            scaled(_value(m.tail("scheduled_latency_ms")), 1e-3),
        )
    notes.append("Delay: start less planned start. Scheduled latency: from the planned start")
    if any(point.metrics.get("queue_growth") for point in points):
        notes.append("↑ the queue grows: more requests arrive than the server ends")
    return table


def groups_table(report: RunReport) -> Table | None:
    """TTFT by turn of conversations, beside the length of the context; or by part of a mix."""
    turns = any(point.turns for point in report.points)
    if not turns and not any(point.mix for point in report.points):
        return None
    table = point_table("Turns" if turns else "Parts of the mix", report)
    tokens = ("Cached\ntokens",) if turns else ("Out\ntokens",)
    table.add_column("Turn" if turns else "Part", justify="right" if turns else "left", no_wrap=True)
    for title in ("n", "Prompt\ntokens", *tokens, "TTFT\nP50 (s)", "max (s)", "Lat.\nP50 (s)"):
        table.add_column(title, justify="right", no_wrap=True)
    for point in report.points:
        for one in point.turns or point.mix:
            ttft, latency = one["ttft_ms"] or {}, one["latency_ms"] or {}
            table.add_row(
                *coordinates(report, point),
                str(next(one[key] for key in ("turn", "sample_id", "reasoning_effort") if key in one)),
                str(one["n"]),
                number(one["prompt_tokens"]),
                number(one["cached_tokens" if turns else "completion_tokens"]),
                scaled(ttft.get("p50"), 1e-3),
                scaled(ttft.get("max"), 1e-3),
                scaled(latency.get("p50"), 1e-3),
            )
        table.add_section()
    return table


def cache_lines(report: RunReport) -> list[str]:
    """What the server's prefix cache gave, where it says so, beside what a trace's hash ids allow."""
    possible = (report.manifest.get("trace") or {}).get("theoretical_hit_rate")
    lines = []
    for point in report.points:
        share = point.metrics.get("cached_share")
        if share is not None and (share or possible is not None):
            text = f"Prefix cache, {point.level_name}: {percent(share)} of the prompt tokens were cached"
            text += "" if possible is None else f"; a cache without limit would have {percent(possible)}"
            lines.append(text)
        elif possible is not None:
            lines.append(
                f"Prefix cache, {point.level_name}: the server does not say how many prompt tokens were cached; "
                f"a cache without limit would have {percent(possible)}"
            )
    return lines


def _value(tail: tuple[object, bool]) -> float | None:
    return getattr(tail[0], "value", None)
