"""What can be set on a page, as data: the pages know nothing of Gradio, so a report needs none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Filter:
    """One filter of a page; its value travels in the address. Labels are English, translated where shown."""

    name: str
    label: str
    kind: Literal["text", "choice", "radio", "slider"]
    choices: tuple[tuple[str, str], ...] = ()
    """(label, value) pairs; those that depend on the runs come with the sheet."""
    default: str = ""
    most: float = 0.0
    step: float = 1.0
    info: str = ""
