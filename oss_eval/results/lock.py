"""Who writes a run: a lock that goes with its process, however that ends. A file left behind is none."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from pathlib import Path

from oss_eval.errors import StoreError

LOCK = ".lock"
LOCK_SECONDS = 0.5
"""A lock that is held for longer is a writer's; who only looks whether there is one holds it for a moment."""


def hold(path: Path) -> int:
    """Take the lock of the run in `path`; its descriptor, for `release`. Raises StoreError naming who holds it."""
    deadline = time.monotonic() + LOCK_SECONDS
    while (lock := _try(path)) is None:
        if time.monotonic() > deadline:
            owner = ""
            with contextlib.suppress(OSError):
                owner = (path / LOCK).read_text(encoding="utf-8", errors="replace").strip()
            raise StoreError(
                f"{path.name} is being written by {owner or 'another process'}",
                "wait until that run has ended, or stop it",
            )
        time.sleep(0.05)
    with contextlib.suppress(OSError):  # only for the message above; a full disk locks as well as another
        os.ftruncate(lock, 0)
        os.write(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
    return lock


def _try(path: Path) -> int | None:
    """A descriptor that holds the lock; None while another one does. Raises StoreError."""
    try:
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StoreError(f"can't write to {path}: {error.strerror or error}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), (path / LOCK).stat()):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass  # held; or its owner was just about to remove it
    except OSError as error:
        os.close(lock)
        raise StoreError(
            f"{path} can't be locked: {error.strerror}", "choose a folder on another file system with --out DIR"
        ) from None
    os.close(lock)
    return None


def release(path: Path, lock: int) -> None:
    """Let another one write."""
    with contextlib.suppress(OSError):
        (path / LOCK).unlink()  # while it is held: afterwards it may be another one's
    os.close(lock)


def is_held(path: Path) -> bool:
    """Whether somebody writes the run in `path`; where that can't be told, it is believed."""
    try:
        lock = os.open(path / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # somebody else's, who does not let us look
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False
