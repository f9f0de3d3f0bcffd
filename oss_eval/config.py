"""What the user asked for, validated once and frozen.

A `PerfTask` has the same keys as the flags of `oss-eval perf` (with `_` for `-`), so a task file and a
command line are merged key by key, and one set of messages serves both.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from oss_eval.errors import UsageError


def _as_list(value: Any) -> Any:
    """A single value stands for a list of one, in YAML as on the command line."""
    return [value] if isinstance(value, (int, str)) else value


def _as_json(value: Any) -> Any:
    """A JSON object given as text, as EvalScope's `--extra-args` is."""
    if not isinstance(value, str):
        return value
    try:
        parsed = json.loads(value)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON ({error.msg} at character {error.pos + 1})") from None
    if not isinstance(parsed, dict):
        raise ValueError(f'a JSON object like {{"ignore_eos": true}} is needed, not {type(parsed).__name__}')
    return parsed


Positive = Annotated[int, Field(ge=1)]
Ints = Annotated[tuple[Positive, ...], BeforeValidator(_as_list), Field(min_length=1)]
Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_as_list)]
Seconds = Annotated[float, Field(gt=0)]


class PerfTask(BaseModel):
    """A load sweep: which requests, how many at a time, how often.

    Lengths are tokens, timeouts seconds. `parallel` and `number` pair up, one pair a point; with efforts,
    every effort runs every pair.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["perf"] = "perf"
    name: str = ""
    description: str = ""

    url: str | None = None
    api: Literal["openai", "chat", "completions"] = "openai"
    model: str | None = None

    parallel: Ints = (1, 10, 50, 100)
    number: Ints | None = None
    reasoning_effort: Names = ()
    warmup: Annotated[int, Field(ge=0)] = 0
    workers: Literal["auto"] | Positive = "auto"

    dataset: str = "random"
    dataset_path: str | None = None
    prompt: str | None = None
    min_prompt_length: Positive = 512
    max_prompt_length: Positive = 512
    prefix_length: Annotated[int, Field(ge=0)] = 0
    tokenizer_path: str | None = None

    max_tokens: Positive | None = None
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stream: bool = True
    seed: int | None = None
    extra_args: Annotated[dict[str, Any], BeforeValidator(_as_json)] = Field(default_factory=dict)

    connect_timeout: Seconds = 5.0
    read_timeout: Seconds = 600.0
    total_timeout: Seconds = 3600.0

    @model_validator(mode="after")
    def _agree(self) -> PerfTask:
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
        """(parallel, number) of each level; without `number`, 4 requests a slot and at least 10.

        Four waves: one that starts as a burst, and three in which the server's own rhythm shows.
        """
        if self.number is None:
            return [(parallel, max(10, 4 * parallel)) for parallel in self.parallel]
        numbers = self.number * len(self.parallel) if len(self.number) == 1 else self.number
        return list(zip(self.parallel, numbers, strict=True))


class Point(BaseModel):
    """One cell of the grid: an effort, a concurrency and the number of requests."""

    model_config = ConfigDict(frozen=True)

    point_id: str
    index: int
    parallel: int
    number: int
    reasoning_effort: str | None = None
    warmup: bool = False
    workers: int = 1


STREAMS_A_WORKER = 512
"""One process takes 1,024 streams of 66 tokens/s with half of one core (benchmarks/); this leaves room."""


def auto_workers(parallel: int, cores: int) -> int:
    """Worker processes for a level: as many as its streams call for, one core left to the main process."""
    return max(1, min(cores - 1, -(-parallel // STREAMS_A_WORKER)))


def grid(task: PerfTask, cores: int) -> list[Point]:
    """Points of a sweep in the order they run: all levels of the first effort, then the next.

    `cores` is how many this machine has for `workers: auto`.
    """
    points: list[Point] = []
    for effort in task.reasoning_effort or (None,):
        for parallel, number in task.levels():
            index = len(points)
            name = re.sub(r"[^A-Za-z0-9._]+", "_", effort) + "-" if effort else ""
            point_id = f"{index:02d}-{name}c{parallel}"
            workers = auto_workers(parallel, cores) if task.workers == "auto" else min(task.workers, parallel)
            points.append(
                Point(
                    point_id=point_id,
                    index=index,
                    parallel=parallel,
                    number=number,
                    reasoning_effort=effort,
                    workers=workers,
                )
            )
    return points


def perf_task(values: dict[str, Any], where: str) -> PerfTask:
    """Validate merged task-file and command-line values.

    Raises UsageError that names the flag, the value given and what it should be; `where` is the file or
    command the values came from.
    """
    try:
        return PerfTask(**values)
    except ValidationError as error:
        lines = [_explain(item) for item in error.errors(include_url=False)]
        raise UsageError("\n".join(lines), f"the flags and task keys are listed by `{where} --help`") from None


def _explain(item: Any) -> str:
    """One pydantic finding in the words of the command line."""
    message = str(item["msg"]).removeprefix("Value error, ")
    if not item["loc"]:
        return message
    key = str(item["loc"][0])
    if item["type"] == "extra_forbidden":
        from difflib import get_close_matches

        near = get_close_matches(key, PerfTask.model_fields, n=1)
        return f"unknown key {key!r}" + (f": did you mean {near[0]!r}?" if near else "")
    message = message.replace("Input should be", "must be")
    return f"--{key.replace('_', '-')} {item['input']!r}: {message}"
