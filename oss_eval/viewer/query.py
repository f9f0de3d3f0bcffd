"""What is shown, as the query string of the page, so that a link shows the same to someone else.

The page is named `show`, because Gradio uses `page` and `view` itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, quote

PAGES = ("runs", "scores", "samples", "perf", "requests", "compare", "machines", "about")
MOST_RUNS = 8
"""Maximum number of runs shown together: more can't be distinguished in a figure."""
LONGEST = 300
"""Maximum length of a filter."""


@dataclass(frozen=True)
class Query:
    """A page, the runs that it shows in order (the first is A, the second B), and its filters by name."""

    page: str = "runs"
    runs: tuple[str, ...] = ()
    filters: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, query: str) -> Query:
        """From a query string. Never raises: invalid parts are left out."""
        found = dict(parse_qsl(query.removeprefix("?")[:20_000], errors="replace"))
        page = found.pop("show", PAGES[0])
        runs = [run for run in found.pop("runs", "").split(",") if run]
        filters = {name: value[:LONGEST] for name, value in found.items() if name.isidentifier()}
        return cls(page if page in PAGES else PAGES[0], tuple(dict.fromkeys(runs))[:MOST_RUNS], filters)

    def get(self, name: str, default: str = "") -> str:
        """A filter's value."""
        return self.filters.get(name, default)

    def number(self, name: str) -> float | None:
        """A filter as a number above 0; None where it is none."""
        try:
            value = float(self.get(name))
        except ValueError:
            return None
        return value if 0 < value < float("inf") else None

    def to(self, page: str | None = None, runs: tuple[str, ...] | None = None, **filters: Any) -> Query:
        """The same with changes; another page starts without filters, except those given (as text)."""
        kept = dict(self.filters) if page in (None, self.page) else {}
        kept |= {name: str(value) for name, value in filters.items()}
        return replace(
            self,
            page=page or self.page,
            runs=self.runs if runs is None else runs[:MOST_RUNS],
            filters={name: value for name, value in kept.items() if value},
        )

    def __str__(self) -> str:
        words = [("show", self.page), *([("runs", ",".join(self.runs))] if self.runs else [])]
        words += sorted((name, value) for name, value in self.filters.items() if value)
        return "?" + "&".join(f"{name}={quote(value, safe=',')}" for name, value in words)
