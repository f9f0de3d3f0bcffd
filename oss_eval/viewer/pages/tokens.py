"""The tokens of one request over time: on the pages of samples and of requests."""

from __future__ import annotations

from typing import Any

import numpy as np

from oss_eval.results.reader import find_rows
from oss_eval.viewer import figures
from oss_eval.viewer.page import Figure, num, table
from oss_eval.viewer.pages.common import Words
from oss_eval.viewer.run_index import StoredRun

Row = dict[str, Any]


def find_request(run: StoredRun, point_id: str, request_id: str) -> Row | None:
    """One request with its token events."""
    columns = [
        "request_id",
        "start_ns",
        "first_token_ns",
        "first_answer_ns",
        "last_token_ns",
        "end_ns",
        "event_ns",
        "event_tokens",
        "status",
        "error_kind",
        "error_message",
        "completion_tokens",
    ]
    hits = find_rows(run.path, point_id, "request_id", request_id, columns).to_pylist()
    return dict(hits[-1]) if hits else None


def token_figure(request: Row, letter: str, t: Words) -> Figure:
    """Token events of one request: their number over time, and the gap before each."""
    seconds = np.asarray(request["event_ns"], dtype=np.float64) / 1e9
    tokens = request["event_tokens"] or [1] * len(seconds)
    counts = np.cumsum([n or 1 for n in tokens])
    gaps = np.diff(seconds, prepend=seconds[0]) * 1e3
    keep = np.unique(
        np.concatenate(
            [np.linspace(0, len(seconds) - 1, min(len(seconds), 1500)).astype(int), np.argsort(gaps)[-50:]]
        )
    )
    start = request["start_ns"]
    answer = None if request["first_answer_ns"] is None else (request["first_answer_ns"] - start) / 1e9
    phase = np.where(seconds < (answer if answer is not None else -1.0), 0, 1)
    data = []
    for number, name in ((0, t("reasoning")), (1, t("answer"))):
        part = keep[phase[keep] == number]
        if len(part):
            data.append(
                figures.line(
                    name,
                    number,
                    [round(float(v), 6) for v in seconds[part]],
                    [int(v) for v in counts[part]],
                    text=[f"{gap:.3f} ms" for gap in gaps[part]],
                    yaxis="y",
                    hovertemplate="%{x:.4f} s: %{y}, " + t("gap") + " %{text}<extra></extra>",
                    mode="lines+markers",
                )
                | {"marker": {"size": 3.5, "color": figures.COLOURS[number]}}
            )
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": t("gap before a token") + f" ({name})",
                    "yaxis": "y2",
                    "x": [round(float(v), 6) for v in seconds[part]],
                    "y": [round(float(v), 4) for v in gaps[part]],
                    "marker": {"size": 3, "color": figures.COLOURS[number], "symbol": "x"},
                    "showlegend": False,
                    "hovertemplate": "%{x:.4f} s: %{y:.3f} ms<extra></extra>",
                }
            )
    layout = figures.layout(t("time since the request was sent (s)"), t("tokens"), height=330)
    layout["yaxis"] |= {"domain": [0.38, 1], "rangemode": "tozero"}
    layout["yaxis2"] = figures.axis(t("gap (ms)")) | {"domain": [0, 0.26], "rangemode": "tozero"}
    layout["xaxis"] |= {"anchor": "y2", "rangemode": "tozero"}
    worst = np.argsort(gaps)[::-1][:10]
    rows = [[num(float(seconds[i]), 4), num(int(counts[i]), 0), num(float(gaps[i]), 3)] for i in sorted(worst)]
    inner = table([t("Time (s)"), t("Tokens so far"), t("Gap (ms)")], rows, t("the ten longest gaps"))
    title = t("Tokens of the answer over time") + (f" {letter}" if letter else "")
    return Figure(f"tokens{letter.lower()}", title, data, layout, inner)
