"""The copy on this machine of results in an object store: what every command reads and writes.

A run is written here, crash-safe as any other, and its files are uploaded as they become complete (see `upload`).
So the store has what had ended a moment ago, whatever becomes of this machine; and what could not be uploaded is
still here, and is uploaded by the next command that names the store.

    FOLDER/.store             the URL
    FOLDER/.sync/RUN          locked by the process that moves files of the run between here and the store
    FOLDER/RUN/...            as in any results folder
    FOLDER/RUN/.synced.json   what is known to be in the store
    FOLDER/RUN/.lease.json    who writes it elsewhere

Files have their names when they are complete, and parts never change, so a reader of the store sees a run that is
whole up to some moment: new parts come before the manifest, and merged ones before the small ones are removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from oss_eval.errors import OssEvalError, StoreError, UsageError
from oss_eval.results.lock import LEASE, fresh_lease, is_locked
from oss_eval.results.object_store import NAME, SCHEME, ObjectStore, Signature, here, public_place
from oss_eval.system.files import read_file
from oss_eval.system.terminal import printable

MARK = ".store"
SYNC = ".sync"
SYNCED = ".synced.json"
JOURNAL = ".samples.jsonl"
"""Samples that are in no part yet; it is not uploaded."""
LAST = ("summary.parquet", "manifest.json")
"""Uploaded and downloaded after the rest, in this order."""
AT_THE_END = ("truth.jsonl", "answers.jsonl")
"""Grow while a run is measured, and are uploaded when it has ended."""
LOOK_SECONDS = 3.0
"""Between two looks at a run that is being written elsewhere."""
ENDED_SECONDS = 60.0
"""Between two looks at another one, which may be resumed; and so long a run is looked at often after its end."""
TRIES = 5
AT_A_TIME = 20
"""Runs that have ended are looked at in so many a round."""
CLOSE_SECONDS = 3.0
SYNC_SECONDS = 90.0
"""Another process gets so long to finish with a run's files."""


def results_folder(place: str | Path) -> Path:
    """The folder on this machine for a folder or a URL; that of a URL is made, with the URL in it. Raises
    StoreError."""
    text = str(place)
    if not SCHEME.match(text):
        return Path(text)
    if text.lower().startswith("file://"):
        return Path(text[len("file://") :])
    url = text.rstrip("/")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "oss-eval" / "stores"
    readable = re.sub(r"[^A-Za-z0-9]+", "-", public_place(url)).strip("-")[:60]
    folder = cache / f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
    if not (folder / MARK).exists():
        with here(folder / MARK):
            (folder / SYNC).mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary = folder / f"{MARK}.{os.getpid()}"
            temporary.touch(0o600)  # the URL may hold keys
            temporary.write_text(url)
            temporary.replace(folder / MARK)
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


def say(line: str) -> None:
    """A line for the user on standard error."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"oss-eval: {printable(line)}\n")


class Mirror:
    """A folder, and the store that it mirrors. Methods raise StoreError."""

    def __init__(self, folder: Path, store: ObjectStore) -> None:
        self.folder, self.store = folder, store

    def runs(self) -> list[str]:
        """All runs, in the store or still waiting to be uploaded, sorted."""
        waiting = {run.name for run in self._here() if not is_locked(run) and _waits(run)}
        return sorted(waiting | set(self.store.runs()))

    def _here(self) -> list[Path]:
        found = [manifest.parent for manifest in self.folder.glob("*/manifest.json")]
        return [run for run in found if NAME.fullmatch(run.name)]

    def pull(self, run: str) -> Path:
        """The folder of a run, as the store has it now; what waits to be uploaded is uploaded first."""
        path = self.folder / run
        deadline = time.monotonic() + SYNC_SECONDS
        while time.monotonic() < deadline:
            with self.alone(run) as alone:
                if alone:
                    if not is_locked(path):
                        self.refresh(path)
                    return path
            if is_locked(path):
                break
            time.sleep(0.2)
        return path  # it is written here

    @contextlib.contextmanager
    def alone(self, run: str) -> Iterator[bool]:
        """Whether no other process on this machine moves files of the run; none will while the context is open."""
        file = self.folder / SYNC / run
        with here(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(lock)

    def refresh(self, path: Path) -> None:
        """Bring a run's folder and the store to the same state; nobody may write the run here meanwhile."""
        self._settle(path)
        self._download(path)

    def _settle(self, path: Path) -> None:
        """Upload what is only here; or put it aside, if the run was resumed elsewhere meanwhile."""
        if not (path / "manifest.json").exists() or not _waits(path):
            return
        there = parsed(self.store.read(path.name, "manifest.json") or b"")
        if sessions(there) <= sessions(parsed(_content(path / "manifest.json"))):
            lease = self.store.read(path.name, LEASE)
            if fresh_lease(lease) is None:
                self.push(path)
                if lease is not None and self.store.read(path.name, LEASE) == lease:
                    self.store.delete(path.name, LEASE)  # of the process that could not upload all
            return
        aside = self.folder.parent / f"{self.folder.name}-aside" / f"{path.name}-{time.time_ns()}"
        with here(aside):
            aside.parent.mkdir(exist_ok=True)
            path.rename(aside)
        say(f"{path.name} was resumed elsewhere; what had not been uploaded from here is kept in {aside}")

    def _download(self, path: Path) -> None:
        run = path.name
        lease = self.store.read(run, LEASE)  # before its files: what is read later is not older
        for _ in range(TRIES):
            files = self.store.files(run)
            if "manifest.json" not in files:
                raise NoRun(f"{self.store.url}/{run} is no run: it has no manifest.json")
            if lease is None:
                (path / LEASE).unlink(missing_ok=True)
            else:
                write(path / LEASE, lease)
            # The manifest comes last, and must not tell of rows that were not there when the files were listed.
            if self._fetch(path, files) and self.store.files(run).get("manifest.json") == files["manifest.json"]:
                known = _synced(path)
                for name in set(known) - set(files):
                    (path / name).unlink(missing_ok=True)
                    del known[name]
                _note(path, known)
                return
        raise StoreError(f"{self.store.url}/{run} changes faster than it can be read", "try again")

    def _fetch(self, path: Path, files: dict[str, Signature]) -> bool:
        """Get the files that are not here as they are in the store; whether all of them were still there."""
        known = _synced(path)
        for name in sorted(files, key=_order):
            entry = known.get(name, {})
            if _same(name, entry.get("remote"), files[name]) and entry.get("local") == _signature(path / name):
                continue
            try:
                self.store.get(path.name, name, path / name)
            except FileNotFoundError:  # merged just now
                return False
            known[name] = {"remote": files[name], "local": _signature(path / name)}
            _note(path, known)
        return True

    def push(self, path: Path, ended: bool = True, between: Callable[[], None] = lambda: None) -> None:
        """Upload what has changed in a run's folder; `ended`: also files that grow while it is measured. `between`
        is called before each file and megabyte."""
        known, run = _synced(path), path.name
        # Read before the parts are listed: the store's manifest says of no row that is not there.
        last = {name: (_signature(path / name), _content(path / name)) for name in LAST}
        files = _listed(path)
        for name in _changed(files, known, ended):
            if name in last and last[name][0] is None:
                continue  # it has just been made
            try:
                self.store.put(run, name, last[name][1] if name in last else path / name, between)
            except FileNotFoundError:  # merged just now: the rest follows next time
                return
            # Parts never change: their size is enough.
            remote = [files[name][0], 0] if "/" in name else self.store.signature(run, name)
            known[name] = {"local": last[name][0] if name in last else files[name], "remote": remote}
            _note(path, known)
        # Only what was gone when this began, because what replaces it is in the store now.
        for name in [name for name in known if name not in files]:
            between()
            self.store.delete(run, name)
            del known[name]
            _note(path, known)

    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """Keep the folder as the store is, newest runs first, while the context is open. Raises StoreError for a
        store that can't be read, and UsageError for the URL of a single run."""
        if self.store.signature("", "manifest.json") is not None:
            place, _, run = self.store.url.rpartition("/")
            raise UsageError(
                f"{self.store.url} is a run", f"give the folder of the runs, {place}, and choose {run}"
            )
        self.store.runs()
        ends = threading.Event()
        thread = threading.Thread(target=self._follow, args=(ends,), name="follow", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ends.set()
            thread.join(CLOSE_SECONDS)

    def _follow(self, ends: threading.Event) -> None:
        failed = False
        next_look: dict[str, float] = {}
        often_until: dict[str, float] = {}
        while not ends.is_set():
            try:
                now = time.monotonic()
                runs = sorted(self.store.runs(), reverse=True)
                due = [run for run in runs if now >= next_look.get(run, 0.0)]
                often = [run for run in due if now < often_until.get(run, 0.0)]
                others = [run for run in due if run not in often]
                for run in [*often, *others[:AT_A_TIME]]:
                    if ends.is_set():
                        return
                    next_look[run] = now + LOOK_SECONDS
                    try:
                        self.pull(run)
                    except NoRun:
                        continue  # not yet
                    except OssEvalError as error:  # the others are shown
                        say(error.message)
                        next_look[run] = now + ENDED_SECONDS
                        continue
                    if fresh_lease(_content(self.folder / run / LEASE)) is not None:
                        often_until[run] = now + ENDED_SECONDS
                    if now >= often_until.get(run, 0.0):
                        next_look[run] = now + ENDED_SECONDS
                self._forget()
                failed = False
                if len(others) > AT_A_TIME:
                    continue
            except OssEvalError as error:
                if not failed:
                    say(error.message)
                failed = True
            ends.wait(LOOK_SECONDS)

    def _forget(self) -> None:
        """Remove the copies of runs that were deleted from the store."""
        here, there = self._here(), set(self.store.runs())
        for path in [path for path in here if path.name not in there]:
            with self.alone(path.name) as alone:
                if alone and not is_locked(path) and not _waits(path):
                    shutil.rmtree(path, ignore_errors=True)


class NoRun(StoreError):
    """A folder without a manifest."""


def sessions(manifest: dict[str, Any]) -> set[str]:
    """The sessions that have written a run, by their beginning."""
    found = [one.get("started") for one in manifest.get("sessions") or [] if isinstance(one, dict)]
    return {str(started) for started in found if started}


def _order(name: str) -> tuple[int, str]:
    return (LAST.index(name) + 1 if name in LAST else 0, name)


def _same(name: str, known: Signature | None, there: Signature) -> bool:
    """Whether a file in the store is the one that is known. Parts never change, and stores tell times with unlike
    precision."""
    return known is not None and (known[0] == there[0] if "/" in name else known == there)


def _listed(path: Path) -> dict[str, Signature]:
    """The files of a run here: as they are at one moment, although parts are merged meanwhile."""
    found = _look(path)
    while found.keys() != (again := _look(path)).keys():
        found = again
    return found


def _look(path: Path) -> dict[str, Signature]:
    files = [*path.glob("*"), *path.glob("*/*")]
    named = [(file.relative_to(path).as_posix(), _signature(file)) for file in files if not file.is_dir()]
    return {name: signature for name, signature in named if signature is not None and NAME.fullmatch(name)}


def _changed(files: dict[str, Signature], known: dict[str, Any], ended: bool = True) -> list[str]:
    """Files that the store does not have as they are here, in the order of their upload."""
    wanted = [name for name in files if ended or name not in AT_THE_END]
    # A part never changes: one that is known and differs is damaged, and is fetched again.
    parts = {name for name in known if "/" in name}
    changed = [name for name in wanted if known.get(name, {}).get("local") != files[name] and name not in parts]
    return sorted(changed, key=_order)


def _waits(path: Path) -> bool:
    """Whether a run that nobody writes holds what the store does not have."""
    return bool(_changed(_listed(path), _synced(path)) or _content(path / JOURNAL))


def _signature(path: Path) -> Signature | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _content(path: Path) -> bytes:
    try:
        return read_file(path, 1 << 28)
    except OSError:
        return b""


def _synced(path: Path) -> dict[str, Any]:
    return parsed(_content(path / SYNCED))


def _note(path: Path, known: dict[str, Any]) -> None:
    write(path / SYNCED, json.dumps(known).encode())


def parsed(content: bytes) -> dict[str, Any]:
    """A JSON object; an empty one for anything else."""
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def write(path: Path, content: bytes) -> None:
    """Write a small file completely or not at all. Raises StoreError."""
    with here(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.new")
        temporary.write_bytes(content)
        temporary.replace(path)
