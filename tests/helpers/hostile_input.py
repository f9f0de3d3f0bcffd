"""What gets in from outside, each as a function of bytes that may raise OssEvalError and nothing else.

Shared by the property tests (`test_hostile`) and by the fuzzer (`scripts/fuzz.py`).
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from urllib.parse import quote

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from oss_eval.analysis import fsck, perf_summary
from oss_eval.analysis.bench_summary import groups
from oss_eval.bench.scoring.leaks import final_text
from oss_eval.bench.scoring.scorers import MAY_HANG, SCORERS
from oss_eval.cli.output import _outputs
from oss_eval.config.bench_task import BenchTask
from oss_eval.config.perf_task import PerfTask
from oss_eval.config.task import validated
from oss_eval.config.task_files import read_task
from oss_eval.endpoint import profiles
from oss_eval.endpoint.discovery import model_names
from oss_eval.errors import OssEvalError
from oss_eval.load.workers.in_flight import InFlight
from oss_eval.load.workers.messages import Batch
from oss_eval.probe.apis import DIALECTS
from oss_eval.probe.decode_options import DecodeOptions
from oss_eval.probe.reads import ReadBuffer
from oss_eval.probe.sse import LineDecoder, SseDecoder
from oss_eval.records import RequestRecord
from oss_eval.results import reader
from oss_eval.simulator.process import parse_sim_url
from oss_eval.system.terminal import json_text, open_console, printable
from oss_eval.viewer.guard import Guard
from oss_eval.viewer.run_index import StoredRun

ROOT = Path(__file__).parent.parent.parent
BUDGET = 5.0
"""Seconds of this process's own computing for one input: whatever needs more hangs."""


class Hang(BaseException):
    """An input took more than its budget."""


@contextlib.contextmanager
def budget(seconds: float = BUDGET) -> Iterator[None]:
    """End with Hang what computes for longer. What it costs, not how long it takes: a busy machine changes nothing."""

    def stop(number: int, frame: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def cuts(data: bytes) -> list[bytes]:
    """The bytes after the first, cut into pieces whose length the first one says."""
    size = data[0] + 1 if data else 1
    rest = data[1:]
    return [rest[start : start + size] for start in range(0, len(rest), size)]


# -- the wire ---------------------------------------------------------------------------------------------------


def sse(data: bytes) -> None:
    """However it is cut, it is the same events."""
    decoder, whole = SseDecoder(), SseDecoder()
    found = [event for piece in cuts(data) for event in decoder.feed(piece)]
    assert found == whole.feed(data[1:])


def lines(data: bytes) -> None:
    decoder, whole = LineDecoder(), LineDecoder()
    found = [line for piece in cuts(data) for line in decoder.feed(piece)]
    assert found == whole.feed(data[1:])


def blank(number: int = 0) -> RequestRecord:
    return RequestRecord(
        run_id="r", point_id="p", request_id=f"p/{number}", worker=0, warmup=False, attempt=1, model="m",
        reasoning_effort=None, parallel=1, rate=None, scheduled_ns=None, start_ns=1_000,
    )  # fmt: skip


def response(data: bytes) -> None:
    """Whatever a server sends, there is a record, its instants are in order and it can be stored."""
    api = sorted(DIALECTS)[data[0] % len(DIALECTS)] if data else "chat"
    reading = DecodeOptions(api, split_think=bool(data) and data[0] > 127, most_bytes=1 << 20)
    ended: list[RequestRecord] = []
    replies = InFlight(
        lambda worker, tag, attempt, start, server, scheduled: reading.decoder(blank(), keep_text=True),
        lambda tag, decoder, record: ended.append(record),
    )
    batch, reads = Batch(started=[(1, 1, 1_000, 0, None)]), ReadBuffer()
    for number, piece in enumerate(cuts(data[1:])):
        reads.append(1, 2_000 + number, 2_001 + number, piece)
    batch.rows, batch.data = reads.take()
    batch.ended.append((1, 1, 1_000, 10**9, None, None, 0, None))
    replies.take(0, batch)
    [record] = ended
    assert record.status in ("ok", "error")
    assert (record.status == "ok") == (record.error_kind is None)
    known = [record.start_ns, record.headers_ns, record.first_token_ns, record.last_token_ns, record.end_ns]
    instants = [instant for instant in known if instant is not None]
    assert instants == sorted(instants)
    from oss_eval.results.tables import requests_table

    requests_table([record])


def body(data: bytes) -> None:
    """A whole stream's body behind a head that is right: deeper than `response` gets by chance."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in cuts(data[1:]) if piece]
    response(data[:1] + b"\xff" + head + b"".join(pieces) + b"0\r\n\r\n")


# -- files ------------------------------------------------------------------------------------------------------


@cache
def scratch() -> Path:
    return Path(tempfile.mkdtemp(prefix="oss-eval-hostile-"))


def task_file(data: bytes) -> None:
    path = scratch() / "task.yaml"
    path.write_bytes(data)
    values = read_task(path)
    for kind in (PerfTask, BenchTask):
        with contextlib.suppress(OssEvalError):
            validated(kind, values, "oss-eval")  # type: ignore[type-var]


def endpoint_file(data: bytes) -> None:
    path = scratch() / "endpoints.yaml"
    path.write_bytes(data)
    before, profiles.PROFILE_FILES = profiles.PROFILE_FILES, (path,)
    try:
        profiles.profile_access("a", profiles.profile("a"))
    finally:
        profiles.PROFILE_FILES = before


@cache
def example(part: str) -> Path:
    [found] = [path for path in (ROOT / "results" / "examples").iterdir() if part in path.name]
    copy = scratch() / found.name
    shutil.copytree(found, copy)
    return copy


def parquet(data: bytes) -> None:
    """A stored run with bytes of its files changed: (where, what) pairs of three bytes each."""
    for part, name in (("sweep-a", "requests"), ("demo-a", "samples"), ("sweep-a", "summary.parquet")):
        run = example(part)
        [file] = (run / name).glob("*.parquet") if (run / name).is_dir() else [run / name]
        content = file.read_bytes()
        try:
            changed = bytearray(content)
            for at in range(0, len(data) - 2, 3):
                place = int.from_bytes(data[at : at + 2], "big")
                # The last kilobytes are the footer, which says where everything is: half of the changes go there.
                changed[-1 - place % 4096 if place % 2 else place * 7919 % len(changed)] = data[at + 2]
            file.write_bytes(bytes(changed[: len(changed) - (data[0] if len(data) % 5 == 1 else 0)]))
            reads = [reader.read_requests, reader.read_samples, reader.read_summary, fsck.examine]
            for read in reads if name == "samples" else [*reads, perf_summary.load_run]:
                with contextlib.suppress(OssEvalError):
                    read(run)  # type: ignore[operator]
            with contextlib.suppress(OssEvalError):
                groups(reader.read_samples(run), None)
            reader.count_rows(run, "requests")
        finally:
            file.write_bytes(content)


# -- texts ------------------------------------------------------------------------------------------------------


def answer(data: bytes) -> None:
    """Extraction of answers; what may hang by its nature runs in a process that is ended (see `bench.grader`)."""
    text = data.decode("utf-8", "replace")
    response, _, target = text.partition("\x00")
    final_text(response)
    for name, scorer in SCORERS.items():
        if name not in MAY_HANG:
            grade = scorer(response, target or "42", bool(len(data) % 2), {})
            assert grade.score is None or 0 <= grade.score <= 1


def simulator_url(data: bytes) -> None:
    parse_sim_url("sim://paced?" + data.decode("latin-1"))


@cache
def library() -> object:
    from oss_eval.viewer.run_index import RunIndex

    for part in ("sweep-a", "sweep-b", "demo-a", "demo-b"):
        example(part)
    return RunIndex([scratch()])


PAGES = ("runs", "scores", "samples", "perf", "requests", "compare", "about")


def address(data: bytes) -> None:
    """Any query string of the viewer is a page."""
    from oss_eval.viewer.i18n import words
    from oss_eval.viewer.query import Query

    text = data[1:].decode("latin-1")
    runs_named = ",".join(run.key for run in library().runs())  # type: ignore[attr-defined]
    query = f"?show={PAGES[data[0] % 7] if data else 'runs'}&{text}"
    if data and data[0] > 127:
        query += f"&runs={quote(runs_named)}"
    found = Query.parse(query)
    str(found)
    import_module(f"oss_eval.viewer.pages.{found.page}").draw(library(), found, words("en"))


def manifest(data: bytes) -> None:
    """A stored run whose manifest is these bytes, or has some of its own replaced by them."""
    run = example("sweep-a")
    file = run / "manifest.json"
    content = file.read_bytes()
    changed = data[1:]
    if data and data[0] % 4:
        place = int.from_bytes(data[1:3], "big") % len(content)
        changed = content[:place] + data[3:] + content[place + (len(data[3:]) if data[0] % 4 == 1 else 1) :]
    try:
        file.write_bytes(changed)
        for read in (_shown, lambda path: fsck.as_json(path, fsck.examine(path))):
            with contextlib.suppress(OssEvalError):
                read(run)
        found = StoredRun(run.name, run, ())
        assert found.problems or found.manifest
        assert all(isinstance(text, str) for text in (found.created, found.label, found.model, found.task))
    finally:
        file.write_bytes(content)


def _shown(path: Path) -> None:
    document, tables = _outputs(path, grid=False)
    orjson.dumps(document())
    tables(Console(file=io.StringIO(), width=80))


def models(data: bytes) -> None:
    """The body of a response to GET /models, as it is and within a list."""
    for body in (data, b'{"data": [{"id": %s}]}' % data, b'{"data": %s}' % data):
        names = model_names(body)
        assert names is None or all(isinstance(name, str) for name in names)


OURS = re.compile(r"\x1b\[[0-9;]*m")
FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def terminal(data: bytes) -> None:
    """No control byte of a text survives, neither written plainly nor by rich with styles."""
    text = data.decode("utf-8", "surrogateescape") + data.decode("latin-1")
    assert not FORBIDDEN.search(printable(text))
    before, sys.stdout = sys.stdout, io.StringIO()
    try:
        console = open_console(force_terminal=True, color_system="standard", width=60)
        table = Table(title=Text(text))
        table.add_column(Text(text))
        table.add_row(Text(text, "bold red"))
        console.print(table)
        console.print(text, markup=False)
        written = sys.stdout.getvalue()
    finally:
        sys.stdout = before
    assert not FORBIDDEN.search(OURS.sub("", written)), repr(written[:200])
    assert not FORBIDDEN.search(json_text({"text": data.decode("utf-8", "replace")}))


def host(data: bytes) -> None:
    """A viewer on loopback is asked under a name; only its own ones are answered."""
    name = data.decode("latin-1")
    guard = Guard(None, "127.0.0.1", ["known.example"], share=False)  # type: ignore[arg-type]
    scope = {"path": "/", "method": "GET", "headers": [(b"host", data)]}
    refused = guard._refused(scope, {"host": name})
    bare = name.strip().lower().rpartition(":")[0] or name.strip().lower() if ":" in name else name.strip().lower()
    own = ("localhost", "known.example", "127.", "[", ":", "::")
    if not bare.startswith(own) and not name.strip().lower().startswith(own):
        assert refused is not None, name
        assert refused[0] == 403


TARGETS: dict[str, Callable[[bytes], None]] = {
    "sse": sse, "lines": lines, "response": response, "body": body, "task_file": task_file,
    "endpoint_file": endpoint_file, "parquet": parquet, "answer": answer, "simulator_url": simulator_url,
    "address": address, "manifest": manifest, "models": models, "terminal": terminal, "host": host,
}  # fmt: skip


def attempt(name: str, data: bytes) -> None:
    """One input for one target, within its budget; what users are told is no failure."""
    with budget(), contextlib.suppress(OssEvalError):
        TARGETS[name](data)
