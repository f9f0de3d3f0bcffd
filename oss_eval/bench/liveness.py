"""How a benchmark is going: what is answered, what failed, and whether it can go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oss_eval.endpoint.messages import UNREACHABLE, http_error
from oss_eval.endpoint.server import Server
from oss_eval.errors import EndpointError, OssEvalError
from oss_eval.records import RequestRecord, SampleRecord

if TYPE_CHECKING:
    from oss_eval.results.writer import RunWriter

GONE = 10
"""Samples in a row that could not reach the server: it is gone, and asking on would only make failures."""


class RunMonitor:
    """Counts what comes in."""

    def __init__(self, server: Server, writer: RunWriter) -> None:
        self._server, self._run_id, self._session = server, writer.run_id, writer.session
        self._scored = self._unreachable = 0
        self._points = 0.0
        self.done = 0
        """Samples."""
        self.heard = False
        """Whether any request came to an end of its own, well or badly."""
        self.answered = False
        """Whether any request was."""
        self.fatal: OssEvalError | None = None
        """Why the run can't go on."""

    @property
    def note(self) -> str:
        """The score of the point so far."""
        return f"score {self._points / self._scored:.1%}" if self._scored else ""

    def begin(self) -> None:
        """Another point."""
        self._scored, self._points = 0, 0.0

    def request(self, record: RequestRecord) -> None:
        """A request is over."""
        self.heard |= record.status != "cancelled"
        self.answered |= record.status == "ok"
        if not self.answered and record.http_status in (401, 403, 404):
            self.fatal = http_error(self._server.endpoint, record.http_status, record.error_message or "")

    def sample(self, record: SampleRecord) -> None:
        """A sample is over."""
        self.done += 1
        self.heard = True
        if record.score is not None:
            self._scored += 1
            self._points += record.score
        gone = record.error_kind in UNREACHABLE
        self._unreachable = self._unreachable + 1 if gone else 0
        if self._unreachable >= GONE:
            hint = f"start it again, then: oss-eval resume {self._run_id}"
            if not self.answered and self._session == 1:
                hint = "start it and give the command again; nothing was answered, so nothing is stored"
            self.fatal = EndpointError(
                f"{self._server.endpoint.url} can't be reached any more: {record.error_message}", hint
            )
