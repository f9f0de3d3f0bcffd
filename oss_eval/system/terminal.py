"""Standard output and error: no control characters of others, and no run that is lost with its output.

Names, errors and answers come from servers and files. Written unchanged, they could move the cursor, set the
clipboard (OSC 52), hide a link (OSC 8) or reverse a line. `Output` removes what is not text; our own styles pass.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderResult
    from rich.measure import Measurement

_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 except tab and line feed, DEL, C1
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"  # direction, tags
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_PLAIN = str.maketrans({
    "–": "-", "—": "-", "−": "-", "→": "->", "•": "*", "…": "...", "×": "x", "·": ".", "±": "+/-",
    "≤": "<=", "≥": ">=", "µ": "u", "μ": "u", "≈": "~", "“": '"', "”": '"', "‘": "'", "’": "'", "━": "=",
    "─": "-", "✓": "+", "✗": "x", "√": "sqrt", "²": "^2", "█": "#", "▌": "#", "░": ".",
})  # fmt: skip


def printable(text: str) -> str:
    """The text without control characters: C0 except tab and line feed, C1, and those that change the direction.

    What is left of an escape sequence is shown as the text that it is. A lone surrogate becomes a question mark.
    """
    return _SURROGATE.sub("?", _CONTROL.sub("", text))


def json_text(document: Any) -> str:
    """The document as JSON in which every character that `printable` removes is escaped."""
    import orjson

    text = orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
    return _CONTROL.sub(lambda match: json.dumps(match.group())[1:-1], text) + "\n"


class Output(io.TextIOBase):
    """Standard output or error of a command.

    Text is written as `printable` and, where the encoding lacks a character, with a plain one. An error of writing
    is kept in `failure`, and what follows is discarded: a run must not end because nobody reads what it prints.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write the text without control characters."""
        self.write_styled(printable(text))
        return len(text)

    def write_styled(self, text: str) -> None:
        """Write text of our own as it is, styles included."""
        if self.failure is not None:
            return
        try:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                self._stream.write(text.translate(_PLAIN).encode(self.encoding, "replace").decode(self.encoding))
        except OSError as error:
            self._fail(error)

    def flush(self) -> None:
        """Hand what was written to the system."""
        if self.failure is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        """Discard what is buffered: writing it would fail again at exit."""
        self.failure = error
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def fileno(self) -> int:
        """The file descriptor."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Whether a terminal shows it."""
        return self._stream.isatty()

    def writable(self) -> bool:
        """Always: what can't be written is discarded."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream."""
        return self._stream.encoding

    @property
    def buffer(self) -> Any:
        """The binary stream below."""
        return self._stream.buffer


def write_styled(text: str) -> None:
    """Write text of our own, styles included, on standard output."""
    _Styled(stderr=False).write(text)


def open_output() -> None:
    """Make `sys.stdout` and `sys.stderr` such outputs; closed ones are replaced by nothing.

    The descriptors 0 to 2 are open afterwards, so that no file of a run is opened as one of them.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if not isinstance(stream, Output):
            setattr(sys, name, Output(stream or os.fdopen(number, "w", encoding="utf-8")))


def output_failure() -> OSError | None:
    """Why standard output could not be written; None if it was, or if its reader has closed it on purpose."""
    failure = getattr(sys.stdout, "failure", None)
    return None if isinstance(failure, BrokenPipeError) else failure


def print_error(message: str, hint: str = "") -> None:
    """Print an error and its hint on standard error."""
    with contextlib.suppress(OSError):
        sys.stderr.write(printable(f"oss-eval: {message}\n" + (f"  → {hint}\n" if hint else "")))
        sys.stderr.flush()


def open_console(stderr: bool = False, **settings: Any) -> Console:
    """rich's Console on standard output or error; what it prints is `printable`, with styles."""
    from rich.console import Console, RenderHook

    class Hook(RenderHook):
        def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
            return [_Printable(renderable) for renderable in renderables]

    made = Console(file=cast(TextIO, _Styled(stderr)), **settings)
    made.push_render_hook(Hook())
    return made


class _Printable:
    """Something that rich renders, without control characters in its texts."""

    def __init__(self, renderable: Any) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        for segment in console.render(self._renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        from rich.measure import Measurement

        return Measurement.get(console, options, self._renderable)


class _Styled(io.TextIOBase):
    """The present standard output or error for rich, which writes its styles itself."""

    def __init__(self, stderr: bool) -> None:
        self._stderr = stderr

    @property
    def _stream(self) -> Any:
        return sys.stderr if self._stderr else sys.stdout

    def write(self, text: str) -> int:
        getattr(self._stream, "write_styled", self._stream.write)(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:  # type: ignore[override]
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return bool(self._stream.isatty())

    def fileno(self) -> int:
        return int(self._stream.fileno())

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", None) or "utf-8"
