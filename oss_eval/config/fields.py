"""The types of a task's settings, and how a setting appears on the command line."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field


@dataclass(frozen=True, slots=True)
class Flag:
    """A setting that is a flag too. Its help is the docstring of the field, its default the field's."""

    group: str
    metavar: str | None = None
    aliases: tuple[str, ...] = ()
    """Further spellings, such as `-n`."""
    repeated: bool = False
    """A list is given by repeating the flag, instead of by several values after it."""
    show_default: bool = True
    """Whether the help ends with the default."""
    as_text: bool = False
    """Whether the field reads a text, such as `2.5/h`, although its value is none."""


ENDPOINT = "Endpoint"
LOAD = "Load"
REQUESTS = "Requests"
DATA = "Data and scoring"
LIMITS = "Timeouts and limits"
RESULTS = "Results"
GROUPS = (ENDPOINT, LOAD, REQUESTS, DATA, LIMITS, RESULTS)
"""Groups of flags, in the order of the help."""


def _as_list(value: Any) -> Any:
    """A single value stands for a list of one, in YAML as on the command line."""
    return [value] if isinstance(value, (int, float, str)) else value


def _as_json(value: Any) -> Any:
    """A JSON object given as text, as EvalScope's `--extra-args` is."""
    if not isinstance(value, str):
        return value
    try:
        parsed = json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON ({error.msg} at character {error.pos + 1})") from None
    if not isinstance(parsed, dict):
        raise ValueError(f'a JSON object like {{"ignore_eos": true}} is needed, not {type(parsed).__name__}')
    return parsed


def _as_hourly(value: Any) -> Any:
    """`2.5/h`, or the number alone."""
    if not isinstance(value, str):
        return value
    try:
        return float(value.strip().removesuffix("/h"))
    except ValueError:
        raise ValueError("a price an hour is needed, for example 2.5/h") from None


_SECONDS = re.compile(r"([0-9]*\.?[0-9]+)(ms|s|m|h|)")
_UNITS = {"ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}


def as_seconds(value: Any) -> Any:
    """`30`, `30s`, `5m`, `1h`, `200ms`."""
    if not isinstance(value, str):
        return value
    found = _SECONDS.fullmatch(value.strip())
    if found is None:
        raise ValueError("a time is needed, for example 30s or 5m")
    return float(found[1]) * _UNITS[found[2]]


def _as_range(value: Any) -> Any:
    """`2`, `2s` or `1-5`: (lowest, highest) in seconds."""
    if not isinstance(value, str):
        return (value, value) if isinstance(value, (int, float)) else value
    low, dash, high = value.partition("-")
    found = as_seconds(low), as_seconds(high if dash else low)
    if found[0] > found[1]:
        raise ValueError("the lower end of the range comes first, for example 1-5")
    return found


def _as_whole_range(value: Any) -> Any:
    """`4`, or `2-8`: (fewest, most)."""
    if not isinstance(value, str):
        return (value, value) if isinstance(value, int) else value
    low, dash, high = value.partition("-")
    if not low.isdecimal() or not (high if dash else low).isdecimal():
        raise ValueError("a number or a range is needed, for example 4 or 2-8")
    if int(low) > int(high or low):
        raise ValueError("the lower end of the range comes first, for example 2-8")
    return int(low), int(high or low)


def _as_warmup(value: Any) -> Any:
    """A number of requests, a time such as `10s`, or `auto`."""
    if not isinstance(value, str) or value == "auto":
        return value
    if value.isdecimal():
        return int(value)
    try:
        return as_seconds(value)
    except ValueError:
        raise ValueError("a number of requests, a time such as 10s, or auto is needed") from None


Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Ints = Annotated[tuple[Positive, ...], BeforeValidator(_as_list), Field(min_length=1)]
Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_as_list)]
HourlyPrice = Annotated[float, BeforeValidator(_as_hourly), Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0)]
Rates = Annotated[
    tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...], BeforeValidator(_as_list), Field(min_length=1)
]
Duration = Annotated[float, BeforeValidator(as_seconds), Field(gt=0, allow_inf_nan=False)]
TimeSpan = Annotated[float, BeforeValidator(as_seconds), Field(ge=0, allow_inf_nan=False)]
TimeRange = Annotated[tuple[float, float], BeforeValidator(_as_range)]
WholeRange = Annotated[tuple[Positive, Positive], BeforeValidator(_as_whole_range)]
Warmup = Annotated[
    Literal["auto"] | NotNegative | Annotated[float, Field(ge=0, allow_inf_nan=False)], BeforeValidator(_as_warmup)
]
"""A number of requests, seconds as a float, or auto."""
Json = Annotated[dict[str, Any], BeforeValidator(_as_json)]
