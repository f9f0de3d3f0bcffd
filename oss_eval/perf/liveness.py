"""Whether a server under load still accepts connections."""

from __future__ import annotations

import time

from oss_eval.endpoint.discovery import reach
from oss_eval.endpoint.endpoint import Endpoint
from oss_eval.endpoint.messages import UNREACHABLE
from oss_eval.errors import EndpointError
from oss_eval.records import RequestRecord

GONE_REQUESTS = 10
GONE_SECONDS = 20.0
"""After so many requests in a row without a connection, over so many seconds, the server is gone: further requests
would only fill the rest of the sweep with failures."""


class ServerLiveness:
    """Counts requests without a connection since the last sign of life."""

    def __init__(self) -> None:
        self._missed = self._tokens = 0
        self._last_sign = time.monotonic()
        self._message = ""

    def start(self) -> None:
        """A point begins: its time counts from now."""
        self._last_sign, self._tokens = time.monotonic(), 0

    def ended(self, record: RequestRecord) -> None:
        """A request has ended."""
        if record.error_kind in UNREACHABLE:
            self._missed += 1
            self._message = record.error_message or ""
        elif record.status != "cancelled":
            self._missed, self._last_sign = 0, time.monotonic()

    def tokens_received(self, tokens: int) -> None:
        """Token events of the point so far. A server that refuses some connections and streams on others is
        alive."""
        if tokens != self._tokens:
            self._tokens, self._missed, self._last_sign = tokens, 0, time.monotonic()

    @property
    def failure(self) -> str | None:
        """That the server is gone; None while it is not."""
        return self._gone() if self._is_gone() else None

    def failure_after_waiting(self, endpoint: Endpoint, connect_timeout: float) -> str | None:
        """The same at the end of a point, after waiting for a server that may be restarting."""
        while self._missed >= GONE_REQUESTS:
            try:
                reach(endpoint, connect_timeout)
            except EndpointError:
                if self._is_gone():
                    return self._gone()
                time.sleep(0.5)
            else:
                break
        return None

    def _is_gone(self) -> bool:
        return self._missed >= GONE_REQUESTS and time.monotonic() - self._last_sign > GONE_SECONDS

    def _gone(self) -> str:
        return f"the server can't be reached any more: {self._missed} requests in a row, {self._message}"
