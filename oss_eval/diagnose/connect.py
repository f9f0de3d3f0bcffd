"""Single requests to a server, in the form that it takes: for `ask` and `doctor`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from oss_eval.config.task import Task
from oss_eval.endpoint.adaptation import RequestAdapter
from oss_eval.endpoint.auth import Auth
from oss_eval.endpoint.capabilities import Capabilities, request_capabilities
from oss_eval.endpoint.server import Server, connected, find_server, running_server
from oss_eval.load import generation as settings
from oss_eval.load.client import Answer, RequestClient
from oss_eval.probe.apis import DIALECTS, Generation, Prompt
from oss_eval.records import RequestRecord
from oss_eval.run.options import limits


@dataclass(slots=True)
class ServerSession:
    """A connection to a server for single requests."""

    server: Server
    task: Task
    client: RequestClient
    adapter: RequestAdapter
    requests_sent: int = 0
    last_body: dict[str, Any] = field(default_factory=dict)

    @property
    def capabilities(self) -> Capabilities:
        """What is known of the server so far."""
        return self.adapter.capabilities

    @capabilities.setter
    def capabilities(self, value: Capabilities) -> None:
        self.adapter.capabilities = value

    def ask(
        self, prompt: Prompt, generation: Generation, on_text: Callable[[str, str], None] | None = None
    ) -> Answer:
        """An answer, failed or not. Fields that the server refuses are left out from then on."""
        answers: list[Answer] = []

        def send(sent: Generation) -> RequestRecord:
            self.last_body = DIALECTS[self.server.endpoint.api].body(prompt, sent)
            self.requests_sent += 1
            record = RequestRecord(
                run_id="ask", point_id="ask", request_id=str(self.requests_sent), worker=0, warmup=False,
                attempt=1, model=self.server.model, reasoning_effort=sent.reasoning_effort, parallel=1,
            )  # fmt: skip
            answers.append(self.client.ask(record, orjson.dumps(self.last_body), on_text).result())
            return record

        self.adapter.send(generation, send)
        return answers[-1]

    def generation(self, **changes: Any) -> Generation:
        """The task's settings, with changes."""
        effort = self.task.reasoning_effort[0] if self.task.reasoning_effort else None
        return settings.generation(self.task, self.server.model, effort, **changes)


@contextlib.contextmanager
def open_session(task: Task, auth: Auth) -> Iterator[ServerSession]:
    """Connect to the server that a task names, or that answers on this machine. Raises OssEvalError."""
    with running_server(connected(find_server(task, auth), task.connect_timeout), task.api) as server:
        adapter = RequestAdapter(request_capabilities(server, task))
        with RequestClient("ask", server.targets(), limits(task), server.reading(task), server.secrets) as client:
            yield ServerSession(server, task, client, adapter)
