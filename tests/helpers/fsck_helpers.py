"""What the tests of fsck share."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from oss_eval.analysis.fsck import NOTE, examine
from tests.helpers.commands import ROOT

EXAMPLES = ROOT / "results" / "examples"


@pytest.fixture(params=["demo-a", "sweep-a"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return copied(request.param, tmp_path)


def copied(part: str, folder: Path) -> Path:
    [source] = [path for path in EXAMPLES.iterdir() if part in path.name]
    return Path(shutil.copytree(source, folder / "results" / source.name))


def notes(path: Path) -> list[str]:
    return [f"{finding.where}: {finding.message}" for finding in examine(path) if finding.level == NOTE]


def manifest(path: Path, **changes: object) -> None:
    file = path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
