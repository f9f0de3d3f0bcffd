"""The filters of a page, as data: pages know nothing of Gradio, so the HTML report uses them too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Filter:
    """One filter of a page; its value is part of the query. Labels are English, translated where shown."""

    name: str
    label: str
    kind: Literal["text", "choice", "radio", "slider"]
    choices: tuple[tuple[str, str], ...] = ()
    """(label, value) pairs; those that depend on the runs come with the page."""
    default: str = ""
    most: float = 0.0
    step: float = 1.0
    info: str = ""
