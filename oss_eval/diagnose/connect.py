"""A few single questions to a server, in the form that it takes: for `ask` and `doctor`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from oss_eval.config.task import Task
from oss_eval.endpoint.auth import Auth
from oss_eval.endpoint.capabilities import ADAPTATIONS, Capabilities, request_capabilities
from oss_eval.endpoint.discovery import choose_model, reach
from oss_eval.endpoint.endpoint import parse_url
from oss_eval.endpoint.server import Server, resolve_endpoints
from oss_eval.load.client import Answer, RequestClient
from oss_eval.probe.apis import DIALECTS, Generation, Prompt
from oss_eval.records import RequestRecord
from oss_eval.run.options import limits
from oss_eval.simulator.process import parse_sim_url, running


@dataclass(slots=True)
class ServerSession:
    """An open line to a server."""

    server: Server
    task: Task
    client: RequestClient
    capabilities: Capabilities
    asked: int = 0
    """Requests sent so far."""
    last_body: dict[str, Any] = field(default_factory=dict)

    def ask(
        self, prompt: Prompt, generation: Generation, on_text: Callable[[str, str], None] | None = None
    ) -> Answer:
        """An answer, failed or not; fields that the server refuses are changed for good, as far as can be."""
        for _ in range(ADAPTATIONS + 1):
            sending = self.capabilities.apply(generation)
            self.last_body = DIALECTS[self.server.endpoint.api].body(prompt, sending)
            self.asked += 1
            record = RequestRecord(
                run_id="ask", point_id="ask", request_id=str(self.asked), worker=0, warmup=False, attempt=1,
                model=self.server.model, reasoning_effort=generation.reasoning_effort, parallel=1,
            )  # fmt: skip
            answer = self.client.ask(record, orjson.dumps(self.last_body), on_text).result()
            if record.error_message:
                record.error_message = self.server.redact(record.error_message)
            changed = self.capabilities.after_refusal(record.http_status, record.error_message or "", sending)
            if record.status == "ok" or changed is None:
                break
            self.capabilities = changed
        return answer

    def generation(self, **changes: Any) -> Generation:
        """The task's settings, with changes."""
        task = self.task
        effort = task.reasoning_effort[0] if task.reasoning_effort else None
        values: dict[str, Any] = {
            "model": self.server.model, "max_tokens": task.max_tokens, "temperature": task.temperature,
            "top_p": task.top_p, "seed": task.seed, "stream": task.stream, "reasoning_effort": effort,
            "extra": tuple(task.extra_args.items()),
        }  # fmt: skip
        return Generation(**{**values, **changes})


@contextlib.contextmanager
def open_session(task: Task, auth: Auth) -> Iterator[ServerSession]:
    """Open a line to the server that a task names, or that answers on this machine. Raises OssEvalError."""
    simulator, endpoints = resolve_endpoints(task, auth)
    with contextlib.ExitStack() as stack:
        if simulator:
            model = task.model or parse_sim_url(simulator).profile.model
            endpoints = (parse_url(stack.enter_context(running(simulator)), task.api),)
        else:
            reach(endpoints[0], task.connect_timeout)
            model = choose_model(endpoints[0], task.model)
        server = Server(endpoints, model, simulator)
        client = stack.enter_context(RequestClient("ask", server.targets(), limits(task), server.reading(task)))
        yield ServerSession(server, task, client, request_capabilities(server, task))
