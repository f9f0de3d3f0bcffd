"""A run as tables for the terminal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from oss_eval.analysis import gate
from oss_eval.analysis.advice import best
from oss_eval.analysis.checks import BOUND_SHARE, CHUNK_TOKENS, NO_TEXT
from oss_eval.analysis.perf_summary import PointReport, RunReport
from oss_eval.analysis.repeats import pooled
from oss_eval.analysis.slo import objectives
from oss_eval.analysis.speed_bound import recommendations
from oss_eval.analysis.stats import P99_NEEDS
from oss_eval.report.format import LARGEST_VALUE, NOTHING, number, percent, scaled
from oss_eval.report.gpu import gpu_table
from oss_eval.report.load_tables import arrivals_table, cache_lines, groups_table, whole_table
from oss_eval.report.network import network_line
from oss_eval.report.point_rows import coordinates, load_title, point_table
from oss_eval.report.roofline import roofline_table
from oss_eval.report.search import answer_lines, levels_table
from oss_eval.report.server_view import server_table
from oss_eval.results.manifest import title_mark
from oss_eval.results.model_name import short_model_name
from oss_eval.results.reader import status_of


def print_report(report: RunReport, console: Console, roofline: bool = False) -> None:
    """Print the sections of EvalScope's summary, with effort, intervals and marks; repeats of a point as one.

    `roofline`: with each point's share of the bound of its speed.
    """
    report = pooled(report)
    if report.manifest.get("search"):
        report = replace(report, points=sorted(report.points, key=lambda point: point.level))
    mark = "  SIMULATED: no model was run" if report.simulated else ""
    model = short_model_name(report.manifest["model"])
    title = Text(f"Load sweep of {model}{mark}")  # Text: a name may hold [brackets]
    console.print(Panel.fit(title, border_style="yellow" if report.simulated else "default"))
    if not report.points:
        console.print("No request was finished.")
        return
    notes: list[str] = []
    shown = _shown(report, notes)
    tables = [_basics(report), _details(shown, console.width, notes), _percentiles(shown, console.width, notes)]
    if shown is not report:
        tables.append(whole_table(report, console.width, notes))
    tables += [table for table in (arrivals_table(report, notes), groups_table(report)) if table is not None]
    beside = [server_table(report, notes), gpu_table(report, notes)]
    beside += [roofline_table(report, notes)] if roofline else []
    for table in [*tables, *(table for table in beside if table is not None)]:
        console.print()
        console.print(table)
    for note in dict.fromkeys(notes):
        console.print(f"  {note}", style="bright_black", highlight=False, markup=False)
    _print_failures(report, console)
    _print_objectives(shown, console)
    for point in report.manifest.get("set_aside", []):
        what = f"{point['point_id']}: quarantined with {point['requests']} of {point['number']} requests"
        console.print(f"{what}, measured again after the run had stopped", style="bright_black", highlight=False)
    _print_checks(report, console)
    if len(report.points) > 1:
        table = Table(
            title="Best configuration", box=None, show_header=False, title_justify="left", padding=(0, 2)
        )
        for name, text in best(report.points):
            table.add_row(name, text)
        console.print()
        console.print(table)
    for line in cache_lines(report):
        console.print(line, highlight=False, markup=False)
    search = report.manifest.get("search")
    if search and search.get("levels"):
        console.print()
        console.print(levels_table(search))
        for line in answer_lines(search):
            console.print(line, highlight=False, markup=False, style="bold")
    if report.manifest.get("stopped"):
        console.print(f"The sweep ended early, {report.manifest['stopped']}", highlight=False, markup=False)
    console.print("\n[bold italic]Recommendations[/]")
    whole = [p for p in report.points if p.whole]
    for line in recommendations(report.manifest, whole or report.points):
        console.print(f"• {line}", highlight=False, markup=False)


def _shown(report: RunReport, notes: list[str]) -> RunReport:
    """The report with the figures of the steady state where there is one."""
    none = [point for point in report.points if point.metrics.steady is None]
    if len(none) == len(report.points):
        return report
    why = [f"{point.level_name}: {point.not_steady}" for point in none if point.not_steady]
    if none:
        notes.append("° no steady state, figures of the whole point" + (f" ({'; '.join(why)})" if why else ""))
    return replace(report, points=[replace(p, metrics=p.metrics.shown) for p in report.points])


def _basics(report: RunReport) -> Table:
    manifest, endpoint = report.manifest, report.manifest["endpoint"]
    tokens = sum(p.metrics.get("completion_tokens", "total") or 0 for p in report.points)
    seconds = sum(p.metrics.get("duration") or 0 for p in report.points)
    clocks = sorted({c for p in report.points for c in p.clock_sources})
    said = {
        "kernel": "kernel receive timestamps",
        "user": "user-space timestamps (the kernel gave none)",
    }
    status = status_of(report.path, manifest)
    status = "" if status == "finished" else f" ({status})"
    rows = [
        ("Run", manifest["run_id"] + status),
        ("Model", manifest["model"]),
        ("Endpoint", f"{endpoint['url']}, {endpoint.get('api') or 'unknown'} API"),
        ("Simulator", endpoint.get("simulator") if report.simulated else None),
        ("Task", f"{manifest['task']['name']}: {manifest.get('workload') or 'unknown workload'}"),
        ("Labels", ", ".join(f"{key}={value}" for key, value in (manifest.get("labels") or {}).items()) or None),
        ("Generated", f"{tokens:,.0f} tokens in {seconds:,.1f} s"),
        ("Mean output rate", f"{tokens / seconds:,.1f} tokens/s" if seconds else None),
        *(("Network", network_line(times)) for times in manifest.get("network") or ()),
        ("Clock", " and ".join(said.get(c, c) for c in clocks) or NOTHING),
    ]
    table = Table(title="Basic information", box=None, show_header=False, title_justify="left", padding=(0, 2))
    for name, value in rows:
        if value is not None:
            table.add_row(name, Text(value))
    return table


# metric -> title, unit, factor from ms
SHOWN = {
    "latency_ms": ("Lat.", "s", 1e-3),
    "ttft_ms": ("TTFT", "s", 1e-3),
    "ttfa_ms": ("TTFA", "s", 1e-3),
    "tpot_ms": ("TPOT", "ms", 1.0),
    "itl_ms": ("Token gap", "ms", 1.0),
}


def _at_most(point: PointReport, metric: str, stat: str, notes: list[str]) -> str:
    """A mark for a TTFT that is an upper bound."""
    low, value = point.metrics.get("ttft_low_ms", stat), point.metrics.get(metric, stat)
    if metric != "ttft_ms" or low is None or value is None or low >= value * (1 - BOUND_SHARE):
        return ""
    notes.append("≤ an upper bound: first tokens were read together with later ones, whose timestamp they have")
    return "≤"


def _mean(point: PointReport, metric: str, roomy: bool, notes: list[str]) -> str:
    """A mean, with half the width of its interval on a wide terminal."""
    mark = _at_most(point, metric, "mean", notes)
    figure = point.metrics.metric(metric, "mean")
    factor = SHOWN[metric][2]
    if figure is None or figure.high is None or not roomy:
        return mark + scaled(figure.value if figure else None, factor)
    return f"{mark}{scaled(figure.value, factor)} ±{scaled(figure.high - figure.value, factor)}"


def _tail(point: PointReport, metric: str, notes: list[str]) -> str:
    """The P99, or the marked maximum with too few values for one."""
    figure, is_largest = point.metrics.tail(metric)
    if is_largest:
        notes.append(LARGEST_VALUE.format(n=P99_NEEDS))
    mark = _at_most(point, metric, "max" if is_largest else "p99", notes)
    return mark + scaled(figure.value if figure else None, SHOWN[metric][2]) + ("^" if is_largest else "")


def _starts_group(report: RunReport, point: PointReport) -> bool:
    index = report.points.index(point)
    return index > 0 and report.points[index - 1].reasoning_effort != point.reasoning_effort


def _details(report: RunReport, width: int, notes: list[str]) -> Table:
    """The main table; with an effort column and TTFA where there are efforts and reasoning."""
    roomy = width >= 120
    priced = any(p.metrics.get("price_per_mtok") is not None for p in report.points)
    state = ", steady state" if any(p.metrics.in_steady_state for p in report.points) else ""
    table = point_table(f"Performance by {load_title(report)}{state}{title_mark(report.manifest)}", report)
    columns = [("latency_ms", "Avg"), ("latency_ms", "P99"), ("ttft_ms", "Avg"), ("ttft_ms", "P99")]
    columns += [("ttfa_ms", "Avg")] if report.reasoned else []
    columns += [("tpot_ms", "Avg"), ("tpot_ms", "P99")]
    judged = any(p.metrics.get("attainment") is not None for p in report.points)
    efforts = any(p.reasoning_effort for p in report.points)
    if width < 90:  # 80 columns do not hold all; what is left out is among the percentiles too
        dropped = [("tpot_ms", "P99")] * (efforts or judged) + [("ttft_ms", "P99")] * judged
        columns = [column for column in columns if column not in dropped]
    table.add_column("RPS", justify="right", no_wrap=True)
    table.add_column("Gen.\ntok/s", justify="right", no_wrap=True)
    for metric, stat in columns:
        name, unit, _ = SHOWN[metric]
        table.add_column(
            f"{stat}\n{name}({unit})" if roomy else f"{stat}\n{name}\n({unit})", justify="right", no_wrap=True
        )
    table.add_column("Succ.\nrate", justify="right", no_wrap=True)
    if judged:
        table.add_column("Good\nreq/s", justify="right", no_wrap=True)
        table.add_column("SLO\nmet", justify="right", no_wrap=True)
    if roomy:
        table.add_column("n", justify="right")
        table.add_column("Out\ntokens", justify="right")
        if priced:
            table.add_column("Price of\n1M out", justify="right")
        notes.append("± half the width of the mean's 95% interval")
    repeated = {point.repeats for point in report.points} - {1}
    if repeated:
        count = "–".join(str(n) for n in sorted({min(repeated), max(repeated)}))
        notes.append(f"each point is the mean of {count} repeats, its interval that over repeats")
    for point in report.points:
        if _starts_group(report, point):
            table.add_section()
        m = point.metrics
        row = coordinates(report, point)
        row[-1] = ("°" if _unsteady(report, point) else "") + row[-1]
        row += [number(m.get("rps")), number(m.get("output_tps")) + _token_mark(point, notes)]
        row += [_tail(point, k, notes) if stat == "P99" else _mean(point, k, roomy, notes) for k, stat in columns]
        done = int(m.get("requests") or 0)
        if not point.whole:
            notes.append("* fewer requests were finished than planned")
        success = m.get("success_rate")
        row.append(percent(success) + ("" if point.whole else "*"))
        if judged:
            row += [number(m.get("goodput")), percent(m.get("attainment"))]
        if roomy:
            row += [str(done), number(m.get("completion_tokens", "mean"))]
            row += [number(m.get("price_per_mtok"))] if priced else []
        table.add_row(*row, style="red" if success == 0 else "")
    return table


def _unsteady(report: RunReport, point: PointReport) -> bool:
    """Whether a point has no steady state, and others of the report do."""
    return not point.metrics.in_steady_state and any(p.metrics.in_steady_state for p in report.points)


def _print_objectives(report: RunReport, console: Console) -> None:
    """What became of each `--slo` condition at each point."""
    for condition in objectives((report.manifest.get("task") or {}).get("slo") or ()).conditions:
        points = [(p.level_name, p.metrics) for p in report.points]
        named = any(gate.figure(condition, metrics) is not None for _, metrics in points)
        by_state: dict[str, list[str]] = {}
        for result in gate.on_points(condition, points) if named else ():
            by_state.setdefault(result.state, []).append(result.where)
        words = {gate.HOLDS: "met at", gate.REFUTED: "missed at", gate.UNDECIDED: "can't tell at"}
        text = "; ".join(f"{words[s]} {', '.join(by_state[s])}" for s in words if s in by_state)
        line = f"SLO {condition.text}: {text or 'no point has such a figure'}"
        console.print(line, highlight=False, markup=False)


def _token_mark(point: PointReport, notes: list[str]) -> str:
    """A mark for token counts that are not from the server."""
    others = [source for source in point.token_sources if source != "usage"]
    if not others:
        return ""
    notes.append(
        f"~ tokens counted from {' and '.join(others)}: the server sent no usage for at least one response"
    )
    return "~"


def _percentiles(report: RunReport, width: int, notes: list[str]) -> Table:
    """P50, P90 and P99 of latency, TTFT, TPOT and, on a wide terminal, of the gaps between tokens."""
    table = point_table("Percentiles: P50  P90  P99", report)
    shown = ["latency_ms", "ttft_ms", "tpot_ms"] + (["itl_ms"] if width >= 100 else [])
    for metric in shown:
        name, unit, _ = SHOWN[metric]
        table.add_column(f"{name} ({unit})", justify="right", no_wrap=True)
    for point in report.points:
        if _starts_group(report, point):
            table.add_section()
        row = coordinates(report, point)
        for metric in shown:
            if point.metrics.metric(metric, "p50") is None:
                row.append(NOTHING)
                continue
            p50, p90 = (
                _at_most(point, metric, q, notes) + scaled(point.metrics.get(metric, q), SHOWN[metric][2])
                for q in ("p50", "p90")
            )
            row.append(f"{p50:>5} {p90:>5} {_tail(point, metric, notes):>6}")
        table.add_row(*row)
        per_chunk = point.metrics.get("tokens_per_chunk")
        if per_chunk is not None and per_chunk < 0.98:
            notes.append(f"the server counts {per_chunk:.2f} tokens a chunk ({point.level_text}): some carry none")
        if per_chunk is not None and per_chunk > CHUNK_TOKENS:
            notes.append(_chunk_note(point, per_chunk))
    if any(p.metrics.metric("ttft_ms", "p50") is None and p.metrics.get("success_rate") for p in report.points):
        streamed = (report.manifest.get("task") or {}).get("stream", True)
        told = any(check["message"] == NO_TEXT for point in report.points for check in point.checks or ())
        if not (streamed and told):
            notes.append(NO_TEXT if streamed else "TTFT and TPOT need streaming; this run did not stream")
    return table


def _chunk_note(point: PointReport, per_chunk: float) -> str:
    """What token gaps are where chunks hold several tokens."""
    where = f"({point.level_text})"
    longest = point.metrics.get("tokens_per_chunk", "max")
    if longest is None:
        return f"token gaps are gaps between chunks of {per_chunk:.2f} tokens {where}"
    gap = point.metrics.get("chunk_gap_ms", "p50") or 0.0
    return (
        f"{per_chunk:.2f} tokens a chunk, at most {longest:.0f}, counted: a token's gap is its share of the gap "
        f"between chunks, whose median is {scaled(gap, 1.0)} ms {where}"
    )


def _print_checks(report: RunReport, console: Console) -> None:
    """The findings of the checks of each point."""
    if any(point.checks is None for point in report.points):
        console.print("Instrument: not checked, the run did not finish", highlight=False)
        return
    lines: dict[tuple[str, str], list[str]] = {}  # the same finding at several points is one line
    for point in report.points:
        where = " ".join(filter(None, (point.reasoning_effort, point.level_name)))
        for check in point.checks or ():
            lines.setdefault((check["level"], check["message"]), []).append(where)
    if not lines and not report.manifest.get("run_checks"):
        console.print("Instrument: [green]clean[/] at every point", highlight=False)
    print_run_checks(report.manifest, console)
    for (level, message), places in lines.items():
        _print_check(", ".join(dict.fromkeys(places)), {"level": level, "message": message}, console)


def print_run_checks(manifest: dict[str, Any], console: Console) -> None:
    """Print the findings of the checks of the whole run."""
    for check in manifest.get("run_checks", []):
        _print_check("run", check, console)


def _print_check(where: str, check: dict[str, str], console: Console) -> None:
    style = "yellow" if check["level"] == "warn" else "bright_black"
    console.print(f"Instrument, {where}: {check['message']}", style=style, highlight=False, markup=False)


def _print_failures(report: RunReport, console: Console) -> None:
    for point in report.points:
        for kind, (count, example) in sorted(point.failures.items(), key=lambda item: -item[1][0]):
            effort = f"{point.reasoning_effort} " if point.reasoning_effort else ""
            line = example.splitlines()[0][:200] if example else ""
            head = Text(f"{effort}{point.level_name}: {count} × {kind}", "red")
            console.print(head.append(f" {line}", "default"), highlight=False)
