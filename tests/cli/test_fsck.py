"""`oss-eval fsck` on runs made by the simulator, whole and damaged in every way it looks for."""

from __future__ import annotations

import json
from pathlib import Path

from oss_eval.analysis.fsck import examine
from tests.helpers.commands import Command
from tests.helpers.fsck_helpers import manifest, notes


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


def test_manifests(run: Path, oss_eval: Command) -> None:
    manifest(run, status="running")
    assert any("broke off" in text for text in notes(run))
    moved = run.rename(run.parent / "renamed")
    assert any(f"the folder was renamed: the run is {run.name}" in text for text in notes(moved))
    (moved / "manifest.json").write_text("{")
    done = oss_eval("fsck", str(moved))
    assert (done.returncode, "is damaged" in done.stderr) == (2, True)
