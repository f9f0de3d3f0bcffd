"""What a page shows: HTML and figures, made here and drawn in the browser by assets/page.js.

Every text from a run goes through `esc`; figures are plain data. A link is an Address, so whatever can be clicked
can be sent to someone, opened in a new tab, or put into a report.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from oss_eval.analysis.figures import Metric
from oss_eval.report.format import NOTHING, number, percent
from oss_eval.system.text import as_utf8
from oss_eval.viewer.query import Query

Json = dict[str, Any]


def esc(text: object) -> str:
    """Text escaped for HTML."""
    return escape(as_utf8(str(text)), quote=True)


@dataclass(frozen=True)
class Cell:
    """A table cell. `html` is trusted: made in this package, texts escaped."""

    html: str
    sort: float | str | None = None
    numeric: bool = False
    wraps: bool = False
    """Whether a long text is wrapped."""


def text(value: object, title: str = "") -> Cell:
    """A cell that holds a text."""
    shown = esc(value)
    return Cell(f'<span title="{esc(title)}">{shown}</span>' if title else shown, str(value))


def link(value: object, address: Query, title: str = "") -> Cell:
    """A cell with a link."""
    return Cell(anchor(value, address, title), str(value))


def anchor(value: object, address: Query, title: str = "", kind: str = "") -> str:
    """A link to another view."""
    attributes = f' title="{esc(title)}" aria-label="{esc(title)}"' if title else ""
    attributes += f' class="{kind}"' if kind else ""
    return f'<a data-go href="{esc(address)}"{attributes}>{esc(value)}</a>'


def num(value: float | None, digits: int | None = None, unit: str = "") -> Cell:
    """A number as tables show it: four significant digits, or so many decimals."""
    if value is None:
        return Cell(NOTHING, None, True)
    shown = number(value) if digits is None else f"{value:,.{digits}f}"
    return Cell(shown + (f"&thinsp;{esc(unit)}" if unit else ""), value, True)


def share(value: float | None) -> Cell:
    """A share as a percentage; what is not all is not shown as all."""
    if value is None:
        return Cell(NOTHING, None, True)
    return Cell(percent(value), value, True)


def estimate(metric: Metric | None, factor: float = 1.0, digits: int | None = None) -> Cell:
    """A figure with its 95% interval."""
    if metric is None:
        return Cell(NOTHING, None, True)

    def shown(value: float | None) -> str:
        scaled = None if value is None else value * factor
        return number(scaled) if digits is None or scaled is None else f"{scaled:,.{digits}f}"

    interval = ""
    if metric.low is not None or metric.high is not None:
        interval = f' <small class="ci">{shown(metric.low)}–{shown(metric.high)}</small>'
    return Cell(shown(metric.value) + interval, metric.value, True)


def badge(word: str, kind: str = "") -> str:
    """A word in a box; the colour repeats its meaning."""
    return f'<span class="badge {kind}">{esc(word)}</span>'


def table(head: Sequence[str], rows: Iterable[Sequence[Cell]], caption: str = "", name: str = "") -> str:
    """A table that can be sorted by its column heads."""
    body = [list(row) for row in rows]
    numeric = [bool(body) and all(row[i].numeric for row in body) for i in range(len(head))]
    cells = "".join(
        f'<th scope="col"{_class(right)}><button type="button" data-sort>{esc(title)}</button></th>'
        if title
        else "<th></th>"
        for title, right in zip(head, numeric, strict=True)
    )
    lines = []
    for row in body:
        columns = "".join(
            f'<td{_class(cell.numeric, cell.wraps)} data-value="{_key(cell)}">{cell.html}</td>' for cell in row
        )
        lines.append(f"<tr>{columns}</tr>")
    titled = f"<caption>{esc(caption)}</caption>" if caption else ""
    named = f' data-name="{esc(name)}"' if name else ""
    return (
        f'<div class="scroll" tabindex="0"><table{named}>{titled}<thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _key(cell: Cell) -> str:
    return "" if cell.sort is None else esc(cell.sort)


def _class(numeric: bool, wraps: bool = False) -> str:
    return ' class="n"' if numeric else ' class="wrap"' if wraps else ""


@dataclass(frozen=True)
class Figure:
    """A Plotly figure, and the table of its numbers."""

    name: str
    """Name of the saved file, and in tests."""
    title: str
    data: list[Json]
    layout: Json
    numbers: str
    """HTML of the table."""
    note: str = ""


@dataclass
class Page:
    """A page: call its methods in reading order."""

    numbers_word: str = "Numbers"
    parts: list[str] = field(default_factory=list)
    figures: list[Json] = field(default_factory=list)
    choices: dict[str, tuple[list[tuple[str, str]], str]] = field(default_factory=dict)
    """Filter -> its (label, value) pairs and the chosen value, for those that depend on the runs."""
    below: Page | None = None
    """The part below the page's text fields."""
    caption: str = ""
    """What a saved figure says of where it comes from."""
    texts: dict[str, str] = field(default_factory=dict)
    """Markdown for the page's text fields, made safe by `markdown.safe`."""

    def add(self, html: str) -> None:
        """Trusted HTML."""
        self.parts.append(html)

    def heading(self, title: str, lead: str = "") -> None:
        """A section."""
        self.parts.append(f"<h2>{esc(title)}</h2>" + (f'<p class="lead">{esc(lead)}</p>' if lead else ""))

    def say(self, words: str, kind: str = "note") -> None:
        """A note: `note`, `warn` or `bad`."""
        self.parts.append(f'<p class="{kind}" role="note">{esc(words)}</p>')

    def fold(self, name: str, title: str, html: str, opened: bool = False) -> None:
        """Trusted HTML that can be folded; the browser remembers its state by name."""
        start = f'<details{" open" if opened else ""} data-fold="{esc(name)}">'
        self.parts.append(f"{start}<summary>{esc(title)}</summary>{html}</details>")

    def table(
        self, head: Sequence[str], rows: Iterable[Sequence[Cell]], caption: str = "", name: str = ""
    ) -> None:
        """Add a table."""
        self.parts.append(table(head, rows, caption, name))

    def draw(self, *figures: Figure) -> None:
        """Add figures, side by side where there is room."""
        boxes = []
        for figure in figures:
            note = f'<p class="note">{esc(figure.note)}</p>' if figure.note else ""
            boxes.append(
                f'<figure data-figure="{len(self.figures)}" data-name="{esc(figure.name)}">'
                f"<figcaption>{esc(figure.title)}</figcaption>"
                f'<div class="plot" style="min-height:{figure.layout["height"]}px" role="img" '
                f'aria-label="{esc(figure.title)}"></div>{note}'
                f'<div class="tools"><button type="button" data-save="png">PNG</button>'
                f'<button type="button" data-save="svg">SVG</button>'
                f"<details><summary>{esc(self.numbers_word)}</summary>{figure.numbers}</details></div></figure>"
            )
            drawn = {"data": plain(figure.data), "layout": plain(figure.layout)}
            self.figures.append({**drawn, "name": figure.name})
        self.parts.append(f'<div class="figures">{"".join(boxes)}</div>')

    def value(self, address: Query) -> Json:
        """The page as the browser gets it."""
        return {
            "html": "".join(self.parts), "figures": self.figures, "address": str(address), "caption": self.caption,
        }  # fmt: skip


OURS = ("customdata", "hovertemplate")
"""Parts of a figure whose angle brackets are meant."""


def plain(part: Any) -> Any:
    """A part of a figure in which texts are texts: Plotly reads some HTML in names, labels and categories."""
    if isinstance(part, dict):
        return {key: value if key in OURS else plain(value) for key, value in part.items()}
    if isinstance(part, list):
        return [plain(value) for value in part]
    return part.replace("&", "&amp;").replace("<", "&lt;") if isinstance(part, str) else part


def script_json(value: object) -> str:
    """JSON that can stand inside a <script> element."""
    return json.dumps(value).replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
