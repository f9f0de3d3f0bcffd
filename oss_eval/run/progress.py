"""Progress of a run: a live display on a terminal, plain lines elsewhere. Always on standard error."""

from __future__ import annotations

import contextlib
import sys
import time
from types import TracebackType

from rich.live import Live
from rich.text import Text

from oss_eval.system.terminal import open_console, printable

LINE_SECONDS = 5.0
DRAW_SECONDS = 0.25
RATE_SECONDS = 3.0


class Progress:
    """Shows the current point, requests done, in flight, tok/s, failures and the time left.

    `every` prints a line after this number of requests (EvalScope's --log-every-n-query).
    """

    def __init__(self, every: int | None = None) -> None:
        self.every = every
        self.note = ""
        """Text beside the numbers."""
        self.console = open_console(stderr=True, highlight=False)
        self.live: Live | None = None
        if sys.stdout.isatty() and sys.stderr.isatty():
            self.live = Live(console=self.console, auto_refresh=False, transient=True)
        self._title: str | None = None
        self._drawn = self._lined = 0.0

    def __enter__(self) -> Progress:
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def say(self, text: str) -> None:
        """Print a line."""
        with contextlib.suppress(OSError):  # the reader has closed the pipe; the run continues
            if self.live:
                self.console.print(text, soft_wrap=True, markup=False)
            else:
                sys.stderr.write(printable(text) + "\n")
                sys.stderr.flush()

    def start(self, title: str, number: int | None, seconds: float | None = None) -> None:
        """A point begins: with this number of requests, or for so many seconds, or until its result is known."""
        self._title, self._number, self._seconds = title, number, seconds
        self._done = self._failed = self._in_flight = self._tokens = 0
        self._started = time.monotonic()
        self._lined = self._started
        self._samples: list[tuple[float, int]] = []

    def end(self) -> None:
        """The point has ended."""
        if self._title is not None:
            self._in_flight = 0
            if self.live is None:
                self._line()
            self._title = None

    def done(self, status: str) -> None:
        """A request, or a sample, has ended."""
        if status == "cancelled":
            return  # cancelled by us: neither done nor failed
        self._done += 1
        self._failed += status != "ok"
        if self.every and self._done % self.every == 0 and self._title and not self._all_done:
            self._line()

    def idle(self, in_flight: int, tokens: int) -> None:
        """Called several times a second."""
        if self._title is None:
            return
        self._in_flight, self._tokens = in_flight, tokens
        now = time.monotonic()
        self._samples.append((now, tokens))
        while now - self._samples[0][0] > RATE_SECONDS and len(self._samples) > 2:
            del self._samples[0]
        if self.live and now - self._drawn >= DRAW_SECONDS:
            self._drawn = now
            self.live.update(self._picture(), refresh=True)
        elif self.live is None and not self.every and now - self._lined >= LINE_SECONDS and not self._all_done:
            self._line()

    # -- what is shown ---------------------------------------------------------------------------------

    def _rate(self) -> float:
        if len(self._samples) < 2:
            return 0.0
        (t0, n0), (t1, n1) = self._samples[0], self._samples[-1]
        return (n1 - n0) / (t1 - t0) if t1 > t0 else 0.0

    @property
    def _all_done(self) -> bool:
        return self._number is not None and self._done >= self._number

    @property
    def _share(self) -> float:
        """How much of the point is done, 0 to 1; 0 where that is not known."""
        if self._number is not None:
            return min(1.0, self._done / self._number)
        return min(1.0, (time.monotonic() - self._started) / self._seconds) if self._seconds else 0.0

    @property
    def _count(self) -> str:
        return f"{self._done}" if self._number is None else f"{self._done}/{self._number}"

    def _left(self) -> str:
        """Time left at the current rate; unknown before the first request is done."""
        if not self._done or not self._share:
            return "?"
        elapsed = time.monotonic() - self._started
        left = elapsed / self._share * (1 - self._share)
        return f"{left // 60:.0f}:{left % 60:02.0f}"

    def _line(self) -> None:
        self._lined = time.monotonic()
        elapsed = self._lined - self._started
        in_flight = self._in_flight if self._number is None else min(self._in_flight, self._number - self._done)
        self.say(
            f"  {self._title}: {self._count} done, {in_flight} in flight, "
            f"{self._tokens / elapsed if elapsed else 0:,.0f} tok/s, {self._failed} failed, {elapsed:.1f} s"
            + (f", {self.note}" if self.note else "")
        )

    def _picture(self) -> Text:
        """One line of any width: the bar takes the space that the text leaves."""
        words = (
            f"{self._count}  {self._in_flight} in flight {self._rate():,.0f} tok/s "
            f"{self._failed} failed {self.note + ' ' if self.note else ''}{self._left()} left"
        )
        title = self._title or ""
        width = max(0, min(40, self.console.width - len(title) - len(words) - 4))
        filled = round(self._share * width)
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(title, "bold").append("  " if width else " ")
        line.append("━" * filled, "green").append("━" * (width - filled), "bright_black")
        return line.append("  " if width else "").append(words, "red" if self._failed else "")
