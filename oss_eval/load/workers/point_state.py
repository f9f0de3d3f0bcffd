"""What the main process knows of a point in progress, and where its finished requests go."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from oss_eval.load.mix import MixPart
from oss_eval.load.plan import Point
from oss_eval.load.workers.measured import Measured
from oss_eval.load.workers.messages import TURNS, NextTurn
from oss_eval.load.workers.request_parts import RequestParts
from oss_eval.probe.decode import ResponseDecoder
from oss_eval.probe.decode_options import DecodeOptions
from oss_eval.probe.known_events import KnownShapes, Shape
from oss_eval.probe.reply import Reply
from oss_eval.records import RequestRecord
from oss_eval.system.signals import Interrupts

FollowUp = Callable[[int, RequestRecord, Reply], bytes | None]
"""(number, record, reply) of a request that has ended -> the next one of its conversation, or None."""


class Listener(Protocol):
    """Receives the events of a point, in the main process."""

    def record(self, record: RequestRecord) -> None:
        """A request has ended."""

    def idle(self, in_flight: int, tokens: int) -> str | None:
        """Called several times a second: requests in flight, token events of the point so far. Returns why the
        point has to end, or None."""

    def stopping(self, in_flight: int) -> None:
        """Ctrl-C: no further request is sent, and these in flight may finish."""


class PointState:
    """Responses in flight, and where the finished ones go."""

    def __init__(
        self,
        run_id: str,
        point: Point,
        model: str,
        listener: Listener,
        reading: DecodeOptions,
        interrupts: Interrupts,
        shapes: KnownShapes,
        tokens_before: int,
    ) -> None:
        self.run_id, self.point, self.model = run_id, point, model
        self.listener = listener
        self.reading = reading
        self.shapes = shapes
        self.interrupts = interrupts
        self.start_ns = 0
        self.measured: Measured | None = None
        """None until connections are open and requests are sent."""
        self.base = 0
        """A request's tag is this and its number."""
        self.parts: RequestParts | None = None
        self.part_of: Callable[[int], MixPart] | None = None
        """What a request of a mix is."""
        self.next_turn: FollowUp | None = None
        """The request that follows in its conversation; None where requests stand alone."""
        self.send: Callable[[int, NextTurn], None] = lambda worker, turn: None
        self.keep_text = False
        """Whether any point of the run needs the texts of answers."""
        self.enough: Callable[[], bool] | None = None
        self.hands_over: Callable[[], bool] = lambda: False
        self.hand_over = self.finishing = False
        self.tokens_before = tokens_before
        self.most_in_flight = 0
        self.reached = 0
        """One more than the highest number of a request, or a conversation, that has started."""
        self.lost: list[str] = []
        """Workers that the point has gone on without: who, and why."""
        self.give_up_at: float | None = None
        """When the grace period ends; None before the first Ctrl-C."""
        self.aborted = False
        self.leave_at = 0.0
        self.broken: str | None = None
        self.dead: set[int] = set()
        self.server: str | None = None

    @property
    def begun(self) -> bool:
        """Whether connections are open and requests are sent."""
        return self.measured is not None

    def begin(
        self, worker: int, number: int, attempt: int, start_ns: int | None, server: int, scheduled_ns: int | None
    ) -> ResponseDecoder:
        """The decoder of a request that has started, or could not."""
        point = self.point
        self.reached = max(self.reached, (number if self.next_turn is None else number // TURNS) + 1)
        when = scheduled_ns or start_ns or time.time_ns()
        part = MixPart(point.reasoning_effort) if self.part_of is None else self.part_of(number)
        record = RequestRecord(
            run_id=self.run_id,
            point_id=point.point_id,
            request_id=f"{point.point_id}/{number}",
            worker=worker,
            warmup=point.warmup or self.measured is None or not self.measured.starts(number, when),
            attempt=attempt,
            model=self.model,
            reasoning_effort=part.effort,
            sample_id=part.task,
            parallel=point.parallel,
            rate=point.rate,
            scheduled_ns=scheduled_ns,
            start_ns=start_ns,
            url=self.reading.url(server),
        )
        if self.next_turn is not None:
            record.conversation, turn = divmod(number, TURNS)
            record.turn = turn + 1
        return self.reading.decoder(record, on_shape=self._on_shape, keep_text=self.next_turn is not None)

    def _on_shape(self, shape: Shape) -> None:
        """A decoder has learned a shape; not where texts are needed, to count tokens or for the next turn."""
        if self.reading.count_tokens is None and not self.keep_text:
            self.shapes.add(shape)

    def end(self, decoder: ResponseDecoder, record: RequestRecord) -> None:
        """A request has ended."""
        self.server = decoder.reply.server or self.server
        number = int(record.request_id.rpartition("/")[2])
        if self.next_turn is not None:
            body = self.next_turn(number, record, decoder.reply)
            self.send(record.worker, NextTurn(self.base + number, body))
        if self.measured is not None:
            self.measured.ends(number)
        self.listener.record(record)
