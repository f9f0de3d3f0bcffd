"""What perf and bench have in common: the settings of a task, validated once and frozen.

A task has the same keys as the flags of its command (with `_` for `-`), so a task file and a command line are
merged key by key. Flags, their help and their defaults are made from the fields here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from oss_eval.config.fields import ENDPOINT, LIMITS, LOAD, REQUESTS, Flag, Json, Names, Positive, Seconds
from oss_eval.errors import UsageError

RayWorkers = Annotated[str, Field(pattern=r"^ray(:[1-9]\d{0,3})?$")]
MAX_RESPONSE_BYTES = 64 * 1024 * 1024
"""Of one response; a stream of 128k tokens has about 40 MB."""


class Task(BaseModel):
    """Which server is measured, and how. Timeouts are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = ""
    """Name of the task; by default that of its file."""
    description: str = ""
    """One line for `oss-eval tasks`."""

    url: Annotated[Names, Flag(ENDPOINT, repeated=True)] = ()
    """server: host root, .../v1, or the full path of an API, query kept; sim://PROFILE for the simulator;
    local://smollm2 or local:///FILE.gguf for llama.cpp on this CPU; repeat it to spread requests over several
    servers (default: OPENAI_BASE_URL, AZURE_OPENAI_ENDPOINT, else the usual local ports, else the simulator)"""
    model: Annotated[str | None, Flag(ENDPOINT)] = None
    """model name (default: the only one that the server lists)"""
    api: Annotated[
        Literal["openai", "chat", "completions", "responses", "ollama", "ollama-generate"],
        Flag(ENDPOINT, show_default=False),
    ] = "openai"
    """API to use (openai: the one in the URL's path, else chat)"""

    reasoning_effort: Annotated[Names, Flag(LOAD, "EFFORT")] = ()
    """reasoning efforts to sweep: low medium high, or other values that the server takes"""

    max_tokens: Annotated[Positive | None, Flag(REQUESTS, "TOKENS")] = None
    """maximum length of an answer, reasoning included"""
    temperature: Annotated[Annotated[float, Field(ge=0)] | None, Flag(REQUESTS)] = None
    """sampling temperature (default: the server's)"""
    top_p: Annotated[Annotated[float, Field(gt=0, le=1)] | None, Flag(REQUESTS)] = None
    """nucleus sampling (default: the server's)"""
    seed: Annotated[int | None, Flag(REQUESTS)] = None
    """makes prompts repeatable and is sent with each request (default: a new one for each run)"""
    stream: Annotated[bool, Flag(REQUESTS, show_default=False)] = True
    """stream answers (default); needed for TTFT and TPOT"""
    extra_args: Annotated[Json, Flag(REQUESTS, "JSON")] = Field(default_factory=dict)
    """more fields of the request, e.g. '{"ignore_eos": true}'"""
    effort_style: Annotated[
        Literal["auto", "top-level", "extra-body", "chat-template", "think", "system", "none"], Flag(REQUESTS)
    ] = "auto"
    """how the reasoning effort is sent; auto: in the form that this server is known to take"""
    split_think: Annotated[bool, Flag(REQUESTS)] = False
    """count text between <think> tags in the answer as reasoning"""

    connect_timeout: Annotated[Seconds, Flag(LIMITS, "S")] = 5.0
    """seconds to connect"""
    first_token_timeout: Annotated[Seconds, Flag(LIMITS, "S")] = 600.0
    """seconds until the first token of a stream"""
    read_timeout: Annotated[Seconds, Flag(LIMITS, "S")] = 600.0
    """seconds without a byte of a response, and between two tokens of a stream"""
    total_timeout: Annotated[Seconds, Flag(LIMITS, "S")] = 3600.0
    """seconds for a complete response"""
    max_response_bytes: Annotated[Positive, Flag(LIMITS, "N")] = MAX_RESPONSE_BYTES
    """truncate a larger response"""


class DistributedTask(Task):
    """A task whose requests may be sent from the nodes of a Ray cluster: `workers` is `ray` or `ray:N` then."""

    ray_address: Annotated[str, Flag(LOAD, "ADDRESS")] = "auto"
    """with --workers ray: the cluster; auto: the one of this machine; or HOST:6379, ray://HOST:10001"""

    @property
    def on_ray(self) -> bool:
        """Whether its workers run on a Ray cluster."""
        return str(getattr(self, "workers", None)).startswith("ray")

    @property
    def worker_count(self) -> int | None:
        """Its number of workers; None where it is found out: auto, or one on each node."""
        _, _, count = str(getattr(self, "workers", None)).rpartition(":")
        return int(count) if count.isdecimal() else None


T = TypeVar("T", bound=BaseModel)


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


def _explain(item: Any, kind: type[BaseModel]) -> str:
    """One of pydantic's errors in the words of the command line."""
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
    """A value as it was given, shortened to fit a message."""
    try:
        text = repr(value)
    except ValueError:  # Python writes out no integer of more than 4,300 digits
        text = f"a number of {value.bit_length()} bits" if isinstance(value, int) else type(value).__name__
    return text if len(text) <= 200 else text[:197] + "..."
