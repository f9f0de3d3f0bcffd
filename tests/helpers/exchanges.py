"""Single exchanges over the probe's own connection, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import uvloop

from oss_eval.probe.connection import Connection
from oss_eval.probe.decode import ResponseDecoder
from oss_eval.probe.outcome import Outcome
from oss_eval.probe.poller import Poller
from oss_eval.probe.reply import Reply
from oss_eval.probe.target import Target, resolve
from oss_eval.records import RequestRecord
from tests.helpers.scripted_server import ScriptedServer


class Asked:
    """One exchange in this process: how it ended, and what was decoded."""

    def __init__(self, outcome: Outcome, record: RequestRecord, reply: Reply, connection: Connection) -> None:
        self.outcome, self.record, self.reply, self.connection = outcome, record, reply, connection


def ask(
    server: ScriptedServer,
    body: bytes = b"{}",
    times: int = 1,
    context: object = None,
    host: str | None = None,
    keep_text: bool = True,
    patient: bool = False,
    during: Callable[[Connection], object] | None = None,
) -> list[Asked]:
    """Exchanges over one connection, in turn."""
    name = host or server.host
    target = Target(name, server.port, context is not None, "/v1/chat/completions", (), resolve(name, server.port))

    async def go() -> list[Asked]:
        reads: list[tuple[int, int, bytes]] = []
        loop = asyncio.get_running_loop()
        poller = Poller(loop, patient=patient)
        connection = Connection(
            loop,
            poller,
            target,
            context,  # type: ignore[arg-type]
            lambda tag, kernel, seen, data: reads.append((kernel, seen, data)),
        )
        asked = []
        for number in range(times):
            reads.clear()
            if not connection.is_open:
                await connection.open(5)
            request = target.head() + b"Content-Length: %d\r\n\r\n" % len(body) + body
            exchange = asyncio.ensure_future(connection.exchange(number, request, lambda start: None))
            if during is not None:
                await asyncio.sleep(0.1)
                during(connection)
            outcome = await asyncio.wait_for(exchange, 10)
            record = blank_record(outcome.start_ns)
            decoder = ResponseDecoder(record, keep_text=keep_text)
            for kernel, seen, data in reads:
                decoder.feed(kernel, seen, data)
            decoder.finish(outcome.error_kind, outcome.error_message)
            asked.append(Asked(outcome, record, decoder.reply, connection))
        connection.close()
        poller.close()
        return asked

    return uvloop.run(go())


def blank_record(start_ns: int = 0) -> RequestRecord:
    return RequestRecord(
        run_id="r", point_id="p", request_id="p/0", worker=0, warmup=False, attempt=1, model="m",
        reasoning_effort=None, parallel=1, rate=None, scheduled_ns=None, start_ns=start_ns,
    )  # fmt: skip
