"""Whether a server under load is still there."""

from __future__ import annotations

import time

from oss_eval.endpoint.discovery import reach
from oss_eval.endpoint.endpoint import Endpoint
from oss_eval.endpoint.messages import UNREACHABLE
from oss_eval.errors import EndpointError
from oss_eval.records import RequestRecord

GONE = 10
"""So many requests in a row that found no server, over GONE_SECONDS: it is gone, and asking on would only fill the
rest of the sweep with failures."""
GONE_SECONDS = 20.0


class ServerLiveness:
    """Requests that found no server, since the last sign of life."""

    def __init__(self) -> None:
        self._missed = self._tokens = 0
        self._felt = time.monotonic()
        self._words = ""

    def start(self) -> None:
        """A point begins: what was before is no reason to give it up sooner."""
        self._felt, self._tokens = time.monotonic(), 0

    def ended(self, record: RequestRecord) -> None:
        """A request is over."""
        if record.error_kind in UNREACHABLE:
            self._missed += 1
            self._words = record.error_message or ""
        elif record.status != "cancelled":
            self._missed, self._felt = 0, time.monotonic()

    def heard(self, tokens: int) -> None:
        """The point has so many token events: a server that does not take everybody is there all the same."""
        if tokens != self._tokens:
            self._tokens, self._missed, self._felt = tokens, 0, time.monotonic()

    @property
    def lost(self) -> str | None:
        """Why it is no use to go on, None while it is."""
        return self._gone() if self._patience_over() else None

    def failure_after_waiting(self, endpoint: Endpoint, connect_timeout: float) -> str | None:
        """At the end of a point: the same, having waited for a server that may only be starting again."""
        while self._missed >= GONE:
            try:
                reach(endpoint, connect_timeout)
            except EndpointError:
                if self._patience_over():
                    return self._gone()
                time.sleep(0.5)
            else:
                break
        return None

    def _patience_over(self) -> bool:
        return self._missed >= GONE and time.monotonic() - self._felt > GONE_SECONDS

    def _gone(self) -> str:
        return f"the server can't be reached any more: {self._missed} requests in a row, {self._words}"
