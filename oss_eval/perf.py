"""The load sweep, from a validated task to a stored run."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from oss_eval import provenance
from oss_eval.checks import Client, ClockWatch, check_point, together
from oss_eval.config import STREAMS_A_WORKER, PerfTask, Point, grid
from oss_eval.endpoints import choose_model, in_words, parse_url, reach
from oss_eval.errors import BrokenOff, EndpointError, OssEvalError, UsageError
from oss_eval.load.runner import Fleet, PointEnd, check_descriptors
from oss_eval.load.workload import (
    VOCABULARY,
    Counter,
    Source,
    body,
    generation,
    load_tokenizer,
    read_prompt,
    source,
)
from oss_eval.probe.dialects import Generation
from oss_eval.progress import Progress
from oss_eval.records import RequestRecord
from oss_eval.resume import Rest, check_api, check_model, check_simulated, prompt_hash, rest
from oss_eval.session import (
    Made,
    Order,
    Server,
    close,
    introduce,
    limits,
    public_task,
    put_aside,
    simulator_behind,
    stopping,
    whom_to_ask,
)
from oss_eval.settle import ADAPTATIONS, Settled, settle
from oss_eval.simulate.process import parse_sim_url, running
from oss_eval.simulate.profiles import SERVER

PROBE_WORDS = (64, 192)
"""Lengths of the two prompts that show how the server counts words as tokens."""
PROBE_TOKENS = 16
UNREACHABLE = ("connect", "timeout_connect", "tls")
GONE = 10
"""So many requests in a row that found no server, over GONE_SECONDS: it is gone, and asking on would only fill the
rest of the sweep with failures."""
GONE_SECONDS = 20.0
LENGTH_FIELDS = ("max_tokens", "max_completion_tokens", "min_tokens")


def run(
    task: PerfTask,
    order: Order,
    kind: str = "perf",
    points: list[Point] | None = None,
    resumed: Path | None = None,
    missing: bool = False,
) -> Made:
    """Carry out a sweep and store it: the points of the task's grid, or those given; or, with `resumed`, what that
    stored sweep still lacks (see `resume.rest`).

    Raises OssEvalError for what the user can put right before anything is measured. Ctrl-C ends the sweep early
    with what was finished stored, or is raised on when nothing was; so does whatever it can't go on with.
    """
    from oss_eval.writer import RunWriter, new_run_id

    if task.prompt is not None:
        read_prompt(task.prompt)  # a mistake in it should not have to wait for the server
    cores = provenance.usable_cores()
    check_descriptors(points or grid(task, cores), max(1, len(task.url)))
    simulator, endpoints = whom_to_ask(task, order.access)
    with contextlib.ExitStack() as stack:
        model = task.model or (parse_sim_url(simulator).profile.model if simulator else None)
        if not simulator:
            model = choose_model(endpoints[0], task.model)
        assert model is not None
        if resumed is None:
            writer = RunWriter(order.out, new_run_id(kind, order.name or model), {"kind": kind})
            todo = Rest(points or grid(task, cores), {})
            todo.todo.update({point.point_id: range(point.number) for point in todo.points})
        else:
            writer = RunWriter.reopen(resumed)  # locked from here on
            todo = Rest([], {})
        before = dict(writer.manifest)
        sweep: _Sweep | None = None
        try:
            if resumed is not None:
                todo = rest(resumed, missing)
            if resumed is not None and todo.todo:
                known = simulator
                if not simulator:
                    reach(endpoints[0], task.connect_timeout)
                    known = simulator_behind(endpoints[0], task.connect_timeout)
                check_simulated(before, known is not None)
                check_api(before, task, endpoints)
                check_model(model, simulator, endpoints, task.connect_timeout)
            if simulator and todo.todo:
                url = stack.enter_context(running(simulator, writer.path / "truth.jsonl"))
                endpoints = (parse_url(url, task.api),)
            sweep = _Sweep(task, order, todo, Server(endpoints, model, simulator), writer)
            sweep.run()
            made = Made(writer.path, "finished")
        except (KeyboardInterrupt, OssEvalError) as error:
            if sweep is None or not sweep.measured:
                _undo(writer, None if resumed is None else before)
                raise
            interrupted = isinstance(error, KeyboardInterrupt)
            sweep.interrupts = max(sweep.interrupts, interrupted)  # it may have come between two points
            reason = "interrupted" if interrupted else str(error)
            made = Made(writer.path, "interrupted" if interrupted else "failed", reason, sweep.interrupts > 1)
        except BaseException:
            writer.leave()  # whatever broke, finished requests stay
            raise
        return close(writer, made, sweep.interrupts, sweep.store)


def _undo(writer: Any, before: dict[str, Any] | None) -> None:
    """Nothing was measured: a new run goes, a resumed one is again what it was."""
    if before is None:
        writer.discard()
    else:
        writer.manifest = {**before, "sessions": writer.manifest.get("sessions", [])}
        writer.finish(before["status"])


class _Sweep:
    """One run under way: what its steps share."""

    def __init__(self, task: PerfTask, order: Order, todo: Rest, server: Server, writer: Any) -> None:
        self.task, self.order, self.server, self.writer = task, order, server, writer
        self.points, self.todo = todo.points, todo
        self.started = server.simulator is not None
        self.progress = Progress(order.log_every)
        stored = writer.manifest.get("seed")
        self.seed = next(
            (seed for seed in (task.seed, stored) if seed is not None), random.SystemRandom().randrange(2**31)
        )
        self.counter: Counter | None = None
        self.lengths = ""
        self.server_header = ""
        self.last: list[RequestRecord] = []
        self.measured = self.succeeded = 0
        self.interrupts = 0
        self.point: Point | None = None
        """The one under way."""
        self.unreachable = self.tokens = 0
        """Requests in a row that found no server, since `reached`; token events of the point by then."""
        self.reached = 0.0
        self.words = ""
        self.clients = {name: Client(**values) for name, values in writer.manifest.get("client", {}).items()}
        self.clock = ClockWatch()
        self.cores = provenance.usable_cores()
        self.settled = Settled()

    # -- listening to the fleet ------------------------------------------------------------------------

    def record(self, record: RequestRecord) -> None:
        """A request is over."""
        if record.error_message:
            record.error_message = self.server.hide(record.error_message)
        self.writer.add(record)
        if record.error_kind in UNREACHABLE:
            self.unreachable += 1
            self.words = record.error_message or ""
        elif record.status != "cancelled":
            self.unreachable, self.reached = 0, time.monotonic()
        if record.warmup:
            self.last.append(record)
            return
        self.measured += 1
        self.succeeded += record.status == "ok"
        self.progress.done(record.status)

    def idle(self, in_flight: int, tokens: int) -> str | None:
        """Several times a second."""
        self.clock.look(time.monotonic(), time.time(), time.monotonic())
        self.progress.idle(in_flight, tokens)
        if tokens != self.tokens:  # it does not take everybody, but it is there
            self.tokens, self.unreachable, self.reached = tokens, 0, time.monotonic()
        try:
            self.writer.flush_due()
        except OssEvalError as error:
            return error.message
        if self.unreachable >= GONE and time.monotonic() - self.reached > GONE_SECONDS:
            return self._gone()
        return None

    def stopping(self, in_flight: int) -> None:
        """The first Ctrl-C."""
        self.progress.say(stopping(in_flight, self.order.grace))

    def _gone(self) -> str:
        return f"the server can't be reached any more: {self.unreachable} requests in a row, {self.words}"

    # -- the run ---------------------------------------------------------------------------------------

    def run(self) -> None:
        """Announce, probe, warm up, sweep."""
        task, server = self.task, self.server
        self._announce()
        for line in put_aside(self.writer):
            self.progress.say(line)
        if not self.todo.todo:
            self.progress.say("nothing is missing")
            return
        if task.tokenizer_path:
            self._load_tokenizer(task.tokenizer_path)
        reading = server.reading(task, self.counter.count if self.counter else None)
        workers = max(point.workers for point in self.points)
        self.settled = settle(server, task)
        with Fleet(
            self.writer.run_id, server.targets(), limits(task, self.order.grace), workers, reading
        ) as fleet:
            ratio = self._probe(fleet)
            prompts = source(task, server.model, self.seed, self.counter, ratio)
            self.writer.write_manifest(**self._manifest(ratio))
            with self.progress:
                if task.warmup:
                    size = min(task.warmup, max(task.parallel))
                    point = Point(point_id=self._own("warmup"), index=-1, parallel=size, number=task.warmup,
                                  warmup=True, reasoning_effort=(task.reasoning_effort or (None,))[0])  # fmt: skip
                    self._check(fleet.run_point(point, server.model, self._bodies(point, prompts(point)), self))
                for point in self.points:
                    if point.point_id in self.todo.todo:
                        self._measure(fleet, point, prompts)

    def _measure(self, fleet: Fleet, point: Point, prompts: Source) -> None:
        """One point, or what is missing of it."""
        tags = self.todo.todo[point.point_id]
        self.point, self.reached, self.tokens = point, time.monotonic(), 0
        begun = dict.fromkeys([*self.writer.manifest.get("begun", []), point.point_id])
        self.writer.write_manifest(begun=list(begun))
        self.progress.start(self._title(point), len(tags))
        end = fleet.run_point(
            point,
            self.server.model,
            self._bodies(point, prompts(point)),
            self,
            tags if len(tags) < point.number else None,
        )
        self.progress.end()
        client = _client(point, end)
        before = self.clients.get(point.point_id)
        self.clients[point.point_id] = client if before is None else together(before, client)
        self.writer.flush()
        self.writer.write_manifest(client={name: asdict(client) for name, client in self.clients.items()})
        self._check(end)
        if self.unreachable >= GONE and not self._is_back():
            raise BrokenOff(self._gone())
        self.point = None

    def _is_back(self) -> bool:
        """Whether the server takes connections again, within what is left of its patience."""
        while True:
            try:
                reach(self.server.endpoint, self.task.connect_timeout)
            except EndpointError:
                if time.monotonic() - self.reached > GONE_SECONDS:
                    return False
                time.sleep(0.5)
            else:
                return True

    def _own(self, name: str) -> str:
        """The name of a point beside the plan: each session has its own."""
        return name if self.writer.session == 1 else f"{name}-{self.writer.session}"

    def _generation(self, effort: str | None) -> Generation:
        return self.settled.apply(generation(self.task, self.server.model, effort))

    def _title(self, point: Point) -> str:
        effort = f" {point.reasoning_effort}" if point.reasoning_effort else ""
        return f"point {self.points.index(point) + 1}/{len(self.points)}{effort} parallel {point.parallel}"

    def _check(self, end: PointEnd) -> None:
        self.interrupts = end.interrupts
        if end.interrupts:
            raise KeyboardInterrupt
        if end.broken:
            raise BrokenOff(end.broken)

    def store(self, made: Made) -> Made:
        """Close the run's files and write its summary; how the run ended. Raises StoreError."""
        from oss_eval.runs import load_run, summary_rows
        from oss_eval.writer import write_summary

        self.writer.seal()
        report = load_run(self.writer.path)
        if made.status == "finished" and not any(point.metrics.get("success_rate") for point in report.points):
            made = replace(made, status="failed")
        broke_off = None
        if made.status == "failed" and made.reason:
            broke_off = {"point_id": self.point and self.point.point_id, "reason": made.reason}
        checks = {
            point.point_id: [
                asdict(finding)
                for finding in check_point(
                    point.metrics, self.clients.get(point.point_id), "user" in point.clock_sources, point.failures
                )
            ]
            for point in report.points
        }
        write_summary(self.writer.path, summary_rows(report))
        known = self.writer.manifest.get("run_checks", [])
        self.writer.finish(
            made.status,
            broke_off=broke_off,
            finished=datetime.now(UTC).isoformat(),
            clock_source=sorted({source for point in report.points for source in point.clock_sources}),
            checks=checks,
            run_checks=[*known, *(asdict(finding) for finding in self.clock.findings())],
        )
        return made

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
        elif str(self.writer.manifest.get("prompt_lengths_by", "")).startswith("tokenizer "):
            raise UsageError(
                f"the run's prompts were made with the tokenizer {path}, which is not to be had now: {found}",
                "make it available where it was, or begin a run of its own",
            )
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
            point_id=self._own("probe"),
            index=-1,
            parallel=1,
            number=len(prompts),
            warmup=True,
            reasoning_effort=effort,
        )
        for attempt in range(ADAPTATIONS + 1):
            self.last.clear()
            if attempt:
                point = point.model_copy(update={"point_id": f"{point.point_id.partition('~')[0]}~{attempt + 1}"})
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
        stored = self.writer.manifest.get("words_per_token")
        if stored is not None:  # the same prompts as before
            self.lengths = self.writer.manifest["prompt_lengths_by"]
            return float(stored)
        short, long = (record.prompt_tokens for record in sorted(self.last, key=lambda r: r.prompt_tokens or 0))
        if not short or not long or long <= short:
            self.lengths = "words, because the server does not count prompt tokens"
            self.progress.say(f"prompt lengths are {self.lengths}; --tokenizer-path makes them exact")
            return 1.0
        self.lengths = "the server's own counts"
        return (PROBE_WORDS[1] - PROBE_WORDS[0]) / (long - short)

    def _manifest(self, ratio: float) -> dict[str, Any]:
        task, order, server, before = self.task, self.order, self.server, self.writer.manifest
        session = {
            "started": datetime.now(UTC).isoformat(),
            "command": provenance.command_line(),
            "points": list(self.todo.todo),
        }
        described: dict[str, Any] = {
            "status": "running",
            "request": self.settled.described(),
            "endpoint": server.described(
                order, before.get("endpoint"), server=self.server_header or None, started=self.started
            ),
            "points": [point.model_dump(mode="json") for point in self.points],
            "environment": provenance.environment(),
            "sessions": [*before.get("sessions", [])[: self.writer.session - 1], session],
            "broke_off": None,
        }
        if self.writer.session > 1:
            # What was there before stays: the first session's name and command, what it was asked to do.
            aside = {"set_aside": self.todo.set_aside, "damaged": self.writer.set_aside}
            return {**described, **{key: value for key, value in aside.items() if value}}
        return {
            "name": order.name,
            "labels": order.labels,
            "created": session["started"],
            "command": session["command"],
            "model": server.model,
            "task": public_task(task),
            "asked": sorted(task.model_fields_set),
            "workload": _workload_text(task),
            "prompt_hash": prompt_hash(task),
            "prompt_lengths_by": self.lengths or None,
            "words_per_token": ratio,
            "seed": self.seed,
            **described,
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
