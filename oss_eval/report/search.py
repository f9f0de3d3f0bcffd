"""The result of `perf --find` for the terminal: the answer, and the levels it follows from."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from oss_eval.report.format import number, percent
from oss_eval.report.table import empty_table

UNITS = {"max-parallel": "requests in flight", "max-rate": "requests/s"}


def answer_lines(search: dict[str, Any]) -> list[str]:
    """The answer in sentences; `search` is the manifest's entry."""
    unit = UNITS.get(search["what"], "")
    asked = " and ".join(search.get("objectives") or ())
    value, low, high = (search.get(name) for name in ("value", "low", "high"))
    if value is None:
        ends = f"at least {_load(low)}" if low is not None else f"below {_load(high)}" if high is not None else ""
        return [f"{search['what']}: not known where {asked} ends to hold; " + (ends or str(search.get("why")))]
    if low == high:
        interval = ""
    elif high is None:
        interval = f", at least {_load(low)}" if low is not None else ""
    else:
        interval = f" (95% {_load(low)} to {_load(high)})" if low is not None else f", at most {_load(high)}"
    lines = [f"{search['what']}: {asked} holds up to {_load(value)} {unit}{interval}; {search.get('why')}"]
    if search.get("cliff"):
        lines.append("It is a cliff: the next higher level misses by far. Stay well below it.")
    if search.get("cold"):
        again = ", ".join(search["cold"])
        lines.append(
            f"The server was still warming up at {again}: such a level does not count, and was measured again."
        )
    if not search.get("finished"):
        lines.append("The interval is wider than 3% of the value on each side: more requests would narrow it.")
    return lines


def levels_table(search: dict[str, Any]) -> Table:
    """The levels that were tried, in order of load."""
    table = empty_table(f"Levels of the search for {search['what']}")
    table.add_column("Req/s" if search["what"] == "max-rate" else "Conc.", justify="right")
    table.add_column("Requests", justify="right")
    for text in search.get("objectives") or ():
        table.add_column(f"{text}\nmissed by", justify="right")
    table.add_column("Result")
    for level in sorted(search.get("levels") or (), key=lambda level: level["level"]):
        shares = [percent(one["missed"] / one["n"] if one["n"] else None) for one in level["misses"]]
        state = "overloaded" if level.get("overloaded") else level["state"]
        table.add_row(_load(level["level"]), str(level["requests"]), *shares, state)
    return table


def _load(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else number(value)
