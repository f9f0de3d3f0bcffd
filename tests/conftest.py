from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from oss_eval.analysis.fsck import BAD, examine
from oss_eval.probe.connection import Connection, Outcome
from oss_eval.probe.decode import Reply, ResponseDecoder
from oss_eval.probe.poller import Poller
from oss_eval.probe.target import Target, resolve
from oss_eval.records import RequestRecord
from oss_eval.simulator.process import running
from tests.scripted import ScriptedServer

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "PYTHONUNBUFFERED"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def fast_simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a simulator at 40 times the speed of the deployment."""
    with running("sim://gpt-oss-20b-h20?speed=40") as url:
        yield url


Command = Callable[..., subprocess.CompletedProcess[str]]


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


def worker_of(process: subprocess.Popen[Any]) -> int:
    """The process id of a run's only worker; the test is skipped, and the run ended, where it can't be told."""
    pids = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not pids.exists():
        process.kill()
        pytest.skip("this system does not list child processes")
    [worker] = [p for p in pids.read_text().split() if b"load.worker" in Path(f"/proc/{p}/cmdline").read_bytes()]
    return int(worker)


class Asked:
    """One exchange in this process: how it ended, and what was decoded."""

    def __init__(self, outcome: Outcome, record: RequestRecord, reply: Reply, connection: Connection) -> None:
        self.outcome, self.record, self.reply, self.connection = outcome, record, reply, connection


def ask(
    server: ScriptedServer,
    body: bytes = b"{}",
    times: int = 1,
    context: object = None,
    host: str | None = None,
    keep_text: bool = True,
    patient: bool = False,
    during: Callable[[Connection], object] | None = None,
) -> list[Asked]:
    """Exchanges over one connection, in turn."""
    name = host or server.host
    target = Target(name, server.port, context is not None, "/v1/chat/completions", (), resolve(name, server.port))

    async def go() -> list[Asked]:
        reads: list[tuple[int, int, bytes]] = []
        loop = asyncio.get_running_loop()
        poller = Poller(loop, patient=patient)
        connection = Connection(
            loop,
            poller,
            target,
            context,  # type: ignore[arg-type]
            lambda tag, kernel, seen, data: reads.append((kernel, seen, data)),
        )
        asked = []
        for number in range(times):
            reads.clear()
            if not connection.is_open:
                await connection.open(5)
            request = target.head() + b"Content-Length: %d\r\n\r\n" % len(body) + body
            exchange = asyncio.ensure_future(connection.exchange(number, request, lambda start: None))
            if during is not None:
                await asyncio.sleep(0.1)
                during(connection)
            outcome = await asyncio.wait_for(exchange, 10)
            record = blank_record(outcome.start_ns)
            decoder = ResponseDecoder(record, keep_text=keep_text)
            for kernel, seen, data in reads:
                decoder.feed(kernel, seen, data)
            decoder.finish(outcome.error_kind, outcome.error_message)
            asked.append(Asked(outcome, record, decoder.reply, connection))
        connection.close()
        poller.close()
        return asked

    return uvloop.run(go())


def blank_record(start_ns: int = 0) -> RequestRecord:
    return RequestRecord(
        run_id="r", point_id="p", request_id="p/0", worker=0, warmup=False, attempt=1, model="m",
        reasoning_effort=None, parallel=1, rate=None, scheduled_ns=None, start_ns=start_ns,
    )  # fmt: skip


@contextlib.contextmanager
def launched(folder: Path, *words: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """The command under way, as a user would have started it; it is ended with the block, if it has not."""
    process = subprocess.Popen(
        [sys.executable, "-m", "oss_eval", *words],
        cwd=folder,
        env={**os.environ, "COLUMNS": "160", "PYTHONPATH": str(ROOT), **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs of a shell ignore it
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def bad(run: Path) -> list[str]:
    """What fsck finds wrong with a run."""
    return [f"{finding.where}: {finding.message}" for finding in examine(run) if finding.level == BAD]


def ended(process: subprocess.Popen[str], timeout: float = 30) -> tuple[int, str, str]:
    """(exit code, output, errors) of a command that comes to its end."""
    out, err = process.communicate(timeout=timeout)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait for something that has to come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come in time"
        time.sleep(0.02)


def only_run(folder: Path) -> Path:
    """The folder of the one run that there is."""
    [found] = (folder / "results").iterdir()
    return found
