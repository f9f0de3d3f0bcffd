"""What a command prints of a run, and the exit code that follows from it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oss_eval.cli.main import INTERRUPTED
from oss_eval.results.manifest import read_manifest
from oss_eval.results.mirror import place_of
from oss_eval.run.lifecycle import RunResult, resume_hint
from oss_eval.system.signals import Interrupts
from oss_eval.system.terminal import json_text, open_console, print_error

if TYPE_CHECKING:
    from rich.console import Console

    from oss_eval.analysis.gate import Condition
    from oss_eval.analysis.perf_summary import RunReport

EXIT_CODES = {"finished": 0, "failed": 1, "interrupted": INTERRUPTED}


def finish(result: RunResult, arguments: argparse.Namespace, conditions: Sequence[Condition] = ()) -> int:
    """Print a run that has just ended, and what became of its `--assert` conditions; returns its exit code,
    whatever becomes of the output."""
    print_result(result, arguments)
    if result.status != "finished":
        # A sweep without any success lacks nothing: resuming it would change nothing.
        reason = result.reason or "every request failed"
        with Interrupts() as interrupts, interrupts.deferred():
            print_error(reason, resume_hint(result.path) if result.reason else "")
    if conditions and result.status == "finished":
        return _judged(result.path, conditions)
    return EXIT_CODES[result.status]


def assertions(arguments: argparse.Namespace) -> list[Condition]:
    """The conditions of `--assert`. Raises UsageError."""
    given = vars(arguments).get("assertions", [])
    if not given:
        return []
    from oss_eval.analysis import gate

    return [gate.known(gate.parse(text, "--assert"), arguments.command) for text in given]


def _judged(path: Path, conditions: Sequence[Condition]) -> int:
    """Print what became of the conditions at each point of a finished run; returns the exit code."""
    from oss_eval.analysis import gate
    from oss_eval.analysis.point_name import point_title
    from oss_eval.report.compare import print_outcomes

    if read_manifest(path)["kind"] == "bench":
        from oss_eval.report.bench_json import task_groups

        points = [(point_title(g.task, g.effort, None), g.metrics()) for g in task_groups(path)]
    else:
        from oss_eval.analysis.perf_summary import load_run
        from oss_eval.analysis.repeats import pooled

        report = pooled(load_run(path, stored=True))  # they were computed a moment ago
        points = [
            (point_title(None, p.reasoning_effort, p.parallel, rate=p.rate), p.metrics) for p in report.points
        ]
    search = read_manifest(path).get("search")
    outcomes = []
    for condition in conditions:
        found = gate.on_search(condition, search)
        outcomes += gate.on_points(condition, points) if found is None else found
    print_outcomes([("--assert", outcome) for outcome in outcomes], open_console(stderr=True))
    return gate.exit_code([], outcomes)


def print_result(result: RunResult, arguments: argparse.Namespace) -> None:
    """The tables of a run that has just ended, unless it was aborted."""
    given = vars(arguments)
    if result.aborted:
        return
    try:
        print_run(result.path, given.get("json", False), given.get("grid", False), given.get("roofline", False))
        sys.stdout.flush()
    except KeyboardInterrupt:
        if result.status == "finished":
            raise
        # Interrupted once more: the hint how to resume is printed all the same.


def print_run(
    path: Path, as_document: bool, grid: bool = False, roofline: bool = False, gpu: str | None = None
) -> None:
    """A stored run: tables on standard output, or one JSON document there and the tables on standard error.

    `roofline`: with the bounds of a sweep, on the machine `gpu` where that is given.
    """
    document, tables = _outputs(path, grid, roofline, gpu)
    if as_document:
        print_json(document())
    tables(open_console(stderr=as_document))
    sys.stderr.write(f"stored in {place_of(path)}\n")


def print_json(document: Any) -> None:
    """One JSON document on standard output; control characters in its texts are escaped."""
    sys.stdout.write(json_text(document))


def _outputs(
    path: Path, grid: bool = False, roofline: bool = False, gpu: str | None = None
) -> tuple[Callable[[], Any], Callable[[Console], None]]:
    """(makes the JSON document, prints the tables) of a stored run."""
    manifest = read_manifest(path)
    kind = manifest["kind"]
    if kind == "bench":
        from oss_eval.report import bench, bench_json

        return partial(bench_json.as_json, path), partial(bench.print_scoreboard, path, grid=grid)
    from oss_eval.analysis.perf_summary import as_json, load_run
    from oss_eval.report.perf import print_report

    report = load_run(path)
    if gpu is not None:
        report.manifest["task"]["gpu"] = gpu
    if kind == "calibrate" and manifest["status"] == "finished":
        from oss_eval.diagnose.calibrate import as_rows, compare, print_calibration

        return lambda: {**as_json(report), "calibration": as_rows(compare(path))}, partial(print_calibration, path)
    return partial(_sweep_document, report), partial(print_report, report, roofline=roofline)


def _sweep_document(report: RunReport) -> dict[str, Any]:
    """The JSON of a sweep; `repeats` has repeats of a point put together."""
    from oss_eval.analysis.perf_summary import as_json, point_as_json
    from oss_eval.analysis.repeats import pooled
    from oss_eval.analysis.speed_bound import as_json as bound_as_json
    from oss_eval.analysis.speed_bound import bounds, deployment

    together = pooled(report)
    document = as_json(report)
    found = deployment(report.manifest, [p.metrics for p in report.points])
    if found is not None:
        known = bounds(found, report.points)
        document |= {"model_card": found.card.name, "model_doubt": found.doubt, "machine": found.machine.name}
        for entry in document["points"]:
            if (bound := known.get(entry["point_id"])) is not None:
                entry["bound"] = bound_as_json(bound)
    if together is not report:
        document["repeats"] = [{**point_as_json(p), "repeat": None, "repeats": p.repeats} for p in together.points]
    return document
