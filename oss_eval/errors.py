"""Every error a user can cause or meet, as one tree.

    OssEvalError               exit 2: nothing was measured, or not what was asked
    ├── UsageError             what was typed: flags, values that contradict each other
    ├── TaskError              a task file: not found, not readable, not valid
    ├── EndpointError          the server: unreachable, or is no OpenAI-compatible server
    │   └── AuthRefused        it wants a key, or another one
    ├── StoreError             the results folder: can't be written, or a stored run can't be read
    └── RunFailed              exit 1: a run was begun and can't continue; what was finished is stored

A run that ended and failed is no error of this tree: its result says so, and the exit code is 1.

An error carries what was given and what is wrong (`message`), and what to type next (`hint`).
Only `cli` catches them, prints them without a traceback and exits.
"""

from __future__ import annotations


class OssEvalError(Exception):
    """Base of all errors that are shown to the user as a message, never as a traceback."""

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(OssEvalError):
    """A flag, or a combination of flags, that can't be used."""


class TaskError(OssEvalError):
    """A task file that is missing, unreadable or invalid."""


class EndpointError(OssEvalError):
    """A server that can't be reached, refuses the request, or is not OpenAI-compatible."""


class AuthRefused(EndpointError):
    """A server that answers 401 or 403."""


class StoreError(OssEvalError):
    """A results folder that can't be written, or a stored run that can't be read."""


class RunFailed(OssEvalError):
    """A run that can't continue: a worker process died, the server is gone, the disk is full."""

    exit_code = 1
