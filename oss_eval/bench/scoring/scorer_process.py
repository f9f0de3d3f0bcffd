"""Scorers that may take for ever, in a process of their own that can be ended.

sympy on `10^{10^{10}}`, or a pattern that backtracks without end, would otherwise hold up every thread of the
run. `python -m oss_eval.bench.scoring.scorer_process` reads pickled (scorer, arguments) from standard input and
answers in turn.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import selectors
import signal
import struct
import subprocess
import sys
import threading
from typing import IO, Any

from oss_eval.bench.scoring.expressions import equal_math, second_score
from oss_eval.bench.scoring.scorers import MAY_HANG, SCORERS
from oss_eval.bench.types import Score
from oss_eval.system import child_process

MODULE = "oss_eval.bench.scoring.scorer_process"
PATIENCE = 15.0
"""Seconds for one score; math-verify itself stops after 5 for parsing and 5 for comparing."""
START = 60.0
"""Seconds until the process is ready: sympy is imported."""

_SIZE = struct.Struct("=I")


class ScorerError(Exception):
    """A scorer raised an exception, or took too long: the sample has no score."""


class ScorerProcess:
    """Scores answers one at a time, from any thread; the process is started on first use."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def grade(self, scorer: str, response: str, target: str, truncated: bool, settings: dict[str, Any]) -> Score:
        """The score by a scorer of SCORERS. Raises ScorerError."""
        if scorer not in MAY_HANG:
            try:
                return SCORERS[scorer](response, target, truncated, settings)
            except Exception as error:  # noqa: BLE001 (whatever a scorer trips over, the sample is unscored)
                raise ScorerError(f"the scorer {scorer} raised {type(error).__name__}: {error}") from None
        verdict: Score = self._call(scorer, response, target, truncated, settings)
        return verdict

    def second_score(self, response: str, target: str) -> float | None:
        """math-verify's score; None without one."""
        try:
            return float(self._call("second", response, target))
        except ScorerError:
            return None

    def warm_up(self) -> None:
        """Start the process in the background, so that the first answer does not wait for it."""

        def start() -> None:
            with self._lock, contextlib.suppress(OSError, EOFError, TimeoutError):
                self._running()

        threading.Thread(target=start, daemon=True).start()

    def close(self) -> None:
        """End the process. Callers that wait, and later ones, get ScorerError."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()
        with self._lock:
            self._end()

    def _call(self, *words: Any) -> Any:
        with self._lock:
            try:
                process = self._running()
                assert process.stdin is not None
                assert process.stdout is not None
                _write(process.stdin, words)
                verdict, error = _read(process.stdout, self._patience)
            except TimeoutError:
                self._end()
                raise ScorerError(f"the scorer gave no verdict within {self._patience:g} s") from None
            except (OSError, EOFError):
                self._end()
                raise ScorerError("the scorer's process died") from None
        if error is not None:
            raise ScorerError(error)
        return verdict

    def _running(self) -> subprocess.Popen[bytes]:
        """The process, started and ready."""
        if self._closed:
            raise EOFError
        if self._process is None:
            self._process = child_process.start(MODULE, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert self._process.stdout is not None
            try:
                _read(self._process.stdout, START)
            except BaseException:
                self._end()  # its late score would be taken for the next one
                raise
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()


def _write(pipe: IO[bytes], value: Any) -> None:
    body = pickle.dumps(value)
    pipe.write(_SIZE.pack(len(body)) + body)
    pipe.flush()


def _read(pipe: IO[bytes], patience: float | None) -> Any:
    """One value of our own process, joined by a pipe nobody else writes to."""
    data = b""
    needed = _SIZE.size
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while len(data) < needed:
            if patience is not None and not selector.select(patience):
                raise TimeoutError
            piece = os.read(pipe.fileno(), 1 << 20)
            if not piece:
                raise EOFError
            data += piece
            if len(data) >= _SIZE.size:
                needed = _SIZE.size + _SIZE.unpack_from(data)[0]
    return pickle.loads(data[_SIZE.size :])


def _serve() -> None:
    """Answer until standard input ends. In the main thread, where math-verify's own timeouts work."""
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of libraries must not reach the pipe
    equal_math("$1$", "1")
    _write(answers, None)
    while True:
        try:
            name, *arguments = _read(sys.stdin.buffer, None)
        except EOFError:
            return
        verdict: Any = None
        error: str | None = None
        # If the parent is gone, the system ends this process after twice the timeout.
        signal.setitimer(signal.ITIMER_PROF, 2 * PATIENCE)
        try:
            verdict = second_score(*arguments) if name == "second" else SCORERS[name](*arguments)
        except Exception as reason:  # noqa: BLE001 (a scorer's failure is an answer)
            error = f"the scorer {name} raised {type(reason).__name__}: {str(reason)[:200]}"
        _write(answers, (verdict, error))


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        _serve()
