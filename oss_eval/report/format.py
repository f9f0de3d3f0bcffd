"""Numbers as tables print them."""

from __future__ import annotations

NOTHING = "–"
LARGEST_VALUE = "^ the largest value: a P99 needs {n} values"
"""The note under a table with such a mark, see `PointMetrics.tail`."""


def number(value: float | None) -> str:
    """Four significant digits where they are meaningful: 0.060, 6.52, 29.57, 123.4, 2529."""
    if value is None:
        return NOTHING
    for limit, digits in ((10, 3), (100, 2), (1000, 1)):
        if abs(value) < limit:
            return f"{value:.{digits}f}"
    return f"{value:.0f}"


def scaled(value: float | None, factor: float) -> str:
    """The number in another unit; a dash for None."""
    return number(None if value is None else value * factor)


def percent(value: float | None) -> str:
    """A share with one decimal. 99.96% is not shown as 100%: a single failure has to be visible."""
    if value is None:
        return NOTHING
    return "100%" if value == 1 else f"{min(value, 0.999):.1%}"
