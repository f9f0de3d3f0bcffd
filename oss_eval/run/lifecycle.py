"""The life of a run of any kind: its folder and lock, an interrupt or a failure, and its end."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TypeVar

from oss_eval.errors import OssEvalError, RunFailed, StoreError
from oss_eval.run.options import RunOptions
from oss_eval.system.signals import Interrupts

if TYPE_CHECKING:  # a usage error should not wait for the import of pyarrow
    from oss_eval.results.upload import Upload
    from oss_eval.results.writer import RunWriter

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RunResult:
    """A stored run: where it is, and whether it `finished`, was `interrupted`, or `failed`."""

    path: Path
    status: str
    reason: str = ""
    """Why it did not finish, where the status alone does not say it."""
    aborted: bool = False
    """Whether a second Ctrl-C ended it: rows are stored, metrics were not computed."""


class Work(Protocol):
    """What a run carries out."""

    @property
    def measured(self) -> bool:
        """Whether there are results to keep. Without any, a new run is removed."""

    @property
    def has_new_rows(self) -> bool:
        """Whether rows were stored in this session. Without any, a resumed run becomes what it was before."""

    def store(self, result: RunResult) -> RunResult:
        """Close the run's files and write its summary; returns how the run ended. Raises StoreError."""


class OpenRun:
    """A run in progress, as a context: it owns the lock, Ctrl-C, and everything that is closed with the run.

    A body that ends without an exception has finished. Ctrl-C and OssEvalError end the run as `interrupted` or
    `failed` and are not raised on, if there are results to keep; otherwise the run leaves no trace and the
    exception goes on. After the context `result` says how the run ended.
    """

    def __init__(self, kind: str, name: str, options: RunOptions, resumed: Path | None) -> None:
        self._kind, self._name, self._options, self._resumed = kind, name, options, resumed
        self._resources = contextlib.ExitStack()
        self._upload: Upload | None = None
        self.interrupts = Interrupts()
        self.writer: RunWriter
        self.work: Work | None = None
        self.result: RunResult

    def __enter__(self) -> OpenRun:
        from oss_eval.results.mirror import mirror_of
        from oss_eval.results.upload import uploading
        from oss_eval.results.writer import RunWriter, new_run_id

        self.interrupts.__enter__()
        try:
            run_id = new_run_id(self._kind, self._options.name or self._name)
            path = self._resumed or self._options.out / run_id
            mirror = mirror_of(path.parent)
            if mirror is not None:  # from before the run is opened until after it is closed
                self._upload = self.enter(uploading(mirror, path, new=self._resumed is None))
            if self._resumed is not None:
                self.writer = RunWriter.reopen(self._resumed)
            else:
                self.writer = RunWriter(self._options.out, run_id, {"kind": self._kind})
        except BaseException:
            self._resources.close()
            self.interrupts.__exit__()
            raise
        self.result = RunResult(self.writer.path, "finished")
        return self

    def enter(self, resource: AbstractContextManager[T]) -> T:
        """Enter a context that lasts until the run has been stored."""
        return self._resources.enter_context(resource)

    def callback(self, function: Callable[[], object]) -> None:
        """Call `function` when the run has been stored."""
        self._resources.callback(function)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        with self.interrupts.deferred():
            try:
                if error is None:
                    assert self.work is not None
                    self._finish(self.work)
                    return False
                if self.work is None or not self.work.measured or not _expected(error):
                    self._abandon()
                    return False
                interrupted = isinstance(error, KeyboardInterrupt)
                reason = "interrupted" if interrupted else str(error)
                self.result = replace(
                    self.result, status="interrupted" if interrupted else "failed", reason=reason
                )
                self._finish(self.work)
                return True
            finally:
                try:
                    self._resources.close()
                finally:
                    self.interrupts.__exit__()
                if self._upload is not None and self._upload.failure is not None:
                    reason = f"not everything is uploaded, the next command does: {self._upload.failure.message}"
                    self.result = replace(self.result, status="failed", reason=reason)

    def _finish(self, work: Work) -> None:
        self.result = finish_run(self.writer, self.result, self.interrupts, work.store)

    def _abandon(self) -> None:
        """Keep finished requests; without any, remove a new run and restore a resumed one."""
        if self.work is None or not self.work.has_new_rows:
            self.writer.undo()
        else:
            with contextlib.suppress(StoreError):  # the disk is full: what is stored is stored
                self.writer.leave()


def open_run(kind: str, name: str, options: RunOptions, resumed: Path | None = None) -> OpenRun:
    """A new run, or with `resumed` a stored one. The options' name, else `name`, becomes part of its id.

    Entering takes the lock of the run folder. Raises OssEvalError.
    """
    return OpenRun(kind, name, options, resumed)


def _expected(error: BaseException) -> bool:
    return isinstance(error, (KeyboardInterrupt, OssEvalError))


def finish_run(
    writer: RunWriter, result: RunResult, interrupts: Interrupts, store: Callable[[RunResult], RunResult]
) -> RunResult:
    """End a run: `store` computes and writes its metrics. Returns how the run ended.

    Ctrl-C is ignored here, except a second one: then rows are stored, and nothing else. Raises RunFailed when the
    disk fails.
    """
    with interrupts.deferred():
        try:
            with contextlib.suppress(KeyboardInterrupt), interrupts.deferred(raises_at=2):
                if interrupts.count < 2:
                    return store(result)
            writer.leave()
        except StoreError as error:
            with contextlib.suppress(StoreError):
                writer.leave()
            reason = error.message if result.reason in ("", error.message) else f"{result.reason}; {error.message}"
            raise RunFailed(reason, resume_hint(writer.path)) from None
        return replace(result, status="interrupted", reason="interrupted", aborted=True)


def stopping(in_flight: int, grace: float) -> str:
    """What the first Ctrl-C does."""
    requests = f"{in_flight} {'request' if in_flight == 1 else 'requests'} in flight"
    return f"stopping: {requests} may finish within {grace:g} s (--grace); press Ctrl-C again to cancel them"


def quarantined_parts(writer: RunWriter) -> list[str]:
    """Lines about the damaged parts of a resumed run."""
    return [f"damaged file quarantined, its requests are sent again: {name}" for name in writer.quarantined]


def resume_hint(path: Path) -> str:
    """How to resume a run that ended too early."""
    from oss_eval.results.mirror import place_of

    out = "" if path.parent == Path("results") else f" --out {shlex.quote(place_of(path.parent))}"
    return f"finished work is stored; resume with: oss-eval resume {path.name}{out}"
