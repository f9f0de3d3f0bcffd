"""`oss-eval fsck` on runs made by the simulator, whole and damaged in every way it looks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.helpers.commands import bad
from tests.helpers.fsck_helpers import copied, manifest, notes


def rewritten(path: Path, name: str, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Rows of a run's only part, changed."""
    [part] = (path / name).glob("*.parquet") if name != "summary" else [path / "summary.parquet"]
    table = pq.read_table(part)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), part)


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "order": (lambda r: r.update(end_ns=r["start_ns"] - 1), "timestamps out of order"),
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
