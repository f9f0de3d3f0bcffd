"""The style of figures: series differ in colour, symbol and dash."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oss_eval.analysis.figures import Metric

Json = dict[str, Any]

COLOURS = ("#2f6fd0", "#c4500a", "#0f8a5f", "#a8489b", "#98690c", "#5f62d6", "#0f8398", "#c23b5a")
"""At least 3:1 against white and against the dark page (WCAG 2.2, 1.4.11); `test_viewer` computes it."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "pentagon")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid", "dash")
MOST_POINTS = 400
"""Points of a curve; more are not told apart on a screen."""


def style(index: int) -> tuple[str, str, str]:
    """(colour, symbol, dash) of a series."""
    return COLOURS[index % len(COLOURS)], SYMBOLS[index % len(SYMBOLS)], DASHES[index % len(DASHES)]


def layout(x: str, y: str, log_x: bool = False, log_y: bool = False, height: int = 340, **more: Any) -> Json:
    """Axes with titles that name their units; a legend below."""
    found: Json = {
        "height": height,
        "margin": {"l": 62, "r": 14, "t": 14, "b": 50},
        "font": {"size": 12.5, "family": "system-ui, sans-serif"},
        "xaxis": axis(x, log_x),
        "yaxis": axis(y, log_y),
        "legend": {"orientation": "h", "y": -0.22, "x": 0, "yanchor": "top"},
        "hovermode": "closest",
    }
    return {**found, **more}


def axis(title: str, log: bool = False, **more: Any) -> Json:
    """One axis."""
    found: Json = {
        "title": {"text": title, "standoff": 8},
        "automargin": True,
        "showline": True,
        "zeroline": False,
    }
    if log:
        ticks = [digit * 10.0**power for power in range(-4, 9) for digit in (1, 2, 5)]
        found |= {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:,.10g}" for tick in ticks]}
    return {**found, **more}


def levels(title: str, values: Iterable[float | None]) -> Json:
    """A logarithmic axis with a mark at each of some whole numbers, such as the concurrencies of a sweep."""
    ticks = sorted({value for value in values if value})
    return axis(title, log=True) | {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def line(name: str, index: int, x: Sequence[Any], y: Sequence[Any], **more: Any) -> Json:
    """A series of measured points, connected."""
    colour, symbol, dash = style(index)
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": list(x),
        "y": list(y),
        "line": {"color": colour, "dash": dash, "width": 2},
        "marker": {"color": colour, "symbol": symbol, "size": 8},
        **more,
    }


def errors(metrics: Sequence[Metric | None], factor: float = 1.0) -> Json:
    """Error bars from 95% intervals; none where a figure has none."""
    above, below = [], []
    for metric in metrics:
        high = None if metric is None or metric.high is None else (metric.high - metric.value) * factor
        low = None if metric is None or metric.low is None else (metric.value - metric.low) * factor
        above.append(high if high is not None else 0)
        below.append(low if low is not None else 0)
    return {
        "type": "data",
        "symmetric": False,
        "array": above,
        "arrayminus": below,
        "thickness": 1.2,
        "width": 3,
        "visible": any(above) or any(below),
    }


def ecdf(values: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    """The empirical distribution function as (values, shares); thinned in the middle, both tails kept whole.

    Of n values above MOST_POINTS, the lowest and highest MOST_POINTS / 8 are all kept, and of the others every
    k-th: each point kept is a true point of the function.
    """
    ordered = np.sort(values)
    n = len(ordered)
    keep = np.arange(n)
    if n > MOST_POINTS:
        tail = MOST_POINTS // 8
        middle = np.linspace(tail, n - tail - 1, MOST_POINTS - 2 * tail).astype(int)
        keep = np.unique(np.concatenate([keep[:tail], middle, keep[-tail:]]))
    return [float(v) for v in ordered[keep]], [float(v) for v in (keep + 1) / n]


def reference_line(value: float, along: str, start: float = 0.0) -> list[Json]:
    """Shapes of a limit on the y axis (`along` "y") or the x axis: a line, and the side below it shaded.

    The shade begins at `start`, which a logarithmic axis needs above 0.
    """
    across = "x" if along == "y" else "y"
    whole = {f"{across}ref": f"{across} domain", f"{across}0": 0, f"{across}1": 1}
    limit = {
        "type": "line",
        f"{along}0": value,
        f"{along}1": value,
        "line": {"dash": "dash", "width": 1.5, "color": "#0f8a5f"},
    }
    side = {
        "type": "rect",
        f"{along}0": min(start, value),
        f"{along}1": value,
        "fillcolor": "#0f8a5f",
        "opacity": 0.1,
        "line": {"width": 0},
        "layer": "below",
    }
    return [side | whole, limit | whole]
