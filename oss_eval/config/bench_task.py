"""The settings of a benchmark."""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from oss_eval.config.fields import DATA, LOAD, REQUESTS, Flag, Json, NotNegative, Positive
from oss_eval.config.task import DistributedTask, RayWorkers

PROMPTS = ("evalscope", "openai")
MOST_REPEATS = 64
"""Most answers to a sample with `--until`."""
Scorer = Literal["integer", "math", "exact", "choice", "contains", "regex", "judge"]


class BenchTask(DistributedTask):
    """A benchmark: which samples, how often each is asked, how answers are scored.

    Either one of EvalScope's (`benchmark`), or the user's own (`dataset` with `prompt`, `target` and `scorer`).
    """

    kind: Literal["bench"] = "bench"
    """Type of the task."""

    benchmark: str | None = None
    """EvalScope's name of the benchmark."""
    dataset: str | None = None
    """A JSONL, CSV or Parquet file, or the id of a dataset on the hub."""
    subset: str | None = None
    """Subset of the dataset on the hub."""
    split: str = "test"
    """Split of the dataset on the hub."""
    target: str = "answer"
    """Column of the right answer."""
    choices: str | None = None
    """Column of the options of a multiple-choice question."""
    judge_prompt: str | None = None
    """Prompt of the judge, with {question}, {target}, {response}; asks for VERDICT: CORRECT or INCORRECT."""
    subsets: dict[str, str] = Field(default_factory=dict)
    """Names for ranges of samples, counted from 1: {"AIME2025-I": "1-15"}."""

    repeats: Annotated[Positive, Flag(LOAD, "K", show_default=False)] = 1
    """answers to each sample (epochs); with --until, as many as it takes, at most 64 or this number"""
    until: Annotated[str | None, Flag(LOAD, "±E|decided")] = None
    """stop when the score is known to ±E on these problems, or is told from that of --against RUN"""
    against: Annotated[str | None, Flag(LOAD, "RUN")] = None
    """for --until decided: the run with the reference's answers to the same problems"""
    budget_tokens: Annotated[Positive | None, Flag(LOAD, "N")] = None
    """most tokens of all answers together; needs --max-tokens"""
    budget_usd: Annotated[Annotated[float, Field(gt=0)] | None, Flag(LOAD, "X")] = None
    """most money for all answers together, by the prices of the named endpoint; needs --max-tokens"""
    limit: Annotated[Positive | None, Flag(LOAD, "N")] = None
    """only the first N samples of each subset"""
    parallel: Annotated[Literal["auto"] | Positive, Flag(LOAD, "N|auto")] = 16
    """requests in flight; auto grows while throughput grows and shrinks on HTTP 429 and 503"""
    workers: Annotated[Literal["local"] | RayWorkers, Flag(LOAD, "local|ray[:N]")] = "local"
    """ask and score on this machine, or on the nodes of a Ray cluster: on each, or by N workers"""
    retries: Annotated[NotNegative, Flag(LOAD, "N")] = 5
    """retries of a request after a failure that may pass"""
    max_failures: Annotated[Annotated[float, Field(ge=0, le=100)], Flag(LOAD, "PERCENT")] = 5.0
    """percentage of failed samples above which the run has failed"""

    prompt: Annotated[str, Flag(REQUESTS, "NAME|TEXT")] = "evalscope"
    """evalscope, openai, or a template with {question} in it; of an own dataset a template with {column}"""
    system_prompt: Annotated[str | None, Flag(REQUESTS, "TEXT")] = None
    """system message before the question"""

    data: Annotated[str | None, Flag(DATA, "PATH")] = None
    """a local copy of the data: a file, a folder, or a folder with one folder for each task"""
    hub: Annotated[Literal["auto", "modelscope", "huggingface"], Flag(DATA)] = "auto"
    """where data is downloaded from without --data"""
    dataset_args: Annotated[Json, Flag(DATA, "JSON")] = Field(default_factory=dict)
    """settings of EvalScope's benchmark, e.g. '{"few_shot_num": 0}'"""
    scorer: Annotated[Scorer | None, Flag(DATA)] = None
    """scorer to use instead of the task's own"""
    pattern: Annotated[str | None, Flag(DATA, "REGEX")] = None
    """for --scorer regex: its last group is the answer"""
    judge_model: Annotated[str | None, Flag(DATA, "NAME")] = None
    """model that scores answers, where a model does"""
    judge_url: Annotated[str | None, Flag(DATA, "URL")] = None
    """server of the judge model (key from OSS_EVAL_JUDGE_KEY)"""

    @property
    def error(self) -> float | None:
        """The E of `--until ±E`."""
        return None if self.until in (None, "decided") else float(str(self.until).lstrip("±+-"))

    @property
    def stops(self) -> bool:
        """Whether answers are asked for only as far as a goal or a budget calls for them."""
        return self.until is not None or self.budget_tokens is not None or self.budget_usd is not None

    @property
    def most_repeats(self) -> int:
        """Most answers to a sample."""
        return self.repeats if self.until is None else max(self.repeats, MOST_REPEATS)

    @model_validator(mode="after")
    def _stops(self) -> BenchTask:
        if self.until not in (None, "decided"):
            try:
                ok = 0 < (self.error or 0.0) < 1
            except ValueError:
                ok = False
            if not ok:
                raise ValueError(f"--until {self.until}: give an error like ±0.02, or decided")
        if (self.until == "decided") != (self.against is not None):
            raise ValueError("--until decided and --against RUN need each other")
        if self.budget_tokens is not None and self.budget_usd is not None:
            raise ValueError("give --budget-tokens or --budget-usd, not both")
        if (self.budget_tokens or self.budget_usd) and self.max_tokens is None:
            raise ValueError("a budget needs --max-tokens: else one answer could take all of it")
        return self

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
