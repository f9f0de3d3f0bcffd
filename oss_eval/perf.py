"""The load sweep, from a validated task to a stored run."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import chain, repeat
from typing import Any

from oss_eval import provenance
from oss_eval.checks import Client, ClockWatch, check_point
from oss_eval.config import STREAMS_A_WORKER, PerfTask, Point, grid
from oss_eval.endpoints import choose_model, in_words, parse_url
from oss_eval.load.runner import Fleet, PointEnd, check_descriptors
from oss_eval.load.workload import VOCABULARY, Counter, body, generation, load_tokenizer, read_prompt, source
from oss_eval.probe.dialects import Generation
from oss_eval.progress import Progress
from oss_eval.records import RequestRecord
from oss_eval.session import Made, Order, Server, introduce, limits, public_task, whom_to_ask
from oss_eval.settle import ADAPTATIONS, Settled, settle
from oss_eval.simulate.process import parse_sim_url, running
from oss_eval.simulate.profiles import SERVER

PROBE_WORDS = (64, 192)
"""Lengths of the two prompts that show how the server counts words as tokens."""
PROBE_TOKENS = 16
LENGTH_FIELDS = ("max_tokens", "max_completion_tokens", "min_tokens")


def run(task: PerfTask, order: Order, kind: str = "perf", points: list[Point] | None = None) -> Made:
    """Carry out a sweep and store it: the points of the task's grid, or those given.

    Raises OssEvalError for what the user can put right before anything is measured. Ctrl-C ends the sweep
    early with what was finished stored, or is raised on when nothing was.
    """
    from oss_eval.store import RunWriter, new_run_id

    points = points or grid(task, provenance.usable_cores())
    if task.prompt is not None:
        read_prompt(task.prompt)  # a mistake in it should not have to wait for the server
    check_descriptors(points)
    progress = Progress(order.log_every)
    simulator, endpoints = whom_to_ask(task, order.access)
    with contextlib.ExitStack() as stack:
        if simulator:
            profile, _ = parse_sim_url(simulator)
            model = task.model or profile.model
        else:
            model = choose_model(endpoints[0], task.model)
        run_id = new_run_id(kind, order.name or model)
        writer = RunWriter(order.out, run_id, {"kind": kind})
        sweep: _Sweep | None = None
        try:
            if simulator:
                url = stack.enter_context(running(simulator, writer.path / "truth.jsonl"))
                endpoints = (parse_url(url, task.api),)
            sweep = _Sweep(task, order, points, Server(endpoints, model, simulator), writer, progress)
            sweep.run()
            status = "finished" if sweep.succeeded else "failed"
        except KeyboardInterrupt:
            if sweep is None or not sweep.measured:
                writer.discard()
                raise
            status = "interrupted"
        except BaseException:
            if sweep is not None and sweep.measured:
                writer.finish("failed")  # whatever broke, finished requests stay
            else:
                writer.discard()
            raise
        sweep.store(status)
    return Made(writer.path, status)


class _Sweep:
    """One run under way: what its steps share."""

    def __init__(
        self,
        task: PerfTask,
        order: Order,
        points: list[Point],
        server: Server,
        writer: Any,
        progress: Progress,
    ) -> None:
        self.task, self.order, self.points, self.server = task, order, points, server
        self.writer, self.progress = writer, progress
        self.seed = task.seed if task.seed is not None else random.SystemRandom().randrange(2**31)
        self.counter: Counter | None = None
        self.lengths = ""
        self.last: list[RequestRecord] = []
        self.measured = self.succeeded = 0
        self.clients: dict[str, Client] = {}
        self.clock = ClockWatch()
        self.cores = provenance.usable_cores()
        self.settled = Settled()

    # -- listening to the fleet ------------------------------------------------------------------------

    def record(self, record: RequestRecord) -> None:
        """A request is over."""
        if record.error_message:
            record.error_message = self.server.hide(record.error_message)
        self.writer.add(record)
        if record.warmup:
            self.last.append(record)
            return
        self.measured += 1
        self.succeeded += record.status == "ok"
        self.progress.done(record.status)

    def idle(self, in_flight: int, tokens: int) -> None:
        """Several times a second."""
        self.clock.look(time.monotonic(), time.time(), time.monotonic())
        self.writer.flush_due()
        self.progress.idle(in_flight, tokens)

    # -- the run ---------------------------------------------------------------------------------------

    def run(self) -> None:
        """Announce, probe, warm up, sweep, store."""
        task, server = self.task, self.server
        self._announce()
        if task.tokenizer_path:
            self._load_tokenizer(task.tokenizer_path)
        reading = server.reading(task, self.counter.count if self.counter else None)
        workers = max(point.workers for point in self.points)
        self.settled = settle(server, task)
        with Fleet(self.writer.run_id, server.targets(), limits(task), workers, reading) as fleet:
            ratio = self._probe(fleet)
            prompts = source(task, server.model, self.seed, self.counter, ratio)
            self.writer.write_manifest(**self._manifest())
            with self.progress:
                if task.warmup:
                    size = min(task.warmup, max(task.parallel))
                    point = Point(point_id="warmup", index=-1, parallel=size, number=task.warmup, warmup=True,
                                  reasoning_effort=(task.reasoning_effort or (None,))[0])  # fmt: skip
                    self._check(fleet.run_point(point, server.model, self._bodies(point, prompts(point)), self))
                for point in self.points:
                    self.progress.start(self._title(point), point.number)
                    end = fleet.run_point(point, server.model, self._bodies(point, prompts(point)), self)
                    self.progress.end()
                    self.clients[point.point_id] = _client(point, end)
                    self.writer.flush()
                    self._check(end)

    def _generation(self, effort: str | None) -> Generation:
        return self.settled.apply(generation(self.task, self.server.model, effort))

    def _title(self, point: Point) -> str:
        effort = f" {point.reasoning_effort}" if point.reasoning_effort else ""
        return f"point {self.points.index(point) + 1}/{len(self.points)}{effort} parallel {point.parallel}"

    def _check(self, end: PointEnd) -> None:
        if end.interrupted:
            raise KeyboardInterrupt

    def store(self, status: str) -> None:
        """Close the run's files and write its summary."""
        from oss_eval.runs import load_run, summary_rows
        from oss_eval.store import write_summary

        self.writer.finish(
            status,
            finished=datetime.now(UTC).isoformat(),
            client={name: asdict(client) for name, client in self.clients.items()},
        )
        report = load_run(self.writer.path)
        checks = {
            point.point_id: [
                asdict(finding)
                for finding in check_point(
                    point.metrics, self.clients.get(point.point_id), "user" in point.clock_sources, point.failures
                )
            ]
            for point in report.points
        }
        self.writer.write_manifest(
            clock_source=sorted({source for point in report.points for source in point.clock_sources}),
            checks=checks,
            run_checks=[asdict(finding) for finding in self.clock.findings()],
        )
        write_summary(self.writer.path, summary_rows(report))

    def _bodies(self, point: Point, prompts: Iterator[Any]) -> Iterator[bytes]:
        settings = self._generation(point.reasoning_effort)
        return (body(self.server.endpoint.api, prompt, settings) for prompt in prompts)

    # -- before the first point ------------------------------------------------------------------------

    def _announce(self) -> None:
        task, server = self.task, self.server
        self.progress.say(introduce(server, bool(task.url)))
        if task.number is None:
            pairs = " ".join(str(number) for _, number in task.levels())
            self.progress.say(f"number {pairs} (4 a slot, at least 10; set with --number)")
        if task.workers == "auto" and any(point.workers > 1 for point in self.points):
            counts = " ".join(str(point.workers) for point in self.points)
            self.progress.say(f"workers {counts} (auto: {STREAMS_A_WORKER} streams each, {self.cores} cores)")

    def _load_tokenizer(self, path: str) -> None:
        found = load_tokenizer(path)
        if isinstance(found, Counter):
            self.counter = found
            self.lengths = f"tokenizer {path}"
        else:
            self.progress.say(
                f"tokenizer {path}: {found}.\n"
                "  Prompt lengths are set by the server's own token counts instead; "
                "give a local folder to use a tokenizer."
            )

    def _probe(self, fleet: Fleet) -> float:
        """One or two short requests before anything is measured: does the server answer as it should, and how
        many words make a token? Returns words per token for random prompts. Raises EndpointError."""
        task = self.task
        lengths = task.prompt is None and task.dataset == "random" and self.counter is None
        rng = random.Random(f"{self.seed}/probe")
        prompts = [
            " ".join(rng.choices(VOCABULARY, k=words)) for words in (PROBE_WORDS if lengths else PROBE_WORDS[:1])
        ]
        effort = (task.reasoning_effort or (None,))[0]
        point = Point(
            point_id="probe", index=-1, parallel=1, number=len(prompts), warmup=True, reasoning_effort=effort
        )
        for _ in range(ADAPTATIONS + 1):
            self.last.clear()
            settings = self._generation(effort)
            extra = tuple((k, v) for k, v in settings.extra if k not in LENGTH_FIELDS)
            shortest = None if task.min_tokens is None else min(task.min_tokens, PROBE_TOKENS)
            settings = replace(settings, max_tokens=PROBE_TOKENS, min_tokens=shortest, extra=extra)
            bodies = (body(self.server.endpoint.api, prompt, settings) for prompt in chain(prompts, repeat("")))
            end = fleet.run_point(point, self.server.model, bodies, self)
            self._check(end)
            failed = next((record for record in self.last if record.status != "ok"), None)
            changed = failed and self.settled.adapted(failed.http_status, failed.error_message or "", settings)
            if not changed:
                break
            self.settled = changed
            self.progress.say(f"the server refuses a field: {changed.notes[-1]}")
        if failed:
            raise in_words(self.server.endpoint, failed, task.connect_timeout)
        self.server_header = end.server or ""
        if self.server_header.startswith(SERVER) and not self.server.simulator:
            simulator = f"sim://{self.server_header.removeprefix(SERVER)}"
            self.server = replace(self.server, simulator=simulator)
            self.progress.say(f"SIMULATED: this server is oss-eval's simulator ({simulator}), no model is run")
        if not lengths:
            return 1.0
        short, long = (record.prompt_tokens for record in sorted(self.last, key=lambda r: r.prompt_tokens or 0))
        if not short or not long or long <= short:
            self.lengths = "words, because the server does not count prompt tokens"
            self.progress.say(f"prompt lengths are {self.lengths}; --tokenizer-path makes them exact")
            return 1.0
        self.lengths = "the server's own counts"
        return (PROBE_WORDS[1] - PROBE_WORDS[0]) / (long - short)

    def _manifest(self) -> dict[str, Any]:
        task, order, server = self.task, self.order, self.server
        return {
            "name": order.name,
            "labels": order.labels,
            "created": datetime.now(UTC).isoformat(),
            "command": provenance.command_line(),
            "model": server.model,
            "task": public_task(task),
            "request": self.settled.described(),
            "asked": sorted(task.model_fields_set),
            "workload": _workload_text(task),
            "prompt_lengths_by": self.lengths or None,
            "seed": self.seed,
            "endpoint": server.described(order, server=self.server_header or None),
            "points": [point.model_dump(mode="json") for point in self.points],
            "environment": provenance.environment(),
        }


def _client(point: Point, end: PointEnd) -> Client:
    """What the workers said of a point, summed up."""
    done = end.workers
    waited = [w.waited_seconds / w.wall_seconds for w in done if w.waited_seconds is not None and w.wall_seconds]
    return Client(
        workers=len(done),
        cores=provenance.usable_cores(),
        slots=point.parallel,
        connections=sum(w.connections for w in done),
        reconnects=sum(w.reconnects for w in done),
        wall_seconds=max((w.wall_seconds for w in done), default=0.0),
        cpu_seconds=sum(w.cpu_seconds for w in done),
        main_cpu_seconds=end.main_cpu_seconds,
        waited_share=max(waited, default=None),
        longest_stall_seconds=max((w.longest_stall_seconds for w in done), default=0.0),
        longest_flush_seconds=max((w.longest_flush_seconds for w in done), default=0.0),
        held_back_seconds=sum(w.held_back_seconds for w in done),
    )


def _workload_text(task: PerfTask) -> str:
    """What is sent, in a few words."""
    low, high = task.min_prompt_length, task.max_prompt_length
    if task.prompt is not None:
        text = task.prompt if len(task.prompt) <= 60 else task.prompt[:57] + "..."
        sent = f"the prompt {text!r}"
    elif task.dataset == "random":
        sent = f"random prompts of {low if low == high else f'{low}-{high}'} tokens"
        if task.prefix_length:
            sent += f" after a common prefix of {task.prefix_length}"
    else:
        sent = f"prompts from {task.dataset}"
    out = f", at most {task.max_tokens} tokens out" if task.max_tokens else ""
    return sent + out + ("" if task.stream else ", not streamed")
