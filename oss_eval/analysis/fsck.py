"""`oss-eval fsck`: checks of a stored run. Reads everything, changes nothing."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from oss_eval.analysis import bench_summary, perf_summary
from oss_eval.errors import OssEvalError, StoreError
from oss_eval.results.lock import LEASE, LOCK
from oss_eval.results.manifest import has_older_intervals, read_begun_manifest
from oss_eval.results.mirror import SYNCED
from oss_eval.results.parquet import DAMAGE, ParquetFile
from oss_eval.results.part_files import READINGS, SCHEMAS, parts_of, superseded
from oss_eval.results.reader import (
    CLOSED,
    JOURNAL,
    KEY,
    LATER,
    MAX_JOURNAL,
    iter_requests,
    read_journal,
    read_requests,
    read_samples,
    read_summary,
    status_of,
)
from oss_eval.results.schema import REQUESTS, SAMPLES
from oss_eval.system.files import read_file

BAD, NOTE = "bad", "note"
STATUSES = ("ok", "error", "timeout", "cancelled")
SAME = 1e-9
"""Relative difference between a stored and a recomputed value that is only rounding."""
OURS_ONLY = ("true_", "cpu_us_per_token", "missing")
"""Prefixes of metrics that a calibration adds to its summary from the server's log."""
LATER_METRICS = {"reasoning_ms", "reasoning_tps", "chunk_gap_ms", "chunks_uncounted"}
"""Metrics that runs of older versions lack."""
LATER_STATS = re.compile(r"on_these|pass\^\d+|maj@\d+")
"""Statistics of scores that runs of 0.2 and before lack."""
COLUMNS = ("", " ci_low", " ci_high", " n")
LISTED = 5
"""Number of examples shown for one kind of problem."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem: `bad` for an error, `note` for an observation."""

    level: str
    where: str
    message: str


def examine(path: Path) -> list[Problem]:
    """All problems of the run in `path`. Raises StoreError for a manifest that can't be read."""
    manifest = read_begun_manifest(path)
    found = list(_manifest(path, manifest))
    found += _leftovers(path)
    tables = {"requests": REQUESTS}
    if manifest.get("kind") == "bench":
        tables["samples"] = SAMPLES
    tables |= {name: schema for name, schema in READINGS.items() if (path / name).is_dir()}
    readable = True
    for name, schema in tables.items():
        wrong = list(_parts(path, name, schema, manifest["run_id"]))
        readable = readable and not any(finding.level == BAD for finding in wrong)
        found += wrong
    if not readable:
        found.append(Problem(NOTE, "rows", "not looked at, because not all parts can be read"))
        return found
    found += _requests(path, manifest)
    if manifest.get("kind") == "bench":
        found += _samples(path, manifest)
    found += _summary(path, manifest)
    return found


def as_json(path: Path, found: list[Problem]) -> dict[str, Any]:
    """The result as a JSON document."""
    clean = not any(finding.level == BAD for finding in found)
    return {"run_id": path.name, "clean": clean, "findings": [asdict(finding) for finding in found]}


def _manifest(path: Path, manifest: dict[str, Any]) -> Iterator[Problem]:
    for name in ("run_id", "status", "kind"):
        if name not in manifest:
            raise StoreError(f"{path / 'manifest.json'} lacks {name}", "it is no manifest of oss-eval")
    if manifest["run_id"] != path.name:
        yield Problem(NOTE, "manifest.json", f"the folder was renamed: the run is {manifest['run_id']}")
    status = status_of(path, manifest)
    if status == "running":
        yield Problem(NOTE, "manifest.json", "the run is still going: look again when it has ended")
    elif status == "broken off":
        yield Problem(NOTE, "manifest.json", "the run broke off without being closed")
    if "points" not in manifest:
        yield Problem(NOTE, "manifest.json", "nothing was begun to be measured")


def _leftovers(path: Path) -> Iterator[Problem]:
    """Files of an interrupted write; readers skip them."""
    for file in sorted([*path.glob(".*"), *path.glob("*/.part-*")]):
        if file.name not in (LOCK, JOURNAL, SYNCED, LEASE):
            yield Problem(NOTE, str(file.relative_to(path)), "left over from a write that was interrupted")
    for name in SCHEMAS:
        for file in sorted(superseded(path, name)):
            yield Problem(NOTE, str(file.relative_to(path)), "left over from joining; its rows count once")
    journal = read_journal(path)
    try:
        lines = read_file(path / JOURNAL, MAX_JOURNAL).count(b"\n")
    except FileNotFoundError:
        lines = 0
    except OSError as error:
        yield Problem(BAD, JOURNAL, f"can't be read: {error.strerror}")
        return
    if journal:
        yield Problem(NOTE, JOURNAL, f"{len(journal)} samples are in the journal and in no part yet")
    if lines > len(journal):
        yield Problem(BAD, JOURNAL, f"{lines - len(journal)} of {lines} lines can't be read")


def _parts(path: Path, name: str, schema: pa.Schema, run_id: str) -> Iterator[Problem]:
    """Each file of a table: readable, with our columns, of this run."""
    if not (path / name).is_dir():
        yield Problem(BAD if name == "requests" else NOTE, name, "the folder is missing")
    for part in parts_of(path, name):
        where = f"{name}/{part.name}"
        try:
            with ParquetFile(part) as file:
                table = file.read()
            table.validate(full=True)
        except FileNotFoundError:
            yield Problem(NOTE, where, "was joined with others just now")
            continue
        except DAMAGE as error:
            words = str(error).splitlines() or [type(error).__name__]
            yield Problem(BAD, where, f"can't be read: {words[0]}")
            continue
        for field in schema:
            if field.name in LATER and field.name not in table.column_names:
                continue
            if field.name not in table.column_names:
                yield Problem(NOTE, where, f"has no column {field.name}: it was written by an older oss-eval")
            elif table.schema.field(field.name).type != field.type:
                kind = table.schema.field(field.name).type
                yield Problem(BAD, where, f"column {field.name} is {kind} instead of {field.type}")
        if "run_id" in table.column_names:
            others = {value for value in table["run_id"].to_pylist() if value != run_id}
            if others:
                yield Problem(BAD, where, f"holds rows of another run: {_examples(sorted(map(str, others)))}")


def _examples(rows: list[str]) -> str:
    more = f" and {len(rows) - LISTED:,} more" if len(rows) > LISTED else ""
    return ", ".join(rows[:LISTED]) + more


def _requests(path: Path, manifest: dict[str, Any]) -> Iterator[Problem]:
    """Each row: timestamps in order, consistent counts, no duplicates."""
    seen: Counter[tuple[str, int, int]] = Counter()
    finished: dict[str, set[str]] = defaultdict(set)
    wrong: dict[str, list[str]] = {}
    for table in iter_requests(path):
        for row in table.to_pylist():
            seen[row["request_id"], row["attempt"], row["session"] or 1] += 1
            if not row["warmup"] and (row["status"] != "cancelled" or row["error_kind"] == "abandoned"):
                finished[row["point_id"]].add(row["request_id"])
            for what in _row(row):
                wrong.setdefault(what, []).append(row["request_id"])
    for what, ids in wrong.items():
        yield Problem(BAD, "requests", f"{what}: {_examples(ids)}")
    twice = [f"{name} (attempt {attempt})" for (name, attempt, _), count in seen.items() if count > 1]
    if twice:
        yield Problem(BAD, "requests", f"stored more than once: {_examples(twice)}")
    measured = Counter({point: len(names) for point, names in finished.items()})
    yield from _counts("requests", measured, manifest, exact=manifest.get("kind") != "bench")


def _counts(table: str, counts: Counter[str], manifest: dict[str, Any], exact: bool = True) -> Iterator[Problem]:
    """Rows of each point against the plan; a run that was stopped may lack some."""
    # Of points that time ends, and of conversations, the number of requests is not planned.
    planned = {
        point["point_id"]: None if point.get("turns") else point.get("number")
        for point in manifest.get("points", [])
    }
    aside = {point["point_id"] for point in manifest.get("set_aside", [])}
    unknown = [name for name, count in counts.items() if name not in planned and name not in aside and count]
    if unknown:
        yield Problem(BAD, table, f"of a point that the manifest does not have: {_examples(unknown)}")
    for name, number in planned.items() if exact else ():
        if number is None:
            continue
        if counts[name] > number:
            yield Problem(BAD, table, f"{name}: {counts[name]} are stored, {number} were planned")
        elif counts[name] < number:
            level = BAD if manifest["status"] == "finished" else NOTE
            yield Problem(level, table, f"{name}: {counts[name]} of {number} are stored")


INSTANTS = ("start_ns", "headers_ns", "first_token_ns", "last_token_ns", "end_ns")


def _row(row: dict[str, Any]) -> Iterator[str]:
    """Contradictions within one request."""
    known = [row[name] for name in INSTANTS if row[name] is not None]
    if known != sorted(known):
        yield "timestamps out of order"
    events = row["event_ns"]
    if events is not None:
        if any(later < earlier for earlier, later in pairwise(events)):
            yield "token events out of order"
        if len(events) != row["n_events"]:
            yield "n_events is not the number of events"
        if events and row["first_token_ns"] is not None and row["first_token_ns"] - row["start_ns"] != events[0]:
            yield "first_token_ns is not the first event"
    if row["status"] not in STATUSES:
        yield f"status {row['status']!r}"
    elif (row["status"] == "ok") == (row["error_kind"] is not None):
        yield "a failure without a kind, or a success with one"


def _samples(path: Path, manifest: dict[str, Any]) -> Iterator[Problem]:
    """Samples against the plan and against their requests."""
    rows = read_samples(path, [*KEY, "request_id", "status", "score", "correct"]).to_pylist()
    yield from _counts("samples", Counter(row["point_id"] for row in rows), manifest)
    stored = set(read_requests(path, columns=["request_id"])["request_id"].to_pylist())
    lost = [row["request_id"] for row in rows if row["request_id"] and row["request_id"] not in stored]
    if lost:
        # A sample is on disk at once, its requests within a second: a crash comes between.
        crashed = manifest["status"] not in CLOSED or len(manifest.get("sessions", [])) > 1
        text = f"whose request is not stored: {_examples(lost)}"
        more = ", as after a crash: requests are written once a second, samples at once" if crashed else ""
        yield Problem(NOTE if crashed else BAD, "samples", text + more)
    odd = [str(row["sample_id"]) for row in rows if row["status"] != "ok" and row["score"] is not None]
    if odd:
        yield Problem(BAD, "samples", f"failed and scored nevertheless: {_examples(odd)}")


def _summary(path: Path, manifest: dict[str, Any]) -> Iterator[Problem]:
    """The stored summary against the one computed from the rows."""
    try:
        stored = _figures(read_summary(path))
    except StoreError as error:
        yield Problem(BAD, "summary.parquet", error.message)
        return
    if not stored:
        if manifest["status"] in CLOSED:
            yield Problem(BAD, "summary.parquet", "is missing")
        return
    if manifest["status"] not in CLOSED:
        yield Problem(NOTE, "summary.parquet", "is of before the run was resumed: its figures are not looked at")
        return
    try:
        if manifest["kind"] == "bench":
            groups = bench_summary.groups(read_samples(path), manifest)
            again = _figures(bench_summary.summary_rows(manifest, groups))
        else:
            again = _figures(perf_summary.summary_rows(perf_summary.load_run(path)))
    except OssEvalError as error:
        yield Problem(BAD, "summary.parquet", f"can't be computed again: {error.message}")
        return
    differing = []
    metrics = {key[2] for key in stored}
    older = has_older_intervals(manifest)
    for key, values in again.items():
        if key[2] in LATER_METRICS - metrics or (older and key not in stored and LATER_STATS.fullmatch(key[3])):
            continue
        if key not in stored:
            differing.append(f"{_named(key)} is missing (computed: {values[0]:.6g})")
            continue
        for name, one, two in zip(COLUMNS, stored[key], values, strict=True):
            if not _same(one, two) and not (older and name in COLUMNS[1:3]):
                differing.append(f"{_named(key)}{name} is {_text(one)}, computed {_text(two)}")
    differing += [
        f"{_named(key)} can't be computed from the rows"
        for key in stored
        if key not in again and not (manifest["kind"] == "calibrate" and key[2].startswith(OURS_ONLY))
    ]
    for text in differing[: 4 * LISTED]:
        yield Problem(BAD, "summary.parquet", text)
    if len(differing) > 4 * LISTED:
        yield Problem(BAD, "summary.parquet", f"{len(differing) - 4 * LISTED:,} more figures differ")


Key = tuple[str, str | None, str, str]


def _figures(rows: list[dict[str, Any]]) -> dict[Key, tuple[float, float | None, float | None, int]]:
    return {
        (row["point_id"], row["subset"], row["metric"], row["stat"]): (
            row["value"], row["ci_low"], row["ci_high"], row["n"],
        )
        for row in rows
    }  # fmt: skip


def _named(key: Key) -> str:
    return " ".join(filter(None, key))


def _text(value: float | None) -> str:
    return "absent" if value is None else f"{value:.9g}"


def _same(one: float | None, two: float | None) -> bool:
    if one is None or two is None:
        return one is two
    return math.isclose(one, two, rel_tol=SAME, abs_tol=1e-12) or (math.isnan(one) and math.isnan(two))
