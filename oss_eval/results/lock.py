"""A lock on a run, held by the process that writes it. It ends with the process; a lock file left behind is not a
lock."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from pathlib import Path

from oss_eval.errors import StoreError
from oss_eval.system.files import read_file

LOCK = ".lock"
LEASE = ".lease.json"
"""In an object store, and in the copy of a run from there: who writes the run, and when it last said so."""
LEASE_SECONDS = 60.0
"""A writer that has said nothing for so long is gone. The machines' clocks should agree within half of it."""
LOCK_SECONDS = 0.5
"""Seconds. A writer holds the lock for longer; a check whether the lock is held takes it only for a moment."""


def hold(path: Path) -> int:
    """Take the lock of the run in `path`; returns its descriptor, for `release`. Raises StoreError naming the
    holder."""
    deadline = time.monotonic() + LOCK_SECONDS
    while (lock := _try(path)) is None:
        if time.monotonic() > deadline:
            owner = ""
            with contextlib.suppress(OSError):
                owner = read_file(path / LOCK, 1000).decode("utf-8", "replace").strip()
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
    """A descriptor that holds the lock; None while another process does. Raises StoreError."""
    try:
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o644)
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
    """Release the lock."""
    with contextlib.suppress(OSError):
        (path / LOCK).unlink()  # while it is held: afterwards the file may belong to another process
    os.close(lock)


def is_held(path: Path) -> bool:
    """Whether a process writes the run in `path`, here or, of a run in an object store, elsewhere."""
    if is_locked(path):
        return True
    with contextlib.suppress(OSError):
        return fresh_lease(read_file(path / LEASE, 10_000)) is not None
    return False


def fresh_lease(content: bytes | None) -> str | None:
    """Who writes a run in an object store, by the content of its lease; None where nobody does any more."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        lease = json.loads(content or b"")
        process, host = int(lease["process"]), str(lease["host"])[:200]
        ended = lease["machine"] == _machine() and not _alive(process)
        if not ended and time.time() - float(lease["at"]) < LEASE_SECONDS:
            return f"process {process} on {host}"
    return None


def new_lease(token: str) -> bytes:
    """The content of a lease that this process holds from now on."""
    lease = {
        "process": os.getpid(), "host": socket.gethostname(), "machine": _machine(), "token": token,
        "at": time.time(),
    }  # fmt: skip
    return json.dumps(lease).encode()


def _machine() -> str:
    """What tells whether a process id is one of this machine: host name, boot, namespace of processes."""
    found = [socket.gethostname()]
    with contextlib.suppress(OSError):
        found.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        found.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(found)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    return True


def is_locked(path: Path) -> bool:
    """Whether a process on this machine writes the run in `path`; assumed where the system does not tell."""
    try:
        lock = os.open(path / LOCK, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # another user's file, which we may not open
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False
