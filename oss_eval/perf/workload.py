"""What a point of a sweep sends, and when: one request after the other, a trace, or conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import Any

from oss_eval.config.perf_task import OPEN_SECONDS, PerfTask
from oss_eval.endpoint.capabilities import Capabilities
from oss_eval.endpoint.server import Server
from oss_eval.errors import UsageError
from oss_eval.load.effort_mix import effort_mix
from oss_eval.load.generation import generation
from oss_eval.load.plan import STREAMS_A_WORKER, Point
from oss_eval.load.prompts.data_file import read_data
from oss_eval.load.prompts.length_law import length_law
from oss_eval.load.prompts.lengths import Lengths
from oss_eval.load.prompts.prompts import Sized, Source, body, source
from oss_eval.load.prompts.trace_prompts import trace_prompts
from oss_eval.load.schedule.cancellation import cancellation
from oss_eval.load.schedule.closed_loop import ClosedLoop
from oss_eval.load.schedule.open_loop import OpenLoop, arrivals, law
from oss_eval.load.schedule.trace import TraceRequest, arrivals_ns
from oss_eval.load.workers.point_state import FollowUp
from oss_eval.perf.conversations import Conversations
from oss_eval.perf.trace import describe_trace
from oss_eval.system.environment import usable_cores

Requests = Iterator[tuple[bytes, int]]
"""(body, planned start in ns after the start of the point)."""


class Workload:
    """The requests of a sweep's points. Raises UsageError for prompts that can't be read."""

    def __init__(
        self,
        task: PerfTask,
        server: Server,
        capabilities: Capabilities,
        seed: int,
        lengths: Lengths,
        trace: list[TraceRequest] | None,
    ) -> None:
        self._task, self._server, self._capabilities = task, server, capabilities
        self._seed, self._lengths, self._trace = seed, lengths, trace
        self._conversations: Conversations | None = None
        data = None if task.data is None else read_data(task.data)
        if task.turns is not None:
            self._conversations = Conversations(task, seed, lengths, data, server.endpoint.api)
        elif data is not None:
            self._prompts: Source = lambda point: cycle(data)
        elif trace is None:
            self._prompts = source(task, server.model, seed, lengths.counter, lengths.words_per_token)

    @property
    def next_turn(self) -> FollowUp | None:
        """What follows a request in its conversation; None where requests stand alone."""
        return None if self._conversations is None else self._conversations.next_turn

    def of_point(self, point: Point) -> tuple[ClosedLoop | OpenLoop, Requests]:
        """When the requests of a point start, and what they are."""
        task, lengths, make = self._task, self._lengths, self._body_of(point)
        cancel = None if task.cancel is None else cancellation(task.cancel, self._seed)
        if self._trace is not None:
            prompts = trace_prompts(
                self._trace, self._seed, point.point_id, lengths.counter, lengths.words_per_token
            )
            planned = iter(arrivals_ns(self._trace, task.time_scale))
            return OpenLoop(task.max_in_flight, cancel), zip(self._bodies(point, prompts), planned, strict=False)
        if point.rate is not None:
            seed = f"{self._seed}/{point.point_id}/arrivals"
            planned = arrivals(law(task.arrival_law), point.rate, seed, task.ramp)
            return OpenLoop(task.max_in_flight, cancel), zip(self._bodies(point), planned, strict=False)
        loop = ClosedLoop(point.parallel or 1, task.ramp, task.think_time, self._seed, cancel, point.turns)
        if self._conversations is not None:
            return loop, ((first, 0) for first in self._conversations.first(point.point_id, make))
        return loop, ((one, 0) for one in self._bodies(point))

    def effort_of(self, point: Point) -> Callable[[int], str] | None:
        """The effort of each request of a point, by its number; None without a mix of efforts."""
        return None if self._task.mix is None else effort_mix(self._task.mix, f"{self._seed}/{point.point_id}").of

    def _bodies(self, point: Point, prompts: Iterator[Any] | None = None) -> Iterator[bytes]:
        """The requests of a point in order of their numbers."""
        some = self._prompts(point) if prompts is None else prompts
        if self._task.token_ids:
            some = map(self._as_ids, some)
        effort_of = self.effort_of(point)
        if effort_of is None:
            return map(self._body_of(point), some)
        efforts = effort_mix(self._task.mix or "").efforts
        made = {one: self._body_of(point.model_copy(update={"reasoning_effort": one})) for one in efforts}
        return (made[effort_of(number)](prompt) for number, prompt in enumerate(some))

    def _as_ids(self, prompt: Any) -> Sized:
        counter = self._lengths.counter
        text = prompt.text if isinstance(prompt, Sized) else prompt
        if counter is None or not isinstance(text, str):
            raise UsageError("--token-ids needs a tokenizer, and prompts that are texts", "give --tokenizer-path")
        return Sized(text, prompt.max_tokens if isinstance(prompt, Sized) else None, counter.ids(text))

    def _body_of(self, point: Point) -> Callable[[Any], bytes]:
        settings = generation(self._task, self._server.model, point.reasoning_effort)
        settings = self._capabilities.apply(settings)
        return lambda prompt: body(self._server.endpoint.api, prompt, settings)


def check_laws(task: PerfTask) -> None:
    """Raise UsageError for a law of arrivals or lengths, a mix or a cancellation that can't be read."""
    law(task.arrival_law)
    for text, flag in ((task.prompt_length, "--prompt-length"), (task.output_length, "--output-length")):
        if text is not None:
            length_law(text, flag)
    if task.mix is not None:
        effort_mix(task.mix)
    if task.cancel is not None:
        cancellation(task.cancel)


def describe_load(task: PerfTask, points: Sequence[Point], trace: list[TraceRequest] | None) -> Iterator[str]:
    """Lines about what was not given: how many requests, how many workers."""
    if trace is not None:
        yield describe_trace(trace, task)
    elif task.number is None and task.duration is None and task.find is None:
        pairs = " ".join(str(number) for _, number in task.levels())
        how = f"{OPEN_SECONDS} s of arrivals" if task.open_loop else "4 a slot"
        yield f"number {pairs} ({how}, at least 10; set with --number or --duration)"
    if task.workers == "auto" and any(point.workers > 1 for point in points):
        counts = " ".join(str(point.workers) for point in points)
        yield f"workers {counts} (auto: {STREAMS_A_WORKER} streams each, {usable_cores()} cores)"
