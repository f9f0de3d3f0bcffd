"""What is measured, as plain data: instants are kept, durations are derived from them later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class RequestRecord:
    """One request and its response. Instants are UTC nanoseconds of one clock; absent is None, never 0."""

    run_id: str
    point_id: str
    request_id: str
    worker: int
    warmup: bool
    attempt: int
    """1, or 2 when a reused connection turned out to be closed before any byte of the response came."""
    model: str
    reasoning_effort: str | None
    parallel: int | None
    rate: float | None = None
    """Requests per second of an open loop."""
    scheduled_ns: int | None = None
    """When the load schedule planned the start; None where it plans none, as in a closed loop."""
    start_ns: int | None = None
    """Just before the first byte of the request was handed to the kernel. None when nothing was sent."""
    headers_ns: int | None = None
    first_token_ns: int | None = None
    first_answer_ns: int | None = None
    last_token_ns: int | None = None
    end_ns: int | None = None
    """Arrival of the last byte of the response."""
    event_ns: Sequence[int] | None = None
    """Offsets from `start_ns` of every token event."""
    event_tokens: list[int] | None = None
    """Tokens in each event, where the server says so."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    token_source: str | None = None
    """`usage`, `tokenizer` or `chunks`: where `completion_tokens` comes from."""
    n_events: int = 0
    n_shared: int = 0
    """Token events that arrived in the same read as a later one: they carry that one's stamp."""
    status: str = "ok"
    """`ok`, `error`, `timeout` or `cancelled`."""
    error_kind: str | None = None
    http_status: int | None = None
    error_message: str | None = None
    finish_reason: str | None = None
    leaked: bool | None = None
    """Whether the answer begins with a tag of the reasoning that the server let through."""
    server_timings: str | None = None
    """JSON of the server's own account of its time (Ollama's durations in ns, llama.cpp's timings in ms)."""
    url: str | None = None
    """Which of several servers was asked."""
    clock_source: str = "kernel"
    """`kernel`: every read carried the kernel's receive stamp; `user`: at least one did not."""
    client_lag_p50_ns: int | None = None
    client_lag_max_ns: int | None = None
    sample_id: str | None = None
    epoch: int | None = None
    session: int = 1
    """The sitting of the run in which it was asked: 1, and one more with each resume."""
    text: str | None = field(default=None, repr=False)
    """The answer, kept only when asked for; not stored in the requests table."""
    reasoning_text: str | None = field(default=None, repr=False)


@dataclass(slots=True)
class SampleRecord:
    """One answer to one sample: what was asked, what came, how it was graded. Absent is None, never 0."""

    run_id: str
    point_id: str
    request_id: str
    """The request that gave the final answer, the last one in a conversation."""
    task: str
    subset: str
    sample_id: str
    """The sample's place in its subset, from 1."""
    epoch: int
    """From 1: the k-th time that this sample is asked."""
    reasoning_effort: str | None
    model: str
    prompt: str
    """Messages as JSON; of a conversation all of them, the answers included."""
    target: str
    response: str | None = None
    reasoning: str | None = None
    answer: str | None = None
    """What was taken for the answer."""
    score: float | None = None
    """Unrounded; None for a sample that failed or could not be graded."""
    correct: bool | None = None
    """Whether the score is 1; None for scores that are neither right nor wrong."""
    unscored_reason: str | None = None
    route: str | None = None
    """How the answer was found."""
    second_score: float | None = None
    """The second grader's verdict."""
    leaked: bool | None = None
    """Whether reasoning had leaked into the answer channel; it was taken out before grading."""
    metrics: str | None = None
    """JSON of all figures of a benchmark that has several."""
    finish_reason: str | None = None
    truncated: bool | None = None
    attempts: int = 0
    """Most attempts that one of its requests took: 1 where all went well."""
    turns: int = 0
    """Requests that were answered."""
    waited_ms: float | None = None
    """Time spent between attempts; in no other figure."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    token_source: str | None = None
    """As in the requests; `chunks` where any turn was counted so."""
    ttft_ms: float | None = None
    ttfa_ms: float | None = None
    tpot_ms: float | None = None
    latency_ms: float | None = None
    """The last attempt's own; of a conversation the sum of its turns."""
    start_ns: int | None = None
    end_ns: int | None = None
    status: str = "ok"
    """`ok`: answered; `error` or `timeout`: it failed for good."""
    error_kind: str | None = None
    http_status: int | None = None
    error_message: str | None = None
