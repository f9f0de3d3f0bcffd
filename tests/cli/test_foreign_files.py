"""Runs that somebody else has made, or that are damaged: one is named, the others are shown, nothing hangs."""

from __future__ import annotations

import copy
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from oss_eval.analysis import fsck
from oss_eval.cli.output import _outputs
from oss_eval.errors import OssEvalError
from oss_eval.results.manifest import read_manifest
from oss_eval.results.parquet import ParquetFile
from oss_eval.viewer.page import Page
from oss_eval.viewer.query import PAGES, Query
from oss_eval.viewer.run_index import RunIndex
from tests.helpers.commands import ROOT
from tests.helpers.viewer_helpers import EXAMPLES, named, t

STRANGE: list[Any] = [
    None, 5, -1, 1e999, "", "x", "\ud800", [], ["x"], [[]], [None], [{"a": 1}], {}, {"x": 1}, {"x": {"y": []}}, True,
    "0001-01-01T00:00:00+14:00", 10**30, "9" * 5000,
]  # fmt: skip


def leaves(value: Any, path: tuple[Any, ...] = (), depth: int = 0) -> Iterator[tuple[Any, ...]]:
    """Paths to values to a depth of four; of lists the first item."""
    if path:
        yield path
    if depth == 4:
        return
    if isinstance(value, dict):
        for key, item in list(value.items()):
            yield from leaves(item, (*path, key), depth + 1)
    elif isinstance(value, list) and value:
        yield from leaves(value[0], (*path, 0), depth + 1)


def changed(manifest: dict[str, Any], path: tuple[Any, ...], value: Any, delete: bool = False) -> dict[str, Any]:
    found = copy.deepcopy(manifest)
    inner: Any = found
    for step in path[:-1]:
        inner = inner[step]
    if delete:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return found


def show_everywhere(run: Path, index: RunIndex) -> None:
    """What every command and page does with a run; it may raise OssEvalError."""
    readable = True
    for use in (_show, _show_json, lambda path: fsck.as_json(path, fsck.examine(path))):
        try:
            use(run)
        except OssEvalError:
            readable = False
    for page in PAGES if readable else ("runs", "about"):
        query = Query(page, (run.name,))
        drawn = import_module(f"oss_eval.viewer.pages.{page}").draw(index, query, t)
        assert isinstance(drawn, Page)
        html = str(drawn.value(query)["html"])
        html.encode()


def _show(path: Path) -> None:
    _, tables = _outputs(path, grid=False)
    tables(Console(file=io.StringIO(), width=100))


def _show_json(path: Path) -> None:
    import orjson

    document, _ = _outputs(path, grid=False)
    orjson.dumps(document())


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", [20, pytest.param(1, marks=pytest.mark.slow)], ids=["sample", "all"])
@pytest.mark.parametrize("name", ["demo-a", "sweep-a"])
def test_no_value_of_a_manifest_breaks_a_command_or_a_page(name: str, part: int, tmp_path: Path) -> None:
    run = tmp_path / named(name)
    shutil.copytree(EXAMPLES / named(name), run)
    other = tmp_path / named("sweep-b")
    shutil.copytree(EXAMPLES / named("sweep-b"), other)
    manifest = json.loads((run / "manifest.json").read_text())
    paths = list(leaves(manifest))
    assert len(paths) > 50
    broken = []
    for number, path in enumerate(paths[::part]):
        values = [STRANGE[(number + step) % len(STRANGE)] for step in range(2)]
        for value, delete in [*((value, False) for value in values), (None, True)]:
            if delete and isinstance(path[-1], int):
                continue
            text = json.dumps(changed(manifest, path, value, delete)).replace("Infinity", "1e999")
            (run / "manifest.json").write_text(text)
            index = RunIndex([tmp_path])
            try:
                show_everywhere(run, index)
                assert len(index.runs()) == 2
                assert not index.find(other.name).problems  # type: ignore[union-attr]
            except Exception as error:  # noqa: BLE001 (all of them are collected)
                broken.append((path, "deleted" if delete else value, f"{type(error).__name__}: {error}"[:200]))
    assert not broken, f"{len(broken)}: {broken[:12]}"


@pytest.mark.parametrize(
    "content",
    [b"[" * 4_000_000, b"5", b"null", b"[]", b'"x"', b"{}", b'{"schema_version": 1e999}', b'{"schema_version": "1"}',
     b'{"schema_version": NaN}', b"\xff\xfe", b'{"schema_version": 1, "run_id": "\\ud800", "status": 1, "kind": "perf"}',
     b'{"a":' * 100_000, b""],
    ids=range(13),
)  # fmt: skip
def test_a_manifest_that_is_none_is_named_and_the_rest_is_shown(content: bytes, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / named("sweep-b"), tmp_path / named("sweep-b"))
    (tmp_path / "20260101-000000-perf-x-0000").mkdir()
    (tmp_path / "20260101-000000-perf-x-0000" / "manifest.json").write_bytes(content)
    index = RunIndex([tmp_path])
    runs = {run.key: run for run in index.runs()}
    [problem] = runs["20260101-000000-perf-x-0000"].problems
    assert "manifest.json is damaged" in problem
    page = import_module("oss_eval.viewer.pages.runs").draw(index, Query("runs"), t).value(Query("runs"))["html"]
    assert "sweep-b" in page
    with pytest.raises(OssEvalError, match="is damaged"):
        read_manifest(tmp_path / "20260101-000000-perf-x-0000")


FIFOS = ["manifest.json", "summary.parquet", "requests/part-999999.parquet", ".lock", ".samples.jsonl"]


@pytest.mark.parametrize("place", FIFOS)
def test_a_fifo_is_not_waited_for(place: str, tmp_path: Path) -> None:
    run = tmp_path / "results" / named("sweep-a")
    shutil.copytree(EXAMPLES / named("sweep-a"), run)
    (run / place).unlink(missing_ok=True)
    os.mkfifo(run / place)
    for words in (["show", "last"], ["fsck", "last"], ["resume", "last"]):
        done = subprocess.run([sys.executable, "-m", "oss_eval", *words], cwd=tmp_path, timeout=30, text=True,
                              capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("words", [
    ["ask", "@fifo", "--url", "sim://instant"],
    ["ask", "@/dev/zero", "--url", "sim://instant"],
    ["perf", "--prompt", "@fifo", "--url", "sim://instant"],
    ["perf", "fifo.yaml", "--url", "sim://instant"],
    ["perf", "--endpoint", "x", "--endpoints", "fifo"],
    ["bench", "demo", "--data", "fifo.jsonl", "--url", "sim://instant"],
])  # fmt: skip
def test_a_fifo_or_a_device_as_input_is_refused(words: list[str], tmp_path: Path) -> None:
    for name in ("fifo", "fifo.yaml", "fifo.jsonl"):
        os.mkfifo(tmp_path / name)
    done = subprocess.run([sys.executable, "-m", "oss_eval", *words], cwd=tmp_path, timeout=30, text=True,
                          capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("oss-eval")


def peak_memory(folder: Path, *words: str) -> tuple[int, str, int]:
    """(exit code, errors, KiB of memory at the peak) of a command."""
    script = (
        "import sys; from oss_eval.cli.main import main; code = main(sys.argv[1:]); "
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr); sys.exit(code)"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not tell the memory of a process")
    done = subprocess.run([sys.executable, "-c", script, *words], cwd=folder, capture_output=True, text=True,
                          timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)  # fmt: skip
    return done.returncode, done.stderr, int(done.stderr.split()[-1])


def bomb(path: Path, column: str, table: pa.Table) -> None:
    """A small file in which one text is named by very many rows."""
    text = pa.array(["x" * 1_000_000] * 2_000, table.schema.field(column).type)
    rows = table.take([0] * 2_000)
    rows = rows.set_column(rows.column_names.index(column), column, text)
    pq.write_table(rows, path)
    assert path.stat().st_size < 200_000


@pytest.mark.slow
def test_a_small_file_that_stands_for_gigabytes_is_refused(tmp_path: Path) -> None:
    run = tmp_path / named("demo-a")
    shutil.copytree(EXAMPLES / named("demo-a"), run)
    for name, column in (("requests", "error_message"), ("samples", "response")):
        part = next((run / name).glob("*.parquet"))
        table = pq.read_table(part)
        bomb(run / name / "part-999998.parquet", column, table)
        with (
            ParquetFile(run / name / "part-999998.parquet") as file,
            pytest.raises(ValueError, match=r"2,0\d\d MB of data"),
        ):
            file.read()
        with ParquetFile(part) as file:
            assert file.read().to_pylist() == table.to_pylist()
    code, errors, peak = peak_memory(tmp_path, "show", str(run))
    assert code == 2
    assert "is damaged: it holds 2,0" in errors
    assert peak < 600_000


def test_of_a_large_dataset_only_the_rows_asked_for_are_read(tmp_path: Path) -> None:
    row = json.dumps({"q": "1+1? " + "x" * 1_000_000, "a": "2"})
    with (tmp_path / "large.jsonl").open("w") as file:
        for _ in range(600):
            file.write(row + "\n")
    (tmp_path / "mine.yaml").write_text(
        "kind: bench\ndataset: large.jsonl\nprompt: 'Hi {q}'\ntarget: a\nscorer: integer\nlimit: 1\nmax_tokens: 8\n"
    )
    code, errors, peak = peak_memory(tmp_path, "bench", "mine.yaml", "--url", "sim://instant")
    assert code == 0, errors
    assert peak < 400_000
