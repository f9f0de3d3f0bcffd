"""Uploading a run to an object store while it is written, by a thread that the measurement does not wait for."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from oss_eval.errors import OssEvalError, StoreError
from oss_eval.results.lock import LEASE, LEASE_SECONDS, fresh_lease, is_locked, new_lease
from oss_eval.results.mirror import SYNC_SECONDS, Mirror, parsed, say, sessions

EVERY_SECONDS = 1.0
RENEW_SECONDS = 20.0
SETTLE_SECONDS = 1.0
"""Between taking the lease of a stored run and looking who has it: another process may have looked before."""
LONGEST_PAUSE = 30.0
PATIENCE = 60.0
"""Seconds that the end of a run waits for a store that does not answer."""


@contextlib.contextmanager
def uploading(mirror: Mirror, path: Path, new: bool) -> Iterator[Upload]:
    """Upload the run in `path` while the context is open, and once more at its end. `new`: whether the run begins,
    and is deleted from the store if nothing comes of it.

    The run must be opened for writing inside, and closed before. Raises StoreError, before anything is measured,
    for a store that can't be written to, and for a run that a process elsewhere writes.
    """
    deadline = time.monotonic() + SYNC_SECONDS
    while True:
        if is_locked(path):
            raise StoreError(
                f"{path.name} is being written by another process", "wait until it has ended, or stop it"
            )
        with mirror.alone(path.name) as alone:
            if alone:
                upload = Upload(mirror, path, new)
                try:
                    yield upload
                finally:
                    upload.close()
                return
        if time.monotonic() > deadline:
            raise StoreError(f"another process moves the files of {path.name}", "wait until it has ended")
        time.sleep(0.2)


class Upload:
    """A thread that uploads a run's files as they become complete."""

    def __init__(self, mirror: Mirror, path: Path, new: bool) -> None:
        self._mirror, self._path, self._new = mirror, path, new
        self._token = secrets.token_hex(8)
        self.failure: OssEvalError | None = None
        """Why the results are not completely in the store."""
        self._take()
        if not new:
            self._check_unchanged()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upload", daemon=True)
        self._thread.start()

    def _take(self) -> None:
        """Take the lease. Two processes that do so at the same moment both see the later one's."""
        run = self._path.name
        holder = fresh_lease(self._mirror.store.read(run, LEASE))
        if holder is None:
            self._write_lease()
            if not self._new:
                time.sleep(SETTLE_SECONDS)
            holder = None if self._is_ours() else fresh_lease(self._mirror.store.read(run, LEASE))
        if holder is not None:
            raise StoreError(
                f"{run} is being written by {holder}",
                f"wait until that run has ended; a process that died is known after {LEASE_SECONDS:.0f} s",
            )

    def _check_unchanged(self) -> None:
        """Raise StoreError where a process elsewhere has resumed the run since it was read."""
        manifest = self._path / "manifest.json"
        before = sessions(parsed(manifest.read_bytes()))
        try:
            self._mirror.refresh(self._path)
            changed = sessions(parsed(manifest.read_bytes())) != before
        except BaseException:
            self._release()
            raise
        if changed:
            self._release()
            raise StoreError(f"{self._path.name} was resumed elsewhere just now", "run the command again")

    def _release(self) -> None:
        if self._is_ours():
            self._mirror.store.delete(self._path.name, LEASE)

    def _write_lease(self) -> None:
        self._mirror.store.put(self._path.name, LEASE, new_lease(self._token))
        self._renewed = time.time()  # goes on while a machine sleeps

    def _is_ours(self) -> bool:
        return parsed(self._mirror.store.read(self._path.name, LEASE) or b"").get("token") == self._token

    def _renew(self) -> None:
        """Say in the store that this process still writes the run. Raises _TakenOver."""
        if time.time() < self._renewed + RENEW_SECONDS:
            return
        if not self._is_ours():
            place = f"{self._mirror.store.url}/{self._path.name}"
            raise _TakenOver(f"{place} was written by another process meanwhile: these results stay here")
        self._write_lease()

    def _run(self) -> None:
        pause = EVERY_SECONDS
        while not self._ends.wait(pause):
            try:
                self._step(ended=False)
                if self.failure is not None:
                    say(f"{self._mirror.store.url} answers again")
                pause, self.failure = EVERY_SECONDS, None
            except _TakenOver as error:
                self.failure = error
                say(error.message)
                return
            except Exception as error:  # noqa: BLE001 (the run goes on)
                if self.failure is None:
                    say(f"upload failed, trying again: {_text(error)}")
                pause, self.failure = min(LONGEST_PAUSE, 2 * pause), StoreError(_text(error))

    def _step(self, ended: bool) -> None:
        self._renew()
        if self._path.exists():
            self._mirror.push(self._path, ended, self._renew)

    def close(self) -> None:
        """Upload the rest; `failure` says what came of it."""
        self._ends.set()
        self._thread.join()
        deadline, pause, told = time.monotonic() + PATIENCE, EVERY_SECONDS, False
        while not isinstance(self.failure, _TakenOver):
            try:
                self._finish()
                self.failure = None
                return
            except _TakenOver as error:
                self.failure = error
                say(error.message)
            except Exception as error:  # noqa: BLE001 (the run is stored here)
                if not told:
                    say(f"upload failed, trying again for {PATIENCE:.0f} s: {_text(error)}")
                told, self.failure = True, StoreError(_text(error))
            if time.monotonic() + pause > deadline:
                return
            time.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)

    def _finish(self) -> None:
        if self._path.exists():
            self._step(ended=True)
        elif self._new and self._is_ours():  # nothing was measured
            self._mirror.store.remove(self._path.name)
        self._release()


class _TakenOver(StoreError):
    """Another process writes the run now."""


def _text(error: Exception) -> str:
    return error.message if isinstance(error, OssEvalError) else f"{type(error).__name__}: {error}"
