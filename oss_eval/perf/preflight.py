"""The first requests of a sweep: which fields the server takes, and how many words make a token."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, repeat
from typing import Any

from oss_eval.analysis.slo import objectives
from oss_eval.config.perf_task import PerfTask
from oss_eval.endpoint.adaptation import RequestAdapter
from oss_eval.endpoint.capabilities import Capabilities, request_capabilities
from oss_eval.endpoint.messages import in_words
from oss_eval.endpoint.server import Server, simulator_named
from oss_eval.load.generation import generation
from oss_eval.load.plan import Point
from oss_eval.load.prompts.lengths import UNCOUNTED, Lengths, by_counts, by_tokenizer, probes
from oss_eval.load.prompts.prompts import body, read_prompt
from oss_eval.models.machine import get_machine
from oss_eval.perf.slo_search import search_of
from oss_eval.perf.workload import check_laws
from oss_eval.probe.apis import Generation
from oss_eval.records import RequestRecord

PROBE_TOKENS = 32
"""Enough to see whether chunks hold several tokens, also where their number varies."""
TRANSIENT = ("http_429", "http_5xx", "stream_broken")
"""Failures of the first request that may pass in a moment."""
RETRIES = 2
RETRY_SECONDS = 0.5
LENGTH_FIELDS = ("max_tokens", "max_completion_tokens", "min_tokens")

SendPoint = Callable[[Point, Iterator[bytes]], tuple[list[RequestRecord], str | None]]
"""Sends the requests of a point and returns their records and the server's Server header."""


def check_task(task: PerfTask) -> None:
    """Find the errors of a task that need no server. Raises UsageError."""
    check_laws(task)
    objectives(task.slo)
    if task.gpu is not None:
        get_machine(task.gpu)
    if task.find is not None:
        search_of(task)
    if task.prompt is not None:
        read_prompt(task.prompt)


@dataclass(frozen=True, slots=True)
class Preflight:
    """What the first requests showed."""

    server: Server
    capabilities: Capabilities
    lengths: Lengths


def tokenizer_lengths(task: PerfTask, manifest: dict[str, Any], say: Callable[[str], None]) -> Lengths:
    """Prompt lengths by the task's tokenizer; uncounted ones without it. `manifest` is a resumed run's, or
    empty."""
    if not task.tokenizer_path:
        return Lengths()
    lengths = by_tokenizer(task.tokenizer_path, manifest or None)
    if isinstance(lengths, Lengths):
        return lengths
    say(f"tokenizer {task.tokenizer_path}: {lengths}")
    return Lengths()


def check_server_answers(
    task: PerfTask,
    server: Server,
    lengths: Lengths,
    seed: int,
    name: str,
    stored: dict[str, Any],
    send_point: SendPoint,
    say: Callable[[str], None],
) -> Preflight:
    """One or two short requests: does the server answer, which fields does it refuse, how many words make a token?

    `name` is the point id of these requests, `stored` the manifest of a resumed run. Raises EndpointError.
    """
    no_text = task.prompt is None and task.data is None and task.dataset == "random"
    count_words = no_text and lengths.counter is None
    known = request_capabilities(server, task)
    counted = task.stream and server.endpoint.api in ("chat", "completions")
    adapter = RequestAdapter(
        replace(known, continuous_usage=counted), lambda note: say(f"the server refuses a field: {note}")
    )
    first = _FirstRequests(task, server, probes(seed)[: 2 if count_words else 1], name, send_point)
    settings = _short(task, generation(task, server.model, first.effort))
    for retry in range(RETRIES + 1):
        record = adapter.send(settings, first.send)
        if record.status == "ok":
            break
        if record.error_kind not in TRANSIENT or retry == RETRIES:
            raise in_words(server.endpoint, record, task.connect_timeout)
        adapter.capabilities = replace(adapter.capabilities, continuous_usage=False)  # in case it is the reason
        say(f"the first request failed ({record.error_kind}); it is sent again")
        time.sleep(RETRY_SECONDS)
    server = _with_header(server, first.header or "", say)
    if count_words:
        lengths = _lengths(stored, first.records, say)
    capabilities = adapter.capabilities
    if capabilities.continuous_usage and not _has_several(record):
        capabilities = replace(capabilities, continuous_usage=False)
    return Preflight(server, capabilities, lengths)


def _has_several(record: RequestRecord) -> bool:
    """Whether the events of a stream hold several tokens, by the server's counts.

    Only then is a sweep to ask for them: at 256 streams they take vLLM's API server a tenth of its speed
    (benchmarks/README.md). The first event, and one at the change from reasoning to answer, can have tokens
    without text beside their own.
    """
    later = list(record.event_tokens or ())[1:]
    several = sum(tokens > 1 for tokens in later)
    return several > 1 or (several == 1 and len(later) <= 2)


class _FirstRequests:
    """Sends the first requests as a point of their own, each attempt under its own point id."""

    def __init__(
        self, task: PerfTask, server: Server, prompts: list[str], name: str, send_point: SendPoint
    ) -> None:
        self._api, self._prompts, self._name, self._send_point = server.endpoint.api, prompts, name, send_point
        self.effort = (task.reasoning_effort or (None,))[0]
        self._attempt = 0
        self.records: list[RequestRecord] = []
        self.header: str | None = None

    def send(self, settings: Generation) -> RequestRecord:
        """The record of the first request that failed, else of the last one."""
        self._attempt += 1
        point = Point(
            point_id=self._name if self._attempt == 1 else f"{self._name}~{self._attempt}",
            index=-1, parallel=1, number=len(self._prompts), warmup=True, reasoning_effort=self.effort,
        )  # fmt: skip
        bodies = (body(self._api, prompt, settings) for prompt in chain(self._prompts, repeat("")))
        self.records, self.header = self._send_point(point, bodies)
        return next((record for record in self.records if record.status != "ok"), self.records[-1])


def _short(task: PerfTask, settings: Generation) -> Generation:
    """The same settings with an answer of a few tokens."""
    extra = tuple((key, value) for key, value in settings.extra if key not in LENGTH_FIELDS)
    shortest = None if task.min_tokens is None else min(task.min_tokens, PROBE_TOKENS)
    return replace(settings, max_tokens=PROBE_TOKENS, min_tokens=shortest, extra=extra)


def _lengths(stored: dict[str, Any], records: list[RequestRecord], say: Callable[[str], None]) -> Lengths:
    """Words a token from the server's counts; a resumed run keeps its own, so that its prompts stay the same."""
    words_per_token = stored.get("words_per_token")
    if words_per_token is not None:
        return Lengths(None, float(words_per_token), stored["prompt_lengths_by"])
    lengths = by_counts([record.prompt_tokens for record in records])
    if lengths.by == UNCOUNTED:
        say(f"prompt lengths are {lengths.by}; --tokenizer-path makes them exact")
    return lengths


def _with_header(server: Server, header: str, say: Callable[[str], None]) -> Server:
    """The server with its Server header. A simulator must not be taken for a model."""
    simulator = simulator_named(header)
    if simulator and not server.simulator:
        say(f"SIMULATED: this server is oss-eval's simulator ({simulator}), no model is run")
        return replace(server, header=header, simulator=simulator)
    return replace(server, header=header or None)
