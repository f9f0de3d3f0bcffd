"""Fixtures of all tests; tests/README.md lists them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from oss_eval.simulator.process import running
from tests.helpers.commands import ROOT, Command

pytest_plugins = [
    f"tests.helpers.{name}"
    for name in ("bench_helpers", "browser", "fsck_helpers", "llama_cpp", "ray_cluster", "s3", "viewer_helpers")
]
FOLDERS = ("unit", "server", "cli", "browser", "cluster", "engine", "images")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by its folder: `-m unit`, `-m "server or cli"`. Those with servers in the process run alone."""
    for item in items:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        if folder in FOLDERS:
            item.add_marker(folder)
        if folder == "server":
            item.add_marker("alone")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "PYTHONUNBUFFERED"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def fast_simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a simulator at 40 times the speed of the deployment."""
    with running("sim://gpt-oss-20b-h20?speed=40") as url:
        yield url


@pytest.fixture
def oss_eval(tmp_path: Path) -> Command:
    """Runs the command as a user would, in an empty folder."""

    def call(*words: str, timeout: float = 60, **env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "oss_eval", *words],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "160", "PYTHONPATH": str(ROOT), **env},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return call
