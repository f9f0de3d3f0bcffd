"""Writing runs: a part every second, merged every minute, and a journal of samples.

No file is overwritten or incomplete: each is written under a name that readers skip (a leading dot), synced to the
disk, and renamed. `kill -9`, a full disk or a power cut loses at most PART_SECONDS of finished requests, and no
sample.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from oss_eval.errors import StoreError
from oss_eval.records import RequestRecord, SampleRecord
from oss_eval.results import lock
from oss_eval.results.manifest import read_manifest
from oss_eval.results.model_name import short_model_name
from oss_eval.results.parquet import DAMAGE, MAX_BYTES
from oss_eval.results.part_files import (
    SCHEMAS,
    join,
    parts_of,
    read_part,
    repair,
    span,
    write_part,
    write_whole,
)
from oss_eval.results.reader import JOURNAL, read_journal, read_samples
from oss_eval.results.schema import SCHEMA_VERSION, SUMMARY
from oss_eval.results.tables import requests_table, samples_table

PART_SECONDS = 1.0
"""Finished requests are on disk after at most this time."""
PART_BYTES = MAX_BYTES // 2
"""Parts are not made larger than this, decoded: readers refuse more than MAX_BYTES."""
JOIN = 60
"""This many parts are merged into one; a long run would otherwise have tens of thousands of files."""


def new_run_id(kind: str, label: str) -> str:
    """`20261122-071203-perf-gpt-oss-20b-7f3a`: sorts by time (UTC), readable, unique."""
    clean = re.sub(r"[^A-Za-z0-9._-]+", "-", short_model_name(label).rsplit("/", 1)[-1]).strip("-.")[:40] or "run"
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{kind}-{clean}-{secrets.token_hex(2)}"


class RunWriter:
    """Writes one run; a lock keeps a second process from writing it too."""

    def __init__(self, out: Path, run_id: str, manifest: dict[str, Any]) -> None:
        """Create the run's folder. Raises StoreError."""
        path = out / run_id
        made_out = not out.exists()
        try:
            path.mkdir(parents=True)
            (path / "requests").mkdir()
        except OSError as error:
            raise StoreError(
                f"can't write results to {out}: {error.strerror}", "choose another folder with --out DIR"
            ) from None
        self._begin(path)
        self.manifest: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "run_id": run_id,
            "status": "running",
            **manifest,
        }
        self.run_id = run_id
        self._made_out = made_out
        self.write_manifest()

    @classmethod
    def reopen(cls, path: Path) -> RunWriter:
        """Reopen a stored run for a new session. Damaged parts are quarantined, and the rows of the journal become
        a part.

        Raises StoreError.
        """
        read_manifest(path)  # before anything is touched
        writer = cls.__new__(cls)
        writer._begin(path)
        try:
            writer._reopen(path)
        except OSError as error:
            writer.close()
            raise _refused(path, error) from None
        except BaseException:
            writer.close()
            raise
        return writer

    def _begin(self, path: Path) -> None:
        self.path = path
        self.session = 1
        """Number of this session; every row holds the one that wrote it."""
        self.quarantined: list[str] = []
        """Damaged parts, renamed when the run was reopened."""
        self._before: dict[str, Any] | None = None
        self._made_out = self._sealed = False
        self._rows: list[RequestRecord] = []
        self._samples: list[SampleRecord] = []
        self._last = time.monotonic()
        self._journal: int | None = None
        self._next: dict[str, int] = {}
        self._loose: dict[str, list[Path]] = {name: [] for name in SCHEMAS}
        """The latest parts, not merged yet."""
        self._lock = lock.hold(path)

    def _reopen(self, path: Path) -> None:
        self.manifest = read_manifest(path)
        self.run_id = self.manifest["run_id"]
        self.session = max(1, len(self.manifest.get("sessions", []))) + 1
        for name in SCHEMAS:
            self.quarantined += repair(path, name)
            for part in parts_of(path, name):  # what follows the last joined one
                alone = len(set(span(part))) == 1
                self._loose[name] = [*self._loose[name], part] if alone else []
            while len(self._loose[name]) >= JOIN:  # before the first request, because it takes time
                self._join(name)
        self._samples += read_journal(path)
        self.flush()
        self._before = dict(self.manifest)
        # From here on the session counts, even if it measures nothing.
        begun = {"started": datetime.now(UTC).isoformat()}
        first = {"started": self.manifest.get("created"), "command": self.manifest.get("command")}
        self.write_manifest(sessions=[*(self.manifest.get("sessions") or [first]), begun])
        if (path / JOURNAL).exists():
            os.truncate(path / JOURNAL, 0)  # half a line would swallow the next one

    def write_manifest(self, **changes: Any) -> None:
        """Merge changes into the manifest and write it. Raises StoreError."""
        self.manifest.update(changes)
        text = json.dumps(self.manifest, indent=2, ensure_ascii=False, default=str) + "\n"
        content = text.encode("utf-8", "replace")
        try:
            write_whole(self.path / "manifest.json", lambda file: file.write(content))
        except OSError as error:
            raise _refused(self.path, error) from None

    def add(self, record: RequestRecord) -> None:
        """Add a finished request; on disk within PART_SECONDS if `flush_due` is called in between."""
        record.session = self.session
        self._rows.append(record)

    def flush_due(self) -> None:
        """Write a part if the last one is old enough."""
        if (self._rows or self._samples) and time.monotonic() - self._last >= PART_SECONDS:
            self.flush()

    def add_sample(self, record: SampleRecord) -> None:
        """Add a finished sample; it is on disk when this returns. Raises StoreError."""
        line = json.dumps(asdict(record), ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
        self._samples.append(record)
        try:
            if self._journal is None:
                self._journal = os.open(self.path / JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            while line:
                line = line[os.write(self._journal, line) :]
        except OSError as error:
            raise _refused(self.path, error) from None

    def flush(self) -> None:
        """Write all rows as parts. Raises StoreError when the disk fails; the rows are then kept."""
        self._last = time.monotonic()
        try:
            if self._rows:
                self._write_part("requests", self._rows, requests_table)
            while self._samples:
                some = _beginning(self._samples)
                number = len(some)
                self._write_part("samples", some, samples_table)
                del self._samples[:number]
                if (self.path / JOURNAL).exists():
                    os.truncate(self.path / JOURNAL, 0)
        except OSError as error:
            raise _refused(self.path, error) from None
        for name, loose in self._loose.items():
            if len(loose) >= JOIN:
                self._join(name)

    def _write_part(self, name: str, rows: list[Any], table: Callable[[Any], pa.Table]) -> None:
        """Write a new part; its rows are removed from memory."""
        folder = self.path / name
        folder.mkdir(exist_ok=True)
        if name not in self._next:
            there = [*parts_of(self.path, name), *self.path.glob(f".{name}-part-*.damaged")]
            self._next[name] = 1 + max((span(part)[1] for part in there), default=-1)
        part = folder / f"part-{self._next[name]:06d}.parquet"
        write_part(table(rows), part)  # with Ctrl-C from here on, the same rows replace it
        self._next[name] += 1
        rows.clear()
        self._loose[name].append(part)

    def _join(self, name: str) -> None:
        """Merge sixty parts. If that fails, reading them is only slower."""
        some, self._loose[name] = self._loose[name][:JOIN], self._loose[name][JOIN:]
        with contextlib.suppress(*DAMAGE):
            tables = [read_part(part, SCHEMAS[name]) for part in some]
            if sum(table.nbytes for table in tables) <= PART_BYTES:
                join(some, tables, SCHEMAS[name])

    def seal(self) -> None:
        """Write the remaining rows and merge all parts: the run is complete. Raises StoreError."""
        self.flush()
        self._join("requests")
        samples = parts_of(self.path, "samples")
        if len(samples) > 1:  # there are few of them; of repeated samples the latest answer is kept
            with contextlib.suppress(*DAMAGE, StoreError):
                table = read_samples(self.path)
                if table.nbytes <= PART_BYTES:
                    join(samples, [table], SCHEMAS["samples"])
        self._sealed = True

    def finish(self, status: str, **changes: Any) -> None:
        """Write the final status into the manifest, after everything else. Raises StoreError."""
        if not self._sealed:
            self.seal()
        self.write_manifest(status=status, **changes)
        self.close()

    def leave(self) -> None:
        """Write the remaining rows and release the lock, without a summary. Raises StoreError."""
        try:
            self.flush()
        finally:
            self.close()

    def close(self) -> None:
        """Close the run's files and release its lock."""
        # Forgotten before they are closed: Ctrl-C may come between, and a second close must not close them again.
        descriptor, self._journal = self._journal, None
        if descriptor is not None:
            os.close(descriptor)
        journal = self.path / JOURNAL
        with contextlib.suppress(OSError):  # an empty journal does no harm
            if not journal.stat().st_size:
                journal.unlink()
        held, self._lock = self._lock, -1
        if held >= 0:
            lock.release(self.path, held)

    def undo(self) -> None:
        """Nothing was measured: remove a new run, or restore a resumed one. Raises StoreError."""
        if self._before is not None:
            self._rows.clear()  # of cancelled requests
            self.manifest = {**self._before, "sessions": self.manifest["sessions"]}
            self.finish(self._before["status"])
            return
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)
        if self._made_out:
            with contextlib.suppress(OSError):
                self.path.parent.rmdir()


def _beginning(samples: list[SampleRecord]) -> list[SampleRecord]:
    """The first samples, as many as one part may hold; at least one."""
    size = 0
    for number, sample in enumerate(samples):
        size += 4 * (len(sample.prompt or "") + len(sample.response or "") + len(sample.reasoning or ""))
        if size > PART_BYTES and number:
            return samples[:number]
    return samples[:]


def _refused(path: Path, error: OSError) -> StoreError:
    """The disk's error as a StoreError."""
    return StoreError(f"can't write to {path}: {error.strerror or error}")


def write_summary(path: Path, rows: list[dict[str, Any]], add: bool = False) -> None:
    """Write a run's summary table, or add rows to it. Raises StoreError."""
    table, file = pa.Table.from_pylist(rows, schema=SUMMARY), path / "summary.parquet"
    if add:
        table = pa.concat_tables([read_part(file, SUMMARY), table]).unify_dictionaries()
    try:
        write_part(table, file)
    except OSError as error:
        raise _refused(path, error) from None
