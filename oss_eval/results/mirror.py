"""The copy on this machine of results in an object store: what every command reads and writes.

A run is written here, crash-safe as any other, and its files are uploaded as they become complete (see `upload`).
So the store has what had ended a moment ago, whatever becomes of this machine; and what could not be uploaded is
still here, and is uploaded by the next command that names the store.

    FOLDER/.store             the URL
    FOLDER/RUN/...            as in any results folder
    FOLDER/RUN/.synced.json   what is known to be in the store
    FOLDER/RUN/.lease.json    who writes it elsewhere

Files have their names when they are complete, and parts never change, so a reader of the store sees a run that is
whole up to some moment: new parts come before the manifest, and merged ones before the small ones are removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from oss_eval.errors import OssEvalError, StoreError
from oss_eval.results.lock import LEASE, LEASE_SECONDS, fresh_lease, is_locked
from oss_eval.results.object_store import NAME, SCHEME, ObjectStore, Signature, public_place
from oss_eval.system.files import read_file

MARK = ".store"
SYNCED = ".synced.json"
LAST = ("summary.parquet", "manifest.json")
"""Uploaded and downloaded after the rest, in this order."""
AT_THE_END = ("truth.jsonl", "answers.jsonl")
"""Grow while a run is measured, and are uploaded when it has ended."""
LOOK_SECONDS = 3.0
"""Between two looks at a run that is being written elsewhere."""
ENDED_SECONDS = 60.0
"""Between two looks at one that has ended: it may be resumed."""
CLOSE_SECONDS = 3.0


def results_folder(place: str | Path) -> Path:
    """The folder on this machine for a folder or a URL; that of a URL is made, with the URL in it."""
    text = str(place)
    if not SCHEME.match(text):
        return Path(text)
    if text.lower().startswith("file://"):
        return Path(text[len("file://") :])
    url = text.rstrip("/")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "oss-eval" / "stores"
    readable = re.sub(r"[^A-Za-z0-9]+", "-", public_place(url)).strip("-")[:60]
    folder = cache / f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (folder / MARK).exists():
            (folder / MARK).touch(0o600)  # the URL may hold keys
            (folder / MARK).write_text(url)
    except OSError as error:
        raise StoreError(
            f"can't write to {folder}: {error.strerror}", "set XDG_CACHE_HOME to a folder that can be written"
        ) from None
    return folder


def mirror_of(folder: Path) -> Mirror | None:
    """The mirror in a folder; None for a folder of results that are here only. Raises OssEvalError."""
    try:
        url = read_file(folder / MARK, 10_000).decode()
    except (OSError, UnicodeDecodeError):
        return None
    return Mirror(folder, ObjectStore(url))


def place_of(path: Path) -> str:
    """A path of results as users name it: in a mirror, the URL."""
    for folder, rest in ((path, ""), (path.parent, f"/{path.name}")):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return public_place(read_file(folder / MARK, 10_000).decode()) + rest
    return str(path)


class Mirror:
    """A folder, and the store that it mirrors. Methods raise StoreError."""

    def __init__(self, folder: Path, store: ObjectStore) -> None:
        self.folder, self.store = folder, store

    def runs(self) -> list[str]:
        """All runs, in the store or still waiting to be uploaded, sorted."""
        here = {path.parent.name for path in self.folder.glob("*/manifest.json")}
        return sorted(here & self.waiting() | set(self.store.runs()))

    def waiting(self) -> set[str]:
        """Runs that are not completely uploaded, and that no process on this machine writes."""
        here = [path.parent for path in self.folder.glob("*/manifest.json")]
        return {run.name for run in here if not is_locked(run) and _changed(run, _synced(run))}

    def pull(self, run: str) -> Path:
        """The folder of a run, as the store has it now; what waits to be uploaded is uploaded first."""
        path = self.folder / run
        if is_locked(path):
            return path  # it is written here
        known = _synced(path)
        if (path / "manifest.json").exists() and _changed(path, known):
            if self.store.signature(run, "manifest.json") == known.get("manifest.json", {}).get("remote"):
                self.push(path)
            else:  # it was resumed elsewhere: what is here and not there was asked again
                path.rename(path.with_name(f".{run}-{time.time_ns()}"))
        return self._download(run, path)

    def _download(self, run: str, path: Path) -> Path:
        for _ in range(3):
            files, known = self.store.files(run), _synced(path)
            if "manifest.json" not in files:
                raise NoRun(f"{self.store.url}/{run} is no run: it has no manifest.json")
            gone = False
            for name in sorted(files, key=_order):
                here = _signature(path / name)
                entry = known.get(name, {})
                if here is not None and entry.get("remote") == files[name] and entry.get("local") == here:
                    continue
                try:
                    self.store.get(run, name, path / name)
                except FileNotFoundError:  # merged just now
                    gone = True
                    break
                known[name] = {"remote": files[name], "local": _signature(path / name)}
            if gone:
                continue
            for name in set(known) - set(files):
                (path / name).unlink(missing_ok=True)
                del known[name]
            _write(path / SYNCED, json.dumps(known).encode())
            lease = self.store.read(run, LEASE)
            if lease is None:
                (path / LEASE).unlink(missing_ok=True)
            else:
                _write(path / LEASE, lease)
            return path
        raise StoreError(f"{self.store.url}/{run} changes faster than it can be read", "try again")

    def push(self, path: Path, ended: bool = True) -> None:
        """Upload what has changed in a run's folder; `ended`: also files that grow while it is measured."""
        known, run = _synced(path), path.name
        for name in _changed(path, known, ended):
            here = _signature(path / name)
            try:
                self.store.put(run, name, path / name)
            except FileNotFoundError:  # merged just now
                continue
            # Of parts the store's time is not asked: they never change.
            remote = self.store.signature(run, name) if "/" not in name else None
            known[name] = {"local": here, "remote": remote}
            _write(path / SYNCED, json.dumps(known).encode())
        for name in [name for name in known if not (path / name).exists()]:
            self.store.delete(run, name)
            del known[name]
            _write(path / SYNCED, json.dumps(known).encode())

    @contextlib.contextmanager
    def following(self, say: Callable[[str], None]) -> Iterator[None]:
        """Keep the folder as the store is, newest runs first, while the context is open. Raises StoreError for a
        store that can't be read."""
        self.store.runs()
        ends = threading.Event()
        thread = threading.Thread(target=self._follow, args=(ends, say), name="follow", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ends.set()
            thread.join(CLOSE_SECONDS)

    def _follow(self, ends: threading.Event, say: Callable[[str], None]) -> None:
        failed = False
        looked: dict[str, float] = {}
        while not ends.is_set():
            try:
                runs = self.store.runs()
                for run in sorted(runs, reverse=True):
                    if ends.is_set():
                        return
                    every = LOOK_SECONDS if _runs(self.folder / run) else ENDED_SECONDS
                    if time.monotonic() >= looked.get(run, -ENDED_SECONDS) + every:
                        looked[run] = time.monotonic()
                        with contextlib.suppress(NoRun):
                            self.pull(run)
                for path in self.folder.glob("*/manifest.json"):
                    run = path.parent.name
                    if (
                        run not in runs
                        and not is_locked(path.parent)
                        and not _changed(path.parent, _synced(path.parent))
                    ):
                        shutil.rmtree(path.parent, ignore_errors=True)  # deleted from the store
                failed = False
            except OssEvalError as error:
                if not failed:
                    say(error.message)
                failed = True
            ends.wait(LOOK_SECONDS)

    def _forget(self, runs: list[str]) -> None:
        """Remove the copies of runs that were deleted from the store."""
        for path in [manifest.parent for manifest in self.folder.glob("*/manifest.json")]:
            if path.name not in runs and not is_locked(path) and not _changed(path, _synced(path)):
                shutil.rmtree(path, ignore_errors=True)

    def check_lease(self, run: str) -> None:
        """Raise StoreError naming the holder while a process elsewhere writes the run."""
        found = fresh_lease(self.store.read(run, LEASE) or b"")
        if found is not None:
            raise StoreError(
                f"{run} is being written by {found}",
                f"wait until that run has ended; a process that died is known after {LEASE_SECONDS:.0f} s",
            )


class NoRun(StoreError):
    """A folder without a manifest."""


def _runs(path: Path) -> bool:
    """Whether a run is being written elsewhere, as far as is known."""
    try:
        return fresh_lease(read_file(path / LEASE, 10_000)) is not None
    except OSError:
        return False


def _order(name: str) -> tuple[int, str]:
    return (LAST.index(name) + 1 if name in LAST else 0, name)


def _changed(path: Path, known: dict[str, Any], ended: bool = True) -> list[str]:
    """Files that the store does not have as they are here, in the order of their upload."""
    names = [file.relative_to(path).as_posix() for file in [*path.glob("*"), *path.glob("*/*")] if file.is_file()]
    return sorted(
        (
            name
            for name in names
            if NAME.fullmatch(name)
            and (ended or name not in AT_THE_END)
            and known.get(name, {}).get("local") != _signature(path / name)
        ),
        key=_order,
    )


def _signature(path: Path) -> Signature | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _synced(path: Path) -> dict[str, Any]:
    try:
        return parsed(read_file(path / SYNCED, 1 << 28))
    except OSError:
        return {}


def parsed(content: bytes) -> dict[str, Any]:
    """A JSON object; an empty one for anything else."""
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_bytes(content)
    temporary.replace(path)
