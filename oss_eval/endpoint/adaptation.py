"""Requests in the form that a server takes, learned from the fields that it refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable

from oss_eval.endpoint.capabilities import Capabilities
from oss_eval.probe.apis import Generation
from oss_eval.records import RequestRecord


class RequestAdapter:
    """Sends a request, and again in another form when the server refuses a field. Safe to use from any thread."""

    def __init__(
        self,
        capabilities: Capabilities | None = None,
        on_change: Callable[[str], None] = lambda note: None,
        until_first_answer: bool = False,
    ) -> None:
        """`on_change` gets a note for each changed field. `until_first_answer`: change nothing once a request has
        succeeded, because all answers of a run have to be comparable."""
        self.capabilities = capabilities or Capabilities()
        """What is known of the server so far."""
        self._on_change, self._until_first_answer = on_change, until_first_answer
        self._answered = False
        self._lock = threading.Lock()

    def send(self, generation: Generation, send: Callable[[Generation], RequestRecord]) -> RequestRecord:
        """The record of the last attempt: a success, or a failure that no change of a field would mend.

        `send` sends one request with the settings that it gets. Each change drops a field for good, so the number
        of attempts is bounded.
        """
        while True:
            capabilities = self.capabilities
            sent = capabilities.apply(generation)
            record = send(sent)
            if record.status == "ok":
                self._answered = True
                return record
            if not self._learn(capabilities, sent, record):
                return record

    def _learn(self, capabilities: Capabilities, sent: Generation, record: RequestRecord) -> bool:
        """Whether a refused request can be sent again in another form."""
        if record.http_status not in (400, 422):
            return False
        with self._lock:
            if self.capabilities is not capabilities:
                return True  # another thread has learned it meanwhile
            if self._until_first_answer and self._answered:
                return False
            changed = capabilities.after_refusal(record.http_status, record.error_message or "", sent)
            if changed is None:
                return False
            self.capabilities = changed
            self._on_change(changed.notes[-1])
            return True
