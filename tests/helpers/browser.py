"""Chromium, and `oss-eval view` as a process."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.helpers.commands import ROOT

CHROMIUM = Path(os.environ.get("OSS_EVAL_CHROMIUM", "/usr/bin/chromium"))
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; skipped where there is none, which OSS_EVAL_BROWSER=required, as in CI, makes a failure."""
    if not CHROMIUM.exists():
        if os.environ.get("OSS_EVAL_BROWSER") == "required":
            pytest.fail(f"there is no Chromium at {CHROMIUM}")
        pytest.skip(f"there is no Chromium at {CHROMIUM} (Debian: apt install chromium)")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@contextlib.contextmanager
def viewer(results: Path, *words: str, **env: str) -> Iterator[str]:
    """The address of `oss-eval view` of a folder; it ends with the block, without a traceback."""
    command = [sys.executable, "-m", "oss_eval", "view", str(results), *words]
    with subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ, **env}
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert found, line + process.stderr.read()
        try:
            yield found.group()
        finally:
            process.terminate()
            code = process.wait(15)
        assert code == 0
        assert "Traceback" not in process.stderr.read()
