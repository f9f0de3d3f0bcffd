"""One run on a timeline: the phases of requests, requests in flight, failures, and the client's own lag."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from oss_eval.results.part_files import GPU, SERVER, read_readings
from oss_eval.viewer import figures
from oss_eval.viewer.filters import Filter
from oss_eval.viewer.page import Cell, Figure, Page, anchor, num, table, text
from oss_eval.viewer.pages.common import PERF_KINDS, Words, latest, nothing, problems, run_header, unfit
from oss_eval.viewer.pages.server_load import gpu_power, server_load
from oss_eval.viewer.pages.tokens import find_request, token_figure
from oss_eval.viewer.query import Query
from oss_eval.viewer.run_index import RunIndex, StoredRun
from oss_eval.viewer.timeline import INSTANTS, Floats, closed_up, in_flight, lanes, left_out, thinned, token_rate

CONTROLS = (Filter("point", "Point", "choice"),)
MOST_PATTERNS = 120
"""Bars above which a pattern is too fine to be seen, and slow to draw."""
BINS = 300
COLUMNS = [
    "request_id",
    "warmup",
    "status",
    "error_kind",
    "error_message",
    "completion_tokens",
    "client_lag_max_ns",
    "session",
    *INSTANTS,
]
Row = dict[str, Any]


def draw(run_index: RunIndex, query: Query, t: Words) -> Page:
    """Bars, activity, and the request chosen."""
    page = Page(t("Numbers"))
    if unfit(page, run_index, query, ("bench", *PERF_KINDS), t):
        return page
    shown = latest(run_index, query, ("bench", *PERF_KINDS))[:1]
    if not shown:
        return nothing(
            page, t("There are no runs yet. One to begin with:"), "oss-eval perf --url sim://gpt-oss-20b-h20", t
        )
    run = shown[0]
    points = run.planned
    ids = [value for _, value in points]
    point_id = query.get("point") if query.get("point") in ids else _busiest(run)
    page.choices["point"] = (points, point_id)
    run_header(page, shown, query, t)
    rows = run.requests(COLUMNS, point_id or None)
    rows = rows.filter(pc.and_(pc.invert(rows["warmup"]), pc.is_valid(rows["start_ns"])))
    if not rows.num_rows:
        page.say(t("No request of this point is finished yet."))
        problems(page, shown, t)
        return page
    breaks = left_out(rows)
    rows = closed_up(rows, breaks)
    begin = int(pc.min(rows["start_ns"]).as_py())
    chosen = query.get("request")
    page.heading(t("Requests over time"))
    page.say(t("One bar a request; click one for its tokens."), "lead hint")
    if len(breaks) > 1:
        words = t("Measured in {n} sessions; the time between them is left out.")
        page.say(words.format(n=len(breaks)), "hint")
    page.draw(_bars(rows, begin, query.to(runs=(run.key,), point=point_id), t))
    if chosen:
        _one(page, run, point_id, chosen, t)
    page.heading(t("Activity"))
    events = run.requests(
        ["warmup", "session", "start_ns", "event_ns", "event_tokens", "completion_tokens"], point_id or None
    )
    events = closed_up(events, breaks)
    activity = _activity(rows, events, begin, t)
    one_session = len(breaks) < 2  # the server's readings do not know the time that is left out between sessions
    readings = read_readings(run.path, SERVER, point_id or None)
    if one_session:
        power = gpu_power(read_readings(run.path, GPU, point_id or None), begin, t)
        activity = (*activity, *server_load(readings, begin, t), *power)
    page.draw(*activity)
    if all(figure.name != "token-rate" for figure in activity):
        page.say(t("These requests were not streamed: there are no token timestamps."))
    _extremes(page, rows, begin, query.to(runs=(run.key,), point=point_id), t)
    problems(page, shown, t)
    return page


def _busiest(run: StoredRun) -> str:
    """The point with most in flight."""
    found = max(run.points, key=lambda view: (view.level or 0, view.number), default=None)
    return found.point_id if found else ""


def _seconds(rows: pa.Table, name: str, begin: int) -> Floats:
    """Seconds since the first request of the point; NaN where there is no such timestamp."""
    return np.asarray(pc.subtract(rows[name], begin).cast(pa.float64()).to_numpy(), dtype=np.float64) / 1e9


def _bars(rows: pa.Table, begin: int, query: Query, t: Words) -> Figure:
    at = {name.removesuffix("_ns"): _seconds(rows, name, begin) for name in INSTANTS}
    start, end = at["start"], np.where(np.isnan(at["last_token"]), at["end"], at["last_token"])
    status = rows["status"].cast(pa.string())
    stopped = np.asarray(pc.equal(status, "cancelled").to_numpy(zero_copy_only=False))
    failed = np.asarray(pc.not_equal(status, "ok").to_numpy(zero_copy_only=False)) & ~stopped
    lane = lanes(start, np.where(np.isnan(at["end"]), end, at["end"]))
    keep = thinned(end - start, failed)
    ids = rows["request_id"].to_pylist()
    links = {int(i): str(query.to(request=ids[i])) for i in keep}
    phases = _phases(at, end, t)
    data = [bar for phase in phases if (bar := _phase_bar(phase, lane, keep, links))]
    ends = np.where(np.isnan(at["end"]), start, at["end"])
    kinds = rows["error_kind"].to_pylist()
    for name, which, marker in (
        (t("failed"), failed, {"symbol": "x", "size": 9, "color": "#c23b5a"}),
        (
            t("cancelled"),
            stopped,
            {"symbol": "line-ns-open", "size": 10, "color": "#7b8494", "line": {"width": 2}},
        ),
    ):
        marked = [int(i) for i in keep if which[i]]
        if marked:
            data.append(_marks(name, marker, marked, ends, lane, kinds, links))
    count = int(lane.max()) + 1
    layout = figures.layout(
        t("time since the first request (s)"), t("slot"), height=max(300, min(760, 120 + 9 * count))
    )
    layout |= {"barmode": "overlay", "bargap": 0}
    layout["yaxis"] |= {"autorange": "reversed"}
    note = ""
    if len(keep) < rows.num_rows:
        note = t(
            "{drawn} of {total} requests are drawn: failures and the slowest first, the others thinned evenly."
        ).format(drawn=f"{len(keep):,}", total=f"{rows.num_rows:,}")
    return Figure("requests", t("Requests"), data, layout, _phase_table(phases, t), note)


class _Phase(NamedTuple):
    """A part of each request: its start and end in seconds, NaN where a request has none."""

    name: str
    left: Floats
    right: Floats
    colour: str
    pattern: str


def _phases(at: dict[str, Floats], end: Floats, t: Words) -> list[_Phase]:
    start, headers, first, answer = at["start"], at["headers"], at["first_token"], at["first_answer"]
    reasoning_end = np.where(np.isnan(first), np.nan, np.where(np.isnan(answer), end, answer))
    return [
        _Phase(t("scheduled, not yet sent"), at["scheduled"], start, "#9aa3b2", "."),
        _Phase(t("sent, until headers"), start, np.where(np.isnan(headers), end, headers), "#98690c", "/"),
        _Phase(t("headers, until first token"), headers, np.where(np.isnan(first), end, first), "#c4500a", "\\"),
        _Phase(t("reasoning"), first, reasoning_end, "#5f62d6", "x"),
        _Phase(t("answer"), answer, np.where(np.isnan(answer), np.nan, end), "#0f8a5f", ""),
    ]


def _phase_bar(phase: _Phase, lane: Any, keep: Any, links: dict[int, str]) -> dict[str, Any] | None:
    """The bars of one phase; None where no request has it."""
    width = (phase.right - phase.left)[keep]
    if not np.nansum(width > 0):
        return None
    pattern = {
        "shape": phase.pattern if len(keep) <= MOST_PATTERNS else "",
        "fillmode": "overlay",
        "fgcolor": "rgba(255,255,255,0.6)",
        "size": 5,
        "solidity": 0.2,
    }
    return {
        "type": "bar",
        "orientation": "h",
        "name": phase.name,
        "base": _clean(phase.left[keep]),
        "x": _clean(width),
        "y": [int(v) for v in lane[keep]],
        "width": 0.9,
        "customdata": list(links.values()),
        "marker": {"color": phase.colour, "pattern": pattern, "line": {"width": 0}},
        "hovertemplate": "%{base:.3f} s + %{x:.3f} s<extra>" + phase.name + "</extra>",
    }


def _marks(
    name: str,
    marker: dict[str, Any],
    marked: list[int],
    ends: Floats,
    lane: Any,
    kinds: list[str | None],
    links: dict[int, str],
) -> dict[str, Any]:
    """A mark at the end of each request in `marked`."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": _clean(ends[marked]),
        "y": [int(lane[i]) for i in marked],
        "text": [kinds[i] or "" for i in marked],
        "marker": marker,
        "customdata": [links[i] for i in marked],
        "hovertemplate": "%{x:.3f} s %{text}<extra>" + name + "</extra>",
    }


def _phase_table(phases: list[_Phase], t: Words) -> str:
    """How long each phase took."""
    body = []
    for phase in phases:
        width = phase.right - phase.left
        width = width[np.isfinite(width)]
        if len(width):
            values = (float(width.mean()), float(np.percentile(width, 50)), float(width.max()))
            body.append([text(phase.name), *map(num, values), num(len(width), 0)])
    return table([t("Phase"), t("mean (s)"), "P50 (s)", t("max (s)"), "n"], body)


def _clean(values: Floats) -> list[float | None]:
    return [round(float(v), 6) if np.isfinite(v) else None for v in values]


def _activity(rows: pa.Table, events: pa.Table, begin: int, t: Words) -> tuple[Figure, ...]:
    """In flight (its largest value in each slice), token rate, and the largest client lag, over time."""
    start, end = _seconds(rows, "start_ns", begin), _seconds(rows, "end_ns", begin)
    end = np.where(np.isnan(end), start, end)
    length = max(float(end.max()), 1e-3)
    edges = np.linspace(0, length, BINS + 1)
    middle = _clean((edges[:-1] + edges[1:]) / 2)
    flying = in_flight(start, end, edges)
    rate = token_rate(events, begin, edges)
    lag = np.asarray(rows["client_lag_max_ns"].cast(pa.float64()).to_numpy(), dtype=np.float64) / 1e6
    place = np.clip(np.digitize(end, edges) - 1, 0, BINS - 1)
    worst = np.full(BINS, np.nan)
    for i in np.flatnonzero(np.isfinite(lag)):
        worst[place[i]] = lag[i] if np.isnan(worst[place[i]]) else max(worst[place[i]], lag[i])
    x = t("time since the first request (s)")
    step = {"mode": "lines", "line": {"shape": "hvh", "width": 1.6, "color": figures.COLOURS[0]}}
    shown = [
        ("in-flight", t("In flight"), t("requests in flight"), flying, {}),
        *(
            []
            if rate is None
            else [("token-rate", t("Tokens per second"), t("tokens/s of all requests"), rate, {})]
        ),
        (
            "client-lag",
            t("Client lag, largest in each slice"),
            t("client lag (ms)"),
            worst,
            {"mode": "markers", "marker": {"size": 4, "color": figures.COLOURS[3]}},
        ),
    ]
    found = []
    for name, title, unit, values, more in shown:
        trace = (
            figures.line(title, 0, middle, _clean(values), hovertemplate="%{x:.2f} s: %{y:,.4g}<extra></extra>")
            | step
            | more
        )
        layout = figures.layout(x, unit, height=240, showlegend=False)
        layout["yaxis"] |= {"rangemode": "tozero"}
        known = values[np.isfinite(values)]
        body = (
            [[num(float(known.mean())), num(float(np.percentile(known, 50))), num(float(known.max()))]]
            if len(known)
            else []
        )
        found.append(Figure(name, title, [trace], layout, table([t("mean"), "P50", t("max")], body, unit)))
    return tuple(found)


def _extremes(page: Page, rows: pa.Table, begin: int, query: Query, t: Words) -> None:
    """The slowest requests, and every failure, as rows."""
    start, end = _seconds(rows, "start_ns", begin), _seconds(rows, "end_ns", begin)
    first = _seconds(rows, "first_token_ns", begin)
    statuses, ids = rows["status"].to_pylist(), rows["request_id"].to_pylist()
    kinds, messages = rows["error_kind"].to_pylist(), rows["error_message"].to_pylist()
    tokens, lags = rows["completion_tokens"].to_pylist(), rows["client_lag_max_ns"].to_pylist()
    bad = [i for i, status in enumerate(statuses) if status not in ("ok", "cancelled")]
    slow = [int(i) for i in np.argsort(np.nan_to_num(end - start, nan=-1.0))[::-1] if statuses[i] == "ok"][:15]

    def line(i: int) -> list[Cell]:
        return [
            text(statuses[i] if statuses[i] == "ok" else f"{statuses[i]}: {kinds[i]}", messages[i] or ""),
            _link(ids[i], query),
            num(float(start[i]), 3),
            num(_known(first[i] - start[i])),
            num(_known(end[i] - start[i])),
            num(tokens[i], 0),
            num(None if lags[i] is None else lags[i] / 1e6, 3),
        ]

    head = [
        t("Status"),
        t("Request"),
        t("Sent at (s)"),
        "TTFT (s)",
        t("Until its end (s)"),
        t("Tokens"),
        t("Client lag (ms)"),
    ]
    if bad:
        words = t("{shown} of {total} failed requests").format(shown=len(bad[:200]), total=len(bad))
        page.table(head, [line(i) for i in bad[:200]], words, "failed")
    inner = table(head, [line(i) for i in slow], name="slowest")
    page.fold("slow", t("The slowest requests"), inner)


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _link(request_id: str, query: Query) -> Cell:
    return Cell(anchor(request_id, query.to(request=request_id)), request_id)


def _one(page: Page, run: StoredRun, point_id: str, request_id: str, t: Words) -> None:
    found = find_request(run, point_id, request_id)
    if found is None:
        page.say(t("This run has no request {name} at this point.").format(name=request_id[:80]), "bad")
        return
    page.heading(t("Request {name}").format(name=request_id))
    if found["status"] != "ok":
        page.say(f"{found['status']}: {found['error_kind']} {(found['error_message'] or '')[:500]}", "bad")
    if found["event_ns"]:
        page.draw(token_figure(found, "", t))
    else:
        page.say(t("It brought no token."))
