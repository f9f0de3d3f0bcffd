"""What the tests of viewer share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from oss_eval.viewer.i18n import words
from tests.helpers.commands import ROOT

EXAMPLES = ROOT / "results" / "examples"


t = words("en")


def named(part: str) -> str:
    [found] = [path.name for path in EXAMPLES.iterdir() if part in path.name]
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Our own copy of the examples."""
    return Path(shutil.copytree(EXAMPLES, tmp_path / "results"))
