"""Server-sent events, and JSON lines, from bytes that are split anywhere.

After https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6: lines end in LF, CRLF or CR; a
line that starts with a colon is a comment; `data` lines of one event are joined with a newline; a blank line ends
the event; an event without data is ignored.
"""

from __future__ import annotations


class SseDecoder:
    """Takes bytes, returns the data of the events that they complete."""

    __slots__ = ("_buffer", "_data", "_first", "_skip_lf")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._data: list[bytes] = []
        self._first = True
        self._skip_lf = False

    def feed(self, data: bytes) -> list[bytes]:
        """Data payloads of the events completed by `data`, in order."""
        if (
            data.startswith(b"data: ")
            and data.find(b"\n") == len(data) - 2
            and data.endswith(b"\n")
            and b"\r" not in data
            and not (self._buffer or self._data or self._first or self._skip_lf)
        ):
            return [data[6:-2]]  # one complete event of one line: what servers nearly always send
        return self._feed_lines(data)

    def _feed_lines(self, data: bytes) -> list[bytes]:
        self._buffer += data
        if b"\n" not in data and b"\r" not in data:
            return []  # a long line is collected, not searched again at every read
        text = bytes(self._buffer)
        if self._first:
            text, self._first = text.removeprefix(b"\xef\xbb\xbf"), False
        if self._skip_lf:
            text, self._skip_lf = text.removeprefix(b"\n"), False
        if text.endswith(b"\r"):
            # A CR ends the line now; an LF that may follow in the next read belongs to it.
            self._skip_lf = True
        lines = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._buffer = bytearray(lines.pop())
        events: list[bytes] = []
        for line in lines:
            if line:
                name, _, value = line.partition(b":")
                if name == b"data":
                    self._data.append(value.removeprefix(b" "))
            elif self._data:
                events.append(b"\n".join(self._data))
                self._data = []
        return events


class LineDecoder:
    """JSON lines from bytes that are split anywhere."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that these bytes complete, without blank ones."""
        self._buffer += data
        if b"\n" not in data:
            return []
        *lines, rest = bytes(self._buffer).split(b"\n")
        self._buffer = bytearray(rest)
        return [line for line in lines if line.strip()]
