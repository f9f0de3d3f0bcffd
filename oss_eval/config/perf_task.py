"""The settings of a load sweep."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import model_validator

from oss_eval.config.fields import LOAD, REQUESTS, Flag, HourlyPrice, Ints, NotNegative, Positive
from oss_eval.config.task import Task


class PerfTask(Task):
    """A load sweep: which requests, how many at a time, how often.

    Lengths are tokens. `parallel` and `number` pair up, one pair a point; with efforts, every effort runs every
    pair.
    """

    kind: Literal["perf"] = "perf"
    """Type of the task."""

    parallel: Annotated[Ints, Flag(LOAD, "N")] = (1, 10, 50, 100)
    """requests in flight, one point each"""
    number: Annotated[Ints | None, Flag(LOAD, "N", aliases=("-n",))] = None
    """requests a point: one for each --parallel, or one for all (default: 4 for each in flight, at least 10)"""
    repeat: Annotated[Positive, Flag(LOAD, "N")] = 1
    """measure every point N times, in shuffled order and with other prompts: intervals then hold over repeats"""
    workers: Annotated[Literal["auto"] | Positive, Flag(LOAD, "auto|N")] = "auto"
    """processes that hold the connections; auto: by concurrency and cores"""
    server_metrics: Annotated[str, Flag(LOAD, "auto|off|URL")] = "auto"
    """the server's own metrics (Prometheus): auto: /metrics beside the API, if there"""
    gpu_telemetry: Annotated[str, Flag(LOAD, "auto|off|dcgm:URL")] = "auto"
    """power and load of the server's GPUs: auto: NVML, if the server is on this machine; or a DCGM exporter"""
    gpu_price: Annotated[HourlyPrice | None, Flag(LOAD, "PRICE/h", as_text=True)] = None
    """price an hour of all GPUs of the server together, e.g. 2.5/h: gives the price of a million output tokens"""
    warmup: Annotated[NotNegative, Flag(LOAD, "N", aliases=("--warmup-num",))] = 0
    """requests before the first point, stored but not counted"""

    prompt: Annotated[str | None, Flag(REQUESTS, "TEXT|@FILE")] = None
    """one prompt for all requests"""
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
        if self.number is not None and len(self.number) not in (1, len(self.parallel)):
            raise ValueError(
                f"--parallel has {len(self.parallel)} values and --number has {len(self.number)}: "
                "give one number for each level, or one for all"
            )
        if self.min_prompt_length > self.max_prompt_length:
            raise ValueError(
                f"--min-prompt-length {self.min_prompt_length} is above "
                f"--max-prompt-length {self.max_prompt_length}"
            )
        if self.min_tokens and self.max_tokens and self.min_tokens > self.max_tokens:
            raise ValueError(f"--min-tokens {self.min_tokens} is above --max-tokens {self.max_tokens}")
        return self

    def levels(self) -> list[tuple[int, int]]:
        """(parallel, number) of each level; without `number`, 4 requests for each in flight and at least 10.

        Four waves: one that starts as a burst, and three at the server's own pace.
        """
        if self.number is None:
            return [(parallel, max(10, 4 * parallel)) for parallel in self.parallel]
        numbers = self.number * len(self.parallel) if len(self.number) == 1 else self.number
        return list(zip(self.parallel, numbers, strict=True))
