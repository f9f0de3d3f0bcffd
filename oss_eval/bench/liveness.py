"""Progress of a benchmark run: what is answered, what failed, and whether the run can continue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oss_eval.endpoint.messages import UNREACHABLE, http_error
from oss_eval.endpoint.server import Server
from oss_eval.errors import EndpointError, OssEvalError
from oss_eval.records import RequestRecord, SampleRecord

if TYPE_CHECKING:
    from oss_eval.results.writer import RunWriter

GONE_SAMPLES = 10
"""After so many samples in a row that could not reach the server it is gone; more would only become failures."""


class RunMonitor:
    """Counts requests and samples that have ended."""

    def __init__(self, server: Server, writer: RunWriter) -> None:
        self._server, self._run_id, self._session = server, writer.run_id, writer.session
        self._scored = self._unreachable = 0
        self._points = 0.0
        self.done = 0
        """Samples that have ended."""
        self.request_ended = False
        """Whether any request has ended by itself, with an answer or an error."""
        self.answered = False
        """Whether any request was answered."""
        self.fatal: OssEvalError | None = None
        """Why the run can't continue."""

    @property
    def note(self) -> str:
        """The score of the point so far."""
        return f"score {self._points / self._scored:.1%}" if self._scored else ""

    def begin(self) -> None:
        """A point begins."""
        self._scored, self._points = 0, 0.0

    def request(self, record: RequestRecord) -> None:
        """A request has ended."""
        self.request_ended |= record.status != "cancelled"
        self.answered |= record.status == "ok"
        if not self.answered and record.http_status in (401, 403, 404):
            self.fatal = http_error(self._server.endpoint, record.http_status, record.error_message or "")

    def sample(self, record: SampleRecord) -> None:
        """A sample has ended."""
        self.done += 1
        self.request_ended = True
        if record.score is not None:
            self._scored += 1
            self._points += record.score
        self._unreachable = self._unreachable + 1 if record.error_kind in UNREACHABLE else 0
        if self._unreachable >= GONE_SAMPLES:
            hint = f"start it again, then: oss-eval resume {self._run_id}"
            if not self.answered and self._session == 1:
                hint = "start it and run the command again; nothing was answered, so nothing is stored"
            self.fatal = EndpointError(
                f"{self._server.endpoint.url} can't be reached any more: {record.error_message}", hint
            )
