"""What every command that makes a run shares: the order it carries out, who is asked, what came of it."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from oss_eval.errors import RunFailed, StoreError
from oss_eval.system.signals import Interrupts

if TYPE_CHECKING:  # a mistake of the user's should not wait for what writes Parquet
    from oss_eval.results.writer import RunWriter


@dataclass(frozen=True, slots=True)
class RunResult:
    """A stored run: where it is, and whether it `finished`, was `interrupted`, or `failed`."""

    path: Path
    status: str
    reason: str = ""
    """Why it did not finish, where there is more to say than that."""
    aborted: bool = False
    """Whether it was stopped in a hurry: rows are stored, figures were not computed."""


def stopping(in_flight: int, grace: float) -> str:
    """What the first Ctrl-C does."""
    left = f"{in_flight} {'request' if in_flight == 1 else 'requests'} in flight"
    return f"stopping: {left} may finish within {grace:g} s (--grace); Ctrl-C again gives them up"


def quarantined_parts(writer: RunWriter) -> list[str]:
    """Lines about the damaged parts of a run that was opened again."""
    return [f"damaged, put aside, and asked for again: {name}" for name in writer.quarantined]


def resume_hint(path: Path) -> str:
    """What to do with a run that ended too early."""
    where = "" if path.parent == Path("results") else f" --out {shlex.quote(str(path.parent))}"
    return f"finished work is stored; go on with: oss-eval resume {path.name}{where}"


def finish_run(
    writer: RunWriter,
    result: RunResult,
    interrupts: Interrupts,
    store: Callable[[RunResult], RunResult],
    held: contextlib.ExitStack,
) -> RunResult:
    """End a run: `store` computes and writes its figures, what it `held` is let go; how it ended. Raises BrokenOff
    when the disk refuses.

    Ctrl-C is not heeded here unless it is the second one: then rows are stored, and that is all.
    """
    with interrupts.counted():
        try:
            return _stored(writer, result, interrupts, store)
        except StoreError as error:
            with contextlib.suppress(StoreError):
                writer.leave()
            reason = error.message if result.reason in ("", error.message) else f"{result.reason}; {error.message}"
            raise RunFailed(reason, resume_hint(writer.path)) from None
        finally:
            held.close()


def _stored(
    writer: RunWriter, result: RunResult, interrupts: Interrupts, store: Callable[[RunResult], RunResult]
) -> RunResult:
    with contextlib.suppress(KeyboardInterrupt), interrupts.counted(raises_at=2):
        if interrupts.count < 2:
            return store(result)
    writer.leave()
    return replace(result, status="interrupted", reason="interrupted", aborted=True)
