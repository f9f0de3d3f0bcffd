"""The style of all tables in the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table


def empty_table(title: str | None = None) -> Table:
    """A table without columns."""
    return Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), title_justify="left")
