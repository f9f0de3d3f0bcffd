"""What the user asked for, validated once and frozen.

A task has the same keys as the flags of its command (with `_` for `-`), so a task file and a command line are
merged key by key, and one set of messages serves both.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, TypeVar, get_args

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
Json = Annotated[dict[str, Any], BeforeValidator(_as_json)]


MAX_RESPONSE_BYTES = 64 * 1024 * 1024
"""Of one response; a stream of 128k tokens has about 40 MB."""


class Task(BaseModel):
    """What sweeps and benchmarks have in common: who is asked, and how. Timeouts are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    description: str = ""

    url: Names = ()
    """One server, or several that share the load."""
    api: Literal["openai", "chat", "completions", "responses", "ollama", "ollama-generate"] = "openai"
    model: str | None = None

    reasoning_effort: Names = ()
    effort_style: Literal["auto", "top-level", "extra-body", "chat-template", "think", "system", "none"] = "auto"
    split_think: bool = False
    max_tokens: Positive | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None
    stream: bool = True
    extra_args: Json = Field(default_factory=dict)

    connect_timeout: Seconds = 5.0
    first_token_timeout: Seconds = 600.0
    read_timeout: Seconds = 600.0
    total_timeout: Seconds = 3600.0
    max_response_bytes: Positive = MAX_RESPONSE_BYTES


class PerfTask(Task):
    """A load sweep: which requests, how many at a time, how often.

    Lengths are tokens. `parallel` and `number` pair up, one pair a point; with efforts, every effort runs every
    pair.
    """

    kind: Literal["perf"] = "perf"

    parallel: Ints = (1, 10, 50, 100)
    number: Ints | None = None
    warmup: Annotated[int, Field(ge=0)] = 0
    workers: Literal["auto"] | Positive = "auto"

    dataset: str = "random"
    dataset_path: str | None = None
    prompt: str | None = None
    min_prompt_length: Positive = 512
    max_prompt_length: Positive = 512
    prefix_length: Annotated[int, Field(ge=0)] = 0
    tokenizer_path: str | None = None

    min_tokens: Annotated[int, Field(ge=0)] | None = None

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


PROMPTS = ("evalscope", "openai")
Scorer = Literal["integer", "math", "exact", "choice", "contains", "regex", "judge"]


class BenchTask(Task):
    """A benchmark: which questions, how often each is asked, how answers are graded.

    Either one of EvalScope's (`benchmark`), or the user's own (`dataset` with `prompt`, `target` and `scorer`).
    """

    kind: Literal["bench"] = "bench"

    benchmark: str | None = None
    """EvalScope's name of it."""
    dataset: str | None = None
    """A JSONL, CSV or Parquet file, or the id of a dataset on the hub."""
    subset: str | None = None
    split: str = "test"
    data: str | None = None
    """A local copy of the benchmark's data: a file or a folder."""
    hub: Literal["auto", "modelscope", "huggingface"] = "auto"
    prompt: str = "evalscope"
    """`evalscope` or `openai` for EvalScope's benchmarks, else a template with {column} in it."""
    system_prompt: str | None = None
    target: str = "answer"
    choices: str | None = None
    scorer: Scorer | None = None
    pattern: str | None = None
    judge_model: str | None = None
    judge_url: str | None = None
    judge_prompt: str | None = None
    """Own words for the judge, with {question}, {target}, {response}; asks for VERDICT: CORRECT or INCORRECT."""
    dataset_args: Json = Field(default_factory=dict)
    """More settings of EvalScope's, such as few_shot_num."""
    subsets: dict[str, str] = Field(default_factory=dict)
    """Names for ranges of samples, counted from 1: {"AIME2025-I": "1-15"}."""

    repeats: Positive = 1
    limit: Positive | None = None
    parallel: Literal["auto"] | Positive = 16
    retries: Annotated[int, Field(ge=0)] = 5
    max_failures: Annotated[float, Field(ge=0, le=100)] = 5.0
    """Per cent of the samples."""

    @model_validator(mode="after")
    def _agree(self) -> BenchTask:
        if len(set(self.reasoning_effort)) < len(self.reasoning_effort):
            raise ValueError(f"--reasoning-effort {' '.join(self.reasoning_effort)} names an effort twice")
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise ValueError(f"--pattern {self.pattern!r} is no regular expression: {error}") from None
        if (self.benchmark is None) == (self.dataset is None):
            raise ValueError(
                "a benchmark task has either `benchmark` (one of EvalScope's) or `dataset` (your own)"
            )
        if self.dataset is not None:
            if self.prompt in PROMPTS:
                raise ValueError('`prompt` is missing: a text with the columns of your dataset, like "{question}"')
            if self.scorer is None:
                raise ValueError(f"`scorer` is missing: one of {', '.join(get_args(Scorer))}")
        if self.benchmark is not None and self.prompt not in PROMPTS and "{question}" not in self.prompt:
            raise ValueError(f"prompt {self.prompt!r}: give evalscope, openai or a text with {{question}} in it")
        if self.scorer == "judge" and not self.judge_model:
            raise ValueError("--scorer judge needs --judge-model NAME (and --judge-url URL if it runs elsewhere)")
        if self.api in ("completions", "ollama-generate"):
            raise ValueError(
                f"--api {self.api}: benchmarks are conversations, which need an API that takes messages"
            )
        for name, span in self.subsets.items():
            if not re.fullmatch(r"\d+-\d+", span):
                raise ValueError(f"subsets: {name}: {span!r} is no range like 1-15")
        return self


T = TypeVar("T", bound=Task)


def validated(kind: type[T], values: dict[str, Any], where: str) -> T:
    """Validate merged task-file and command-line values.

    Raises UsageError that names the flag, the value given and what it should be; `where` is the command whose
    help lists the flags.
    """
    try:
        return kind(**values)
    except ValidationError as error:
        lines = [_explain(item, kind) for item in error.errors(include_url=False)]
        raise UsageError("\n".join(lines), f"the flags and task keys are listed by `{where} --help`") from None


def _explain(item: Any, kind: type[Task]) -> str:
    """One pydantic finding in the words of the command line."""
    message = str(item["msg"]).removeprefix("Value error, ")
    if not item["loc"]:
        return message
    key = str(item["loc"][0])
    if item["type"] == "extra_forbidden":
        from difflib import get_close_matches

        near = get_close_matches(key, kind.model_fields, n=1)
        return f"unknown key {key!r}" + (f": did you mean {near[0]!r}?" if near else "")
    message = message.replace("Input should be", "must be")
    return f"--{key.replace('_', '-')} {_short(item['input'])}: {message}"


def _short(value: Any) -> str:
    """A value as it was given, as far as it fits into a message."""
    try:
        text = repr(value)
    except ValueError:  # Python writes out no integer of more than 4,300 digits
        text = f"a number of {value.bit_length()} bits" if isinstance(value, int) else type(value).__name__
    return text if len(text) <= 200 else text[:197] + "..."
