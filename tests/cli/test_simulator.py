"""The simulator: its model against the published sweep, and its server as a client sees it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.helpers.commands import ROOT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_server_command_ends_when_told(number: int) -> None:
    command = [sys.executable, "-m", "oss_eval", "simulate", "--port", "0", "--profile", "instant"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert "simulating instant" in process.stderr.readline()
        assert "http://127.0.0.1:" in process.stderr.readline()
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""
