"""`oss-eval fsck` on runs made by the simulator, whole and damaged in every way it looks for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from oss_eval.analysis.fsck import NOTE, examine
from tests.conftest import ROOT, Command, bad

EXAMPLES = ROOT / "results" / "examples"


@pytest.fixture(params=["demo-a", "sweep-a"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return copied(request.param, tmp_path)


def copied(part: str, folder: Path) -> Path:
    [source] = [path for path in EXAMPLES.iterdir() if part in path.name]
    return Path(shutil.copytree(source, folder / "results" / source.name))


def notes(path: Path) -> list[str]:
    return [f"{finding.where}: {finding.message}" for finding in examine(path) if finding.level == NOTE]


def rewritten(path: Path, name: str, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Rows of a run's only part, changed."""
    [part] = (path / name).glob("*.parquet") if name != "summary" else [path / "summary.parquet"]
    table = pq.read_table(part)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), part)


def manifest(path: Path, **changes: object) -> None:
    file = path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_whole_runs_are_clean(run: Path, oss_eval: Command) -> None:
    assert examine(run) == []
    done = oss_eval("fsck", "last")
    assert (done.returncode, done.stdout) == (0, f"{run.name}: clean\n")
    done = oss_eval("fsck", "last", "--json")
    assert json.loads(done.stdout) == {"run_id": run.name, "clean": True, "findings": []}


def test_a_truncated_part_is_named_and_the_rest_still_looked_at(run: Path, oss_eval: Command) -> None:
    [part] = (run / "requests").glob("*.parquet")
    part.write_bytes(part.read_bytes()[:1000])
    (run / "requests" / ".part-000001.parquet").write_bytes(b"PAR1")
    done = oss_eval("fsck", "last")
    assert done.returncode == 1
    assert "bad   requests/part-000000.parquet: can't be read" in done.stdout
    assert "note  requests/.part-000001.parquet: left over from a write that was interrupted" in done.stdout


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "order": (lambda r: r.update(end_ns=r["start_ns"] - 1), "instants out of order"),
    "events": (lambda r: r.update(event_ns=[*r["event_ns"][1:], r["event_ns"][0]]), "token events out of order"),
    "count": (lambda r: r.update(n_events=r["n_events"] + 1), "n_events is not the number of events"),
    "first": (
        lambda r: r.update(event_ns=[x + 1 for x in r["event_ns"]]),
        "first_token_ns is not the first event",
    ),
    "kind": (lambda r: r.update(status="error"), "a failure without a kind"),
    "status": (lambda r: r.update(status="fine"), "status 'fine'"),
    "point": (lambda r: r.update(point_id="99-x"), "of a point that the manifest does not have: 99-x"),
    "run": (lambda r: r.update(run_id="another"), "holds rows of another run: another"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_wrong_rows_are_found(run: Path, what: str) -> None:
    change, words = CHANGES[what]
    rewritten(run, "requests", lambda rows: change(rows[-1]))
    assert any(words in text for text in bad(run)), bad(run)


def test_rows_that_are_there_twice_or_not_at_all(run: Path) -> None:
    rewritten(run, "requests", lambda rows: rows.append(dict(rows[-1])))
    assert any("stored more than once: " in text for text in bad(run))
    rewritten(run, "requests", lambda rows: [rows.pop(), rows.pop()])
    assert any("are stored" in text or "whose request is not stored" in text for text in bad(run))
    assert any("summary.parquet" in text for text in bad(run)) or "bench" in run.name


def test_a_run_that_was_stopped_may_lack_rows(tmp_path: Path) -> None:
    run = copied("sweep-a", tmp_path)
    rewritten(run, "requests", lambda rows: rows.pop())
    (run / "summary.parquet").unlink()
    manifest(run, status="interrupted")
    assert bad(run) == ["summary.parquet: is missing"]
    assert any("of 64 are stored" in text for text in notes(run))


def test_a_changed_figure_is_named_with_both_values(run: Path) -> None:
    rewritten(run, "summary", lambda rows: rows[3].update(value=rows[3]["value"] * 1.001))
    [text] = bad(run)
    assert " is " in text
    assert ", computed " in text
    rewritten(run, "summary", lambda rows: rows.pop(5))
    assert any(" is missing (computed: " in text for text in bad(run))


def test_answers_against_the_plan(tmp_path: Path) -> None:
    run = copied("demo-a", tmp_path)
    rewritten(run, "samples", lambda rows: rows.pop())
    assert any("samples: " in text and " of 36 are stored" in text for text in bad(run))
    rewritten(run, "samples", lambda rows: rows[0].update(status="error", score=1.0))
    assert any("failed and scored nevertheless" in text for text in bad(run))


def test_a_journal_that_was_not_emptied(tmp_path: Path) -> None:
    run = copied("demo-a", tmp_path)
    (run / ".samples.jsonl").write_text('{"half": \n')
    assert any("1 of 1 lines can't be read" in text for text in bad(run))


def test_manifests(run: Path, oss_eval: Command) -> None:
    manifest(run, status="running")
    assert any("broke off" in text for text in notes(run))
    moved = run.rename(run.parent / "renamed")
    assert any(f"the folder was renamed: the run is {run.name}" in text for text in notes(moved))
    (moved / "manifest.json").write_text("{")
    done = oss_eval("fsck", str(moved))
    assert (done.returncode, "is damaged" in done.stderr) == (2, True)
