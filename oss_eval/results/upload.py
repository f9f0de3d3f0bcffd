"""Uploading a run to an object store while it is written, by a thread that the measurement does not wait for."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from oss_eval.errors import OssEvalError, StoreError
from oss_eval.results.lock import LEASE, new_lease
from oss_eval.results.mirror import Mirror, parsed

EVERY_SECONDS = 1.0
RENEW_SECONDS = 20.0
LONGEST_PAUSE = 30.0
PATIENCE = 60.0
"""Seconds that the end of a run waits for a store that does not answer."""


@contextlib.contextmanager
def uploading(mirror: Mirror, path: Path, say: Callable[[str], None]) -> Iterator[Upload]:
    """Upload the run in `path` while the context is open, and once more at its end. `say` gets lines for the user.
    Raises StoreError for a store that can't be written to, before anything is measured."""
    upload = Upload(mirror, path, say)
    try:
        yield upload
    finally:
        upload.close()


class Upload:
    """A thread that uploads a run's files as they become complete."""

    def __init__(self, mirror: Mirror, path: Path, say: Callable[[str], None]) -> None:
        self._mirror, self._path, self._say = mirror, path, say
        self._token = secrets.token_hex(8)
        self._renewed = 0.0
        self.failure: OssEvalError | None = None
        """Why the results are not completely in the store."""
        self._renew()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upload", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        pause = EVERY_SECONDS
        while not self._ends.wait(pause):
            try:
                self._step(ended=False)
                if self.failure is not None:
                    self._say(f"{self._mirror.store.url} answers again")
                pause, self.failure = EVERY_SECONDS, None
            except _TakenOver as error:
                self.failure = error
                self._say(error.message)
                return
            except OssEvalError as error:
                if self.failure is None:
                    self._say(f"upload failed, trying again: {error.message}")
                pause, self.failure = min(LONGEST_PAUSE, 2 * pause), error

    def _step(self, ended: bool) -> None:
        self._renew()
        if self._path.exists():
            self._mirror.push(self._path, ended)

    def _renew(self) -> None:
        """Say in the store that this process writes the run. Raises _TakenOver."""
        now = time.monotonic()
        if self._renewed and now < self._renewed + RENEW_SECONDS:
            return
        store, run = self._mirror.store, self._path.name
        if self._renewed:
            held = parsed(store.read(run, LEASE) or b"")
            if held and held.get("token") != self._token:
                raise _TakenOver(f"{run} was taken over by a process on {held.get('host')}: its results stay here")
        store.put(run, LEASE, new_lease(self._token))
        self._renewed = now

    def close(self) -> None:
        """Upload the rest; `failure` says what came of it."""
        self._ends.set()
        self._thread.join()
        if isinstance(self.failure, _TakenOver):
            return
        deadline, pause = time.monotonic() + PATIENCE, EVERY_SECONDS
        while True:
            try:
                if self._path.exists():
                    self._step(ended=True)
                else:  # nothing was measured
                    self._mirror.store.remove(self._path.name)
                self._mirror.store.delete(self._path.name, LEASE)
                self.failure = None
                return
            except OssEvalError as error:
                if self.failure is None:
                    self._say(f"upload failed, trying again for {PATIENCE:.0f} s: {error.message}")
                self.failure = error
            if isinstance(self.failure, _TakenOver) or time.monotonic() + pause > deadline:
                return
            time.sleep(pause)
            pause = min(LONGEST_PAUSE, 2 * pause)


class _TakenOver(StoreError):
    """Another process writes the run now."""
