"""Commands in a network namespace of their own, with nothing but a loopback interface."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.helpers.commands import ROOT


def in_own_network(folder: Path, script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A shell script with `words` as its arguments, once the loopback interface is up. Skips where that takes
    rights."""
    if subprocess.run(["unshare", "-rn", "sh", "-c", "ip link set lo up"], capture_output=True).returncode:
        pytest.skip("a network of one's own takes rights")
    return subprocess.run(
        ["unshare", "-rn", "sh", "-c", f"ip link set lo up && {script}", "sh", *words],
        cwd=folder, env={**os.environ, "COLUMNS": "160", "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=100,
    )  # fmt: skip
