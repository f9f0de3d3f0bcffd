"""Which runtime suits a model on a machine, as stated by the runtimes' own documentation and issues."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from oss_eval.models.card import ModelCard, plain
from oss_eval.models.machine import MachineCard

FILE = Path(__file__).parent / "reference" / "runtime_advice.yaml"


class RuntimeAdvice(BaseModel):
    """One piece of advice; empty conditions hold for all."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    models: tuple[str, ...] = ()
    """Begins of names of model cards."""
    machines: tuple[str, ...] = ()
    """Begins of names of machine cards."""
    architectures: tuple[str, ...] = ()
    weights: str | None = None
    """Number format of a checkpoint's experts or MLPs."""
    engines: tuple[str, ...] = ()
    since: str | None = None
    until: str | None = None
    """The last version of the engine that it holds for."""
    advice: str
    reason: str
    sources: tuple[str, ...]
    date: date


@lru_cache(maxsize=1)
def _all() -> tuple[RuntimeAdvice, ...]:
    return tuple(map(RuntimeAdvice.model_validate, yaml.safe_load(FILE.read_text(encoding="utf-8"))))


def advice_for(
    model: ModelCard, machine: MachineCard, engine: str | None = None, version: str | None = None
) -> list[RuntimeAdvice]:
    """Advice for a model on a machine: with an engine of that version, where they are known, else for all engines.

    Advice for single versions is left out where the version is not known. That for any engine, which is about the
    choice of one, comes last.
    """
    found = [row for row in _all() if _suits(row, model, machine)]
    if engine is not None:
        found = [row for row in found if not row.engines or plain(engine) in map(plain, row.engines)]
        found = [row for row in found if _in_force(row, version)]
    else:
        found = [row for row in found if row.until is None]
    return sorted(found, key=lambda row: not row.engines)


def _suits(row: RuntimeAdvice, model: ModelCard, machine: MachineCard) -> bool:
    begins = (("models", model.name), ("machines", machine.name))
    if any(
        getattr(row, field) and not any(plain(name).startswith(plain(begin)) for begin in getattr(row, field))
        for field, name in begins
    ):
        return False
    formats = {model.weights.get("experts"), model.weights.get("mlp")}
    return not (
        (row.architectures and machine.architecture not in row.architectures)
        or (row.weights is not None and row.weights not in formats)
    )


def _in_force(row: RuntimeAdvice, version: str | None) -> bool:
    own = _numbers(version)
    if own is None:
        return row.until is None
    since, until = _numbers(row.since), _numbers(row.until)
    return (since is None or own >= since) and (until is None or own[:3] <= until[:3])


def _numbers(version: str | None) -> tuple[int, ...] | None:
    """(0, 10, 1) of `0.10.1+gptoss`; None of a version that does not begin with numbers, such as a build's."""
    found = re.match(r"v?(\d+(?:\.\d+)+)", version or "")
    if found is None:
        return None
    numbers = tuple(map(int, found[1].split(".")))
    return numbers + (0,) * (3 - len(numbers))
