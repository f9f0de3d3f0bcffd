"""The search for the highest load: how many requests missed each objective at the levels tried, and the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from oss_eval.analysis.stats import proportion
from oss_eval.report.search import answer_lines
from oss_eval.viewer import figures
from oss_eval.viewer.page import Figure, Page, num, share, table, text
from oss_eval.viewer.pages.common import Words
from oss_eval.viewer.run_index import StoredRun

NONE_MISSED = 1e-4
"""Where a logarithmic axis shows a share of 0."""


def searches(page: Page, shown: Sequence[StoredRun], t: Words) -> None:
    """A section for each run that has searched."""
    for run in shown:
        found = run.manifest.get("search")
        if not isinstance(found, dict) or not found.get("levels"):
            continue
        name = f"{run.label}: " if len(shown) > 1 else ""
        page.heading(name + t("Search for the highest load"), " ".join(answer_lines(found)))
        page.draw(_figure(run, found, t))


def _figure(run: StoredRun, search: dict[str, Any], t: Words) -> Figure:
    levels = sorted(search["levels"], key=lambda level: level["level"])
    data, rows = [], []
    for index, objective in enumerate(search.get("objectives") or ()):
        counts = [level["misses"][index] for level in levels]
        shares = [proportion(one["missed"], max(one["n"], 1)) for one in counts]
        line = figures.line(
            objective,
            index,
            [level["level"] for level in levels],
            [max(one.value, NONE_MISSED) for one in shares],
            text=[t(level["state"]) for level in levels],
            hovertemplate="%{x}: %{y:.2%}, %{text}<extra>%{fullData.name}</extra>",
        )
        data.append(line)
        rows += [
            [text(objective), num(level["level"]), num(one["n"], 0), share(found.value), text(t(level["state"]))]
            for level, one, found in zip(levels, counts, shares, strict=True)
        ]
    title = t("requests/s") if search["what"] == "max-rate" else t("concurrency")
    layout = figures.layout(title, t("share of requests that miss"))
    layout["xaxis"] = figures.levels(title, [level["level"] for level in levels])
    layout["yaxis"] |= {"type": "log", "tickformat": ".1%"}
    low, high = search.get("low"), search.get("high")
    if low is not None and high is not None:
        layout["shapes"] = [
            {
                "type": "rect", "xref": "x", "x0": low, "x1": max(high, low * 1.005),
                "yref": "paper", "y0": 0, "y1": 1, "fillcolor": "rgba(128,128,128,0.25)", "line": {"width": 0},
            }
        ]  # fmt: skip
    inner = table([t("Objective"), t("Load"), "n", t("Missed by"), t("Result")], rows)
    note = t("The grey band is the 95% interval of the answer. A share of 0 is drawn at the bottom.")
    return Figure(f"search-{run.key}", t("Levels of the search"), data, layout, inner, note)
