"""The settings of a load sweep."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from oss_eval.config.fields import (
    LOAD,
    REQUESTS,
    Duration,
    Flag,
    HourlyPrice,
    Ints,
    Names,
    NotNegative,
    Positive,
    Rates,
    TimeRange,
    TimeSpan,
    Warmup,
    WholeRange,
)
from oss_eval.config.task import DistributedTask, RayWorkers

OPEN_SECONDS = 60
"""Seconds of arrivals in a point of an open loop, without --number and --duration."""
AUTO_SECONDS = 10.0
"""Warm-up of a point of an open loop with --warmup auto."""


RANDOM_TEXT = (
    "prompt_length", "output_length", "min_prompt_length", "max_prompt_length", "prefix_length", "prefix_count",
)  # fmt: skip
"""Settings of random prompts."""


class PerfTask(DistributedTask):
    """A load sweep: which requests, how many at a time, how often.

    Lengths are tokens, times seconds. `parallel` (or `rate`) and `number` pair up, one pair a point; with efforts,
    every effort runs every pair.
    """

    kind: Literal["perf"] = "perf"
    """Type of the task."""

    parallel: Annotated[Ints, Flag(LOAD, "N")] = (1, 10, 50, 100)
    """requests in flight, one point each"""
    rate: Annotated[Rates | None, Flag(LOAD, "R", aliases=("--request-rate",))] = None
    """requests per second, one point each: requests start when planned, whatever the server does"""
    arrival: Annotated[str | None, Flag(LOAD, "poisson|constant|gamma:CV")] = None
    """with --rate: law of the times between arrivals; gamma with its coefficient of variation (default poisson)"""
    burstiness: Annotated[
        Annotated[float, Field(gt=0, allow_inf_nan=False)] | None,
        Flag(LOAD, "SHAPE", aliases=("--arrival-smoothness",)),
    ] = None
    """with --rate: gamma arrivals by their shape, as in vLLM: 1 is poisson, below 1 more bursty"""
    max_in_flight: Annotated[Positive, Flag(LOAD, "N")] = 4096
    """with --rate: a request that is due while so many are in flight starts late"""
    number: Annotated[Ints | None, Flag(LOAD, "N", aliases=("-n",))] = None
    """requests a point: one for each --parallel or --rate, or one for all (default: 4 for each in flight, at least
    10; with --rate 60 s of arrivals, at least 10)"""
    duration: Annotated[Duration | None, Flag(LOAD, "TIME", as_text=True)] = None
    """measure every point for so long, e.g. 30s or 5m, instead of a number of requests"""
    ramp: Annotated[TimeSpan, Flag(LOAD, "TIME", as_text=True)] = 0.0
    """slots begin, or the rate rises, over so long; requests that start in this time are not counted"""
    think_time: Annotated[TimeRange, Flag(LOAD, "S|MIN-MAX", as_text=True, show_default=False)] = (0.0, 0.0)
    """seconds that a slot waits between two requests"""
    turns: Annotated[WholeRange | None, Flag(LOAD, "N|MIN-MAX", as_text=True)] = None
    """conversations of so many turns: a slot sends the next turn when the answer has come, with all history;
    --number is then that of conversations"""
    trace: Annotated[str | None, Flag(LOAD, "FILE")] = None
    """replay a trace: Mooncake's JSON lines, Azure's or BurstGPT's CSV; demo: the one that ships with oss-eval"""
    time_scale: Annotated[Annotated[float, Field(gt=0, allow_inf_nan=False)], Flag(LOAD, "X")] = 1.0
    """with --trace: replay it X times as fast"""
    limit: Annotated[Positive | None, Flag(LOAD, "N")] = None
    """with --trace: its first N requests only"""
    repeat: Annotated[Positive, Flag(LOAD, "N")] = 1
    """measure every point N times, in shuffled order and with other prompts: intervals then hold over repeats"""
    workers: Annotated[Literal["auto"] | Positive | RayWorkers, Flag(LOAD, "auto|N|ray[:N]")] = "auto"
    """processes that hold the connections; auto: by concurrency and cores; ray: on the nodes of a Ray cluster, one
    on each or N"""
    slo: Annotated[Names, Flag(LOAD, "CONDITION")] = ()
    """service level objectives, e.g. 'ttft_p99<2s' 'tpot_p95<50ms' 'success>99%': goodput and attainment of every
    point"""
    find: Annotated[Literal["max-parallel", "max-rate"] | None, Flag(LOAD)] = None
    """search for the highest concurrency, or request rate, that meets --slo; begins at --parallel or --rate"""
    stop_when: Annotated[Literal["saturated"] | None, Flag(LOAD)] = None
    """saturated: end the sweep where more load gives no more throughput, or the queue only grows"""
    server_metrics: Annotated[str, Flag(LOAD, "auto|off|URL")] = "auto"
    """the server's own metrics (Prometheus): auto: /metrics beside the API, if there"""
    gpu_telemetry: Annotated[str, Flag(LOAD, "auto|off|dcgm:URL")] = "auto"
    """power and load of the server's GPUs: auto: NVML, if the server is on this machine; or a DCGM exporter"""
    gpu: Annotated[str | None, Flag(LOAD, "GPU[xN]")] = None
    """the server's machine, e.g. H100-80GBx2, for bounds of its speed (default: the one that telemetry sees)"""
    gpu_price: Annotated[HourlyPrice | None, Flag(LOAD, "PRICE/h", as_text=True)] = None
    """price an hour of all GPUs of the server together, e.g. 2.5/h: gives the price of a million output tokens"""
    warmup: Annotated[Warmup, Flag(LOAD, "N|TIME|auto", aliases=("--warmup-num",), as_text=True)] = 0
    """requests, or time, at the start of every point that are stored but not counted; auto: one request in each
    slot. Load then goes on without a pause from point to point"""

    prompt: Annotated[str | None, Flag(REQUESTS, "TEXT|@FILE")] = None
    """one prompt for all requests"""
    data: Annotated[str | None, Flag(REQUESTS, "FILE")] = None
    """prompts of your own: JSON lines of prompts, messages, bodies or ShareGPT conversations, JSON, CSV,
    Parquet, text; hub:OWNER/NAME for a dataset"""
    dataset: Annotated[str, Flag(REQUESTS, "NAME")] = "random"
    """random, or one of EvalScope's: openqa, line_by_line, ..."""
    dataset_path: Annotated[str | None, Flag(REQUESTS, "PATH")] = None
    """local file or folder of an EvalScope dataset"""
    min_prompt_length: Annotated[Positive, Flag(REQUESTS, "TOKENS")] = 512
    """random prompts: minimum length"""
    max_prompt_length: Annotated[Positive, Flag(REQUESTS, "TOKENS")] = 512
    """random prompts: maximum length"""
    prefix_length: Annotated[NotNegative, Flag(REQUESTS, "TOKENS")] = 0
    """random prompts: length of a common prefix, in addition to the prompt length"""
    prefix_count: Annotated[Positive, Flag(REQUESTS, "N")] = 1
    """random prompts: number of different prefixes, which prompts have in turn"""
    prompt_length: Annotated[str | None, Flag(REQUESTS, "LAW")] = None
    """random prompts: law of their lengths: 512, 256-1024, normal:512:100, lognormal:512:0.5 (median and sigma),
    or file:PATH"""
    output_length: Annotated[str | None, Flag(REQUESTS, "LAW")] = None
    """random prompts: law of the maximum length of each answer; of a file, the second number of a line"""
    token_ids: Annotated[bool, Flag(REQUESTS)] = False
    """send prompts as token ids (completions, with --tokenizer-path): their length is then exact"""
    mix: Annotated[str | None, Flag(REQUESTS, "NAME:W,...")] = None
    """a mix of reasoning efforts, or of task files, in every point: low:0.7,high:0.3 or
    chat.yaml:0.7,report.yaml:0.3"""
    cancel: Annotated[str | None, Flag(REQUESTS, "SHARE:TIME")] = None
    """cancel a share of the requests so long after their start, as users do, e.g. 0.1:2s"""
    reset_cache: Annotated[bool, Flag(LOAD)] = False
    """empty the server's prefix cache before every point (vLLM in development mode, SGLang)"""
    tokenizer_path: Annotated[str | None, Flag(REQUESTS, "PATH|ID")] = None
    """tokenizer for prompt lengths, and to count the tokens of answers without usage"""
    min_tokens: Annotated[NotNegative | None, Flag(REQUESTS, "TOKENS")] = None
    """minimum length of an answer (vLLM, SGLang)"""

    @model_validator(mode="after")
    def _agree(self) -> PerfTask:
        if self.server_metrics not in ("auto", "off") and not self.server_metrics.startswith(
            ("http://", "https://")
        ):
            raise ValueError(f"--server-metrics {self.server_metrics} is not auto, off or an http(s) URL")
        if self.gpu_telemetry not in ("auto", "off") and not self.gpu_telemetry.startswith(
            ("dcgm:http://", "dcgm:https://")
        ):
            raise ValueError(
                f"--gpu-telemetry {self.gpu_telemetry} is not auto, off or dcgm: with an http(s) URL, "
                "for example dcgm:http://gpu-host:9400/metrics"
            )
        levels, flag = (self.parallel, "--parallel") if self.rate is None else (self.rate, "--rate")
        if self.number is not None and len(self.number) not in (1, len(levels)):
            raise ValueError(
                f"{flag} has {len(levels)} values and --number has {len(self.number)}: "
                "give one number for each level, or one for all"
            )
        if self.number is not None and self.duration is not None:
            raise ValueError("--number and --duration exclude each other: a point ends by one of them")
        if self.token_ids and (self.tokenizer_path is None or self.api not in ("completions", "openai")):
            raise ValueError("--token-ids needs --tokenizer-path and the completions API")
        if self.token_ids and self.turns is not None:
            raise ValueError("--token-ids and --turns exclude each other")
        if self.mix is not None and (self.reasoning_effort or self.turns is not None):
            raise ValueError("--mix and --reasoning-effort or --turns exclude each other")
        if self.turns is not None:
            if self.rate is not None or self.trace is not None or self.find is not None:
                raise ValueError("--turns needs --parallel: a slot has one conversation at a time")
            if self.warmup and not isinstance(self.warmup, float):
                raise ValueError("--turns takes a time as --warmup, for example 30s")
            if (self.warmup or self.ramp) and self.duration is None:
                raise ValueError("--turns with --warmup or --ramp needs --duration")
            if self.prompt is not None:
                raise ValueError("--turns and --prompt exclude each other: use --data")
        own = "--data" if self.data is not None else "--prompt" if self.prompt is not None else ""
        self._refuse("--trace", self.trace is not None, (*RANDOM_TEXT, "data", "dataset", "dataset_path", "turns"))
        self._refuse(
            "--turns", self.turns is not None, ("prompt_length", "output_length", "prefix_count", "cancel")
        )
        self._refuse(own, bool(own), ("prompt_length", "output_length", "dataset_path"))
        if self.data is not None and self.prompt is not None:
            raise ValueError("--data and --prompt exclude each other")
        self._refuse("--find", self.find is not None, ("stop_when", "cancel"))
        if self.trace is not None:
            for name in ("rate", "find", "duration", "number", "prompt", "arrival", "burstiness"):
                if getattr(self, name) is not None:
                    raise ValueError(f"--trace and --{name} exclude each other: a trace has its own requests")
            if self.ramp or self.warmup or self.think_time != (0.0, 0.0):
                raise ValueError("--trace takes no --warmup, --ramp, --think-time: all its requests are measured")
        elif self.limit is not None or self.time_scale != 1.0:
            raise ValueError("--time-scale and --limit need --trace")
        if self.find is not None and len(self.reasoning_effort) > 1:
            raise ValueError("--find searches at one reasoning effort: run it once for each")
        if self.find is not None and self.repeat > 1:
            raise ValueError("--find and --repeat exclude each other: a level ends when it is known")
        if self.find is not None and self.duration is not None:
            raise ValueError("--find and --duration exclude each other: a level ends when it is known")
        if self.find == "max-parallel" and self.rate is not None:
            raise ValueError("--find max-parallel begins at --parallel; --rate is for --find max-rate")
        if not self.open_loop and (self.burstiness is not None or self.arrival is not None):
            raise ValueError("--arrival and --burstiness need --rate, as a closed loop plans no arrivals")
        if self.open_loop and self.trace is None and self.think_time != (0.0, 0.0):
            raise ValueError("--think-time needs --parallel: requests of an open loop start when planned")
        if self.burstiness is not None and self.arrival is not None:
            raise ValueError("--burstiness and --arrival exclude each other: both are the law of arrivals")
        if self.min_prompt_length > self.max_prompt_length:
            raise ValueError(
                f"--min-prompt-length {self.min_prompt_length} is above "
                f"--max-prompt-length {self.max_prompt_length}"
            )
        if self.min_tokens and self.max_tokens and self.min_tokens > self.max_tokens:
            raise ValueError(f"--min-tokens {self.min_tokens} is above --max-tokens {self.max_tokens}")
        return self

    def _refuse(self, flag: str, given: bool, others: tuple[str, ...]) -> None:
        """Raise ValueError if a setting is given together with one that would have no effect beside it."""
        for name in others if given else ():
            field = type(self).model_fields[name]
            if getattr(self, name) != field.default:
                raise ValueError(f"{flag} and --{name.replace('_', '-')} exclude each other")

    @property
    def open_loop(self) -> bool:
        """Whether requests start at planned times."""
        return self.rate is not None or self.trace is not None or self.find == "max-rate"

    def levels(self) -> list[tuple[float, int | None]]:
        """(parallel or rate, number) of each level; number is None with `duration`. Without both, 4 requests for
        each in flight, or the arrivals of a minute, and at least 10.

        Four waves: one that starts as a burst, and three at the server's own pace.
        """
        levels: tuple[float, ...] = self.parallel if self.rate is None else self.rate
        if self.duration is not None:
            return [(level, None) for level in levels]
        if self.number is None:
            each = 4 if self.rate is None else OPEN_SECONDS
            return [(level, max(10, round(each * level))) for level in levels]
        numbers = self.number * len(levels) if len(self.number) == 1 else self.number
        return list(zip(levels, numbers, strict=True))

    def warmup_amount(self, parallel: int | None) -> int | float:
        """Requests (int) or seconds (float) of warm-up of a point; auto is one request in each slot, in an open
        loop AUTO_SECONDS. A search always has one."""
        if self.warmup != "auto" and (self.warmup or self.find is None):
            return self.warmup
        return AUTO_SECONDS if parallel is None else parallel

    @property
    def arrival_law(self) -> str:
        """`arrival`, or `burstiness` as one."""
        return f"gamma:{self.burstiness**-0.5!r}" if self.burstiness is not None else self.arrival or "poisson"
