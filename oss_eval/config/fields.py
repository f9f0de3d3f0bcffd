"""The types of a task's settings, and how a setting appears on the command line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

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
    return [value] if isinstance(value, (int, str)) else value


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


Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Ints = Annotated[tuple[Positive, ...], BeforeValidator(_as_list), Field(min_length=1)]
Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_as_list)]
HourlyPrice = Annotated[float, BeforeValidator(_as_hourly), Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0)]
Json = Annotated[dict[str, Any], BeforeValidator(_as_json)]
