"""What a command prints of a run, and the exit code that follows from it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oss_eval.cli.main import INTERRUPTED
from oss_eval.results.manifest import read_manifest
from oss_eval.run.lifecycle import RunResult, resume_hint
from oss_eval.system.signals import Interrupts
from oss_eval.system.terminal import json_text, open_console, print_error

if TYPE_CHECKING:
    from rich.console import Console

EXIT_CODES = {"finished": 0, "failed": 1, "interrupted": INTERRUPTED}


def finish(result: RunResult, arguments: argparse.Namespace) -> int:
    """Print a run that has just ended; returns its exit code, whatever becomes of the output."""
    print_result(result, arguments)
    if result.status != "finished":
        # A sweep without any success lacks nothing: resuming it would change nothing.
        reason = result.reason or "every request failed"
        with Interrupts() as interrupts, interrupts.deferred():
            print_error(reason, resume_hint(result.path) if result.reason else "")
    return EXIT_CODES[result.status]


def print_result(result: RunResult, arguments: argparse.Namespace) -> None:
    """The tables of a run that has just ended, unless it was aborted."""
    given = vars(arguments)
    if result.aborted:
        return
    try:
        print_run(result.path, given.get("json", False), given.get("grid", False))
        sys.stdout.flush()
    except KeyboardInterrupt:
        if result.status == "finished":
            raise
        # Interrupted once more: the hint how to resume is printed all the same.


def print_run(path: Path, as_document: bool, grid: bool = False) -> None:
    """A stored run: tables on standard output, or one JSON document there and the tables on standard error."""
    document, tables = _outputs(path, grid)
    if as_document:
        print_json(document())
    tables(open_console(stderr=as_document))
    sys.stderr.write(f"stored in {path}\n")


def print_json(document: Any) -> None:
    """One JSON document on standard output; control characters in its texts are escaped."""
    sys.stdout.write(json_text(document))


def _outputs(path: Path, grid: bool) -> tuple[Callable[[], Any], Callable[[Console], None]]:
    """(makes the JSON document, prints the tables) of a stored run."""
    manifest = read_manifest(path)
    kind = manifest["kind"]
    if kind == "bench":
        from oss_eval.report import bench

        return partial(bench.as_json, path), partial(bench.print_scoreboard, path, grid=grid)
    from oss_eval.analysis.perf_summary import as_json, load_run
    from oss_eval.report.perf import print_report

    report = load_run(path)
    if kind == "calibrate" and manifest["status"] == "finished":
        from oss_eval.diagnose.calibrate import as_rows, compare, print_calibration

        return lambda: {**as_json(report), "calibration": as_rows(compare(path))}, partial(print_calibration, path)
    return partial(as_json, report), partial(print_report, report)
