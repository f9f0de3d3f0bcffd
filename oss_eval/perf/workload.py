"""What a point of a sweep sends, and when: one request after the other, a trace, or conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count, cycle
from typing import Any

from oss_eval.config.perf_task import OPEN_SECONDS, PerfTask
from oss_eval.config.task import validated
from oss_eval.config.task_files import find_task, read_task
from oss_eval.endpoint.capabilities import Capabilities
from oss_eval.endpoint.server import Server
from oss_eval.errors import UsageError
from oss_eval.load.generation import generation
from oss_eval.load.mix import Mix, MixPart, parse_mix
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
        self._mixed: dict[str, PerfTask] = {}
        """The parts of a mix that are task files."""
        if task.turns is not None:
            data = None if task.data is None else read_data(task.data)
            self._conversations = Conversations(task, seed, lengths, data, server.endpoint.api)
        elif trace is None:
            self._mixed = mixed_tasks(task)
            self._sources = {name: self._source(one) for name, one in self._mixed.items()}
            self._prompts = self._source(task)

    def _source(self, task: PerfTask) -> Source:
        """Where the prompts of the task, or of a part of its mix, come from."""
        if task.data is not None:
            own = read_data(task.data)
            return lambda point: cycle(own)
        lengths = self._lengths
        return source(task, self._server.model, self._seed, lengths.counter, lengths.words_per_token)

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

    def part_of(self, point: Point) -> Callable[[int], MixPart] | None:
        """What each request of a point is, by its number; None without a mix."""
        if self._task.mix is None:
            return None
        mix = self._mix(point)
        parts = {name: self._part(name) for name in mix.names}
        return lambda number: parts[mix.of(number)]

    def _mix(self, point: Point) -> Mix:
        return parse_mix(self._task.mix or "", f"{self._seed}/{point.point_id}")

    def _part(self, name: str) -> MixPart:
        task = self._mixed.get(name)
        return MixPart(name) if task is None else MixPart((task.reasoning_effort or (None,))[0], name)

    def _bodies(self, point: Point, prompts: Iterator[Any] | None = None) -> Iterator[bytes]:
        """The requests of a point in order of their numbers."""
        if self._task.mix is not None and prompts is None:
            return self._mixed_bodies(point)
        some = self._prompts(point) if prompts is None else prompts
        if self._task.token_ids:
            some = map(self._as_ids, some)
        return map(self._body_of(point), some)

    def _mixed_bodies(self, point: Point) -> Iterator[bytes]:
        mix, own = self._mix(point), self._prompts(point)
        makers, prompts = {}, {}
        for name in mix.names:
            part = point.model_copy(update={"reasoning_effort": self._part(name).effort})
            makers[name] = self._body_of(part, self._mixed.get(name))
            # Parts have prompts of their own: equal beginnings would be found in a prefix cache.
            apart = point.model_copy(update={"point_id": f"{point.point_id}/{name}"})
            prompts[name] = self._sources[name](apart) if name in self._sources else own
        for name in map(mix.of, count()):
            prompt = next(prompts[name])
            yield makers[name](self._as_ids(prompt) if self._task.token_ids else prompt)

    def _as_ids(self, prompt: Any) -> Sized:
        counter = self._lengths.counter
        text = prompt.text if isinstance(prompt, Sized) else prompt
        if counter is None or not isinstance(text, str):
            raise UsageError("--token-ids needs a tokenizer, and prompts that are texts", "give --tokenizer-path")
        return Sized(text, prompt.max_tokens if isinstance(prompt, Sized) else None, counter.ids(text))

    def _body_of(self, point: Point, task: PerfTask | None = None) -> Callable[[Any], bytes]:
        settings = generation(task or self._task, self._server.model, point.reasoning_effort)
        settings = self._capabilities.apply(settings)
        return lambda prompt: body(self._server.endpoint.api, prompt, settings)


PROMPTS = (
    "prompt", "data", "dataset", "dataset_path", "min_prompt_length", "max_prompt_length", "prompt_length",
    "output_length", "prefix_length", "prefix_count", "reasoning_effort",
)  # fmt: skip
"""Settings that a task file of a mix has of its own alone."""
SAMPLING = ("max_tokens", "min_tokens", "temperature", "top_p", "extra_args")
"""Settings that hold for all parts of a mix that do not set them."""


def mixed_tasks(task: PerfTask) -> dict[str, PerfTask]:
    """The task files of a mix, by name: their prompts and sampling settings with everything else of the task.
    Raises UsageError and TaskError."""
    if task.mix is None:
        return {}
    rest = {name: value for name, value in task.model_dump(exclude_unset=True).items() if name not in PROMPTS}
    found = {}
    for name in parse_mix(task.mix).tasks:
        own = {
            key: value for key, value in read_task(find_task(name), "perf").items() if key in (*PROMPTS, *SAMPLING)
        }
        found[name] = validated(PerfTask, {**rest, **own, "mix": None}, "oss-eval perf")
        if len(found[name].reasoning_effort) > 1:
            raise UsageError(
                f"--mix: the task file {name} has several efforts", "give each part of a mix one effort"
            )
    return found


def check_laws(task: PerfTask) -> None:
    """Raise UsageError for a law of arrivals or lengths, a mix or a cancellation that can't be read."""
    law(task.arrival_law)
    for text, flag in ((task.prompt_length, "--prompt-length"), (task.output_length, "--output-length")):
        if text is not None:
            length_law(text, flag)
    mixed_tasks(task)
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
