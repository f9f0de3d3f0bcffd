"""The simulator: its model against the published sweep, and its server as a client sees it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.helpers.commands import ROOT, Command


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_server_command_ends_when_told(number: int) -> None:
    command = [sys.executable, "-m", "oss_eval", "simulate", "--port", "0", "--profile", "instant"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert "simulating instant" in process.stderr.readline()
        assert "http://127.0.0.1:" in process.stderr.readline()
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


def test_an_answer_of_the_simulator_says_that_it_is_one(oss_eval: Command, fast_simulator: str) -> None:
    started = oss_eval("ask", "Why is the sky blue?", "--url", "sim://gpt-oss-20b-h20?speed=40")
    assert "SIMULATED by sim://gpt-oss-20b-h20?speed=40, no model is run" in started.stderr
    for api in ("chat", "completions", "responses", "ollama"):
        done = oss_eval(
            "ask", "Why is the sky blue?", "--url", fast_simulator, "--api", api, "--max-tokens", "900"
        )
        assert done.returncode == 0, done.stderr
        assert "This text is simulated: no model has run" in done.stdout
