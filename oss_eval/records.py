"""The stored rows of requests and samples, as plain data. Timestamps are stored; durations are derived from
them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class RequestRecord:
    """One request and its response. Timestamps are UTC nanoseconds of one clock; absent is None, never 0."""

    run_id: str
    """Id of the run."""
    point_id: str
    """Id of the point: one concurrency and reasoning effort of a sweep, or one task and effort of a benchmark."""
    request_id: str
    """Id of the request, unique in the run."""
    worker: int
    """Number of the worker process that sent it."""
    warmup: bool
    """Whether it is left out of all metrics."""
    attempt: int
    """Load sweeps: 1, or 2 when a reused connection was closed before the first byte of the response. Benchmarks:
    1, and one more with each retry."""
    model: str
    """Model name in the request."""
    reasoning_effort: str | None
    """Reasoning effort that was requested."""
    parallel: int | None
    """Requests in flight in a closed loop."""
    rate: float | None = None
    """Requests per second of an open loop."""
    scheduled_ns: int | None = None
    """Planned start; null where the load schedule plans none, as in a closed loop."""
    start_ns: int | None = None
    """Just before the first byte of the request was passed to the kernel; null when nothing was sent."""
    headers_ns: int | None = None
    """Arrival of the response headers."""
    first_token_ns: int | None = None
    """Arrival of the first token event; at the latest, where `first_token_low_ns` is not null."""
    first_token_low_ns: int | None = None
    """Arrival of what came before the read with the first token event, where that read held later ones too: the
    first one arrived between the two. Null where `first_token_ns` is exact."""
    first_answer_ns: int | None = None
    """Arrival of the first token event of the answer, after the reasoning."""
    last_token_ns: int | None = None
    """Arrival of the last token event."""
    end_ns: int | None = None
    """Arrival of the last byte of the response."""
    event_ns: Sequence[int] | None = None
    """Offsets of all token events from `start_ns`."""
    event_tokens: Sequence[int] | None = None
    """Tokens in each event, where the server reports them, or by the tokenizer where events hold several."""
    first_event_tokens: int | None = None
    """Tokens in the first token event, where they are known."""
    tokens_to_answer: int | None = None
    """Tokens up to the first token event of the answer, those in it included, where they are known."""
    prompt_tokens: int | None = None
    """Tokens of the prompt, as the server counts them."""
    completion_tokens: int | None = None
    """Tokens of the answer, reasoning included."""
    reasoning_tokens: int | None = None
    """Tokens of the reasoning."""
    cached_tokens: int | None = None
    """Prompt tokens that the server took from its prefix cache."""
    token_source: str | None = None
    """Where `completion_tokens` comes from: `usage`, `tokenizer` or `chunks`."""
    n_events: int = 0
    """Token events."""
    n_shared: int = 0
    """Token events that arrived in the same read as a later one and share its timestamp."""
    status: str = "ok"
    """`ok`, `error`, `timeout` or `cancelled`."""
    error_kind: str | None = None
    """Kind of the failure; docs/reliability.md lists them."""
    http_status: int | None = None
    """HTTP status code of the response."""
    error_message: str | None = None
    """The server's or the client's error text, without keys."""
    finish_reason: str | None = None
    """The server's finish reason."""
    leaked: bool | None = None
    """Whether the answer begins with a reasoning tag that the server did not remove."""
    server_timings: str | None = None
    """JSON of the server's own timings (Ollama's durations in ns, llama.cpp's timings in ms)."""
    url: str | None = None
    """URL of the server, where there are several."""
    clock_source: str = "kernel"
    """`kernel`: every read has a kernel receive timestamp; `user`: at least one has none."""
    client_lag_p50_ns: int | None = None
    """Median delay from the arrival of bytes to their read by this client."""
    client_lag_max_ns: int | None = None
    """Maximum of this delay."""
    sample_id: str | None = None
    """Benchmarks: the sample that the request belongs to. Load sweeps: the task file, in a mix of them."""
    epoch: int | None = None
    """Benchmarks: the repetition of the sample, from 1."""
    conversation: int | None = None
    """Load sweeps with conversations: which one of its point, from 0."""
    turn: int | None = None
    """Its turn, from 1."""
    session: int = 1
    """Session of the run that sent the request: 1, and one more with each resume."""
    text: str | None = field(default=None, repr=False)
    """The answer, kept only on request; not stored in the requests table."""
    reasoning_text: str | None = field(default=None, repr=False)
    """The reasoning, likewise."""


@dataclass(slots=True)
class SampleRecord:
    """One answer to one sample: prompt, response, score. Absent is None, never 0."""

    run_id: str
    """Id of the run."""
    point_id: str
    """Id of the point: one task and reasoning effort."""
    request_id: str
    """The request that gave the final answer; the last one of a conversation."""
    task: str
    """Name of the task."""
    subset: str
    """Subset of the benchmark."""
    sample_id: str
    """Position of the sample in its subset, from 1."""
    epoch: int
    """Repetition of the sample, from 1."""
    reasoning_effort: str | None
    """Reasoning effort that was requested."""
    model: str
    """Model name in the request."""
    prompt: str
    """Messages as JSON; of a conversation all of them, including the answers."""
    target: str
    """The right answer."""
    response: str | None = None
    """The model's final answer."""
    reasoning: str | None = None
    """The model's reasoning."""
    answer: str | None = None
    """The part of the response that was scored."""
    score: float | None = None
    """Unrounded; null for a sample that failed or could not be scored."""
    correct: bool | None = None
    """Whether the score is 1; null for scores that are neither right nor wrong."""
    unscored_reason: str | None = None
    """Why an answered sample has no score."""
    route: str | None = None
    """How the answer was found in the response: `box`, `answer line`, `bold`, ..."""
    second_score: float | None = None
    """Score of the second scorer."""
    leaked: bool | None = None
    """Whether reasoning had leaked into the answer; it was removed before scoring."""
    metrics: str | None = None
    """JSON of all metrics of a benchmark that has several."""
    finish_reason: str | None = None
    """The server's finish reason."""
    truncated: bool | None = None
    """Whether the answer reached --max-tokens."""
    attempts: int = 0
    """Most attempts that one of its requests took; 1 without retries."""
    turns: int = 0
    """Requests that were answered."""
    waited_ms: float | None = None
    """Time between attempts; part of no other metric."""
    prompt_tokens: int | None = None
    """Tokens of the prompts of all turns."""
    completion_tokens: int | None = None
    """Tokens of the answers of all turns, reasoning included."""
    reasoning_tokens: int | None = None
    """Tokens of the reasoning of all turns."""
    token_source: str | None = None
    """As in requests; `chunks` if any turn was counted so."""
    ttft_ms: float | None = None
    """Time to first token of the first turn."""
    ttfa_ms: float | None = None
    """Time to the first token of the answer, of the first turn."""
    tpot_ms: float | None = None
    """Time per output token of the last turn."""
    latency_ms: float | None = None
    """Latency of the last attempt; of a conversation the sum of its turns."""
    start_ns: int | None = None
    """Start of the first turn."""
    end_ns: int | None = None
    """End of the last turn."""
    status: str = "ok"
    """`ok`: answered; `error` or `timeout`: failed for good."""
    error_kind: str | None = None
    """As in requests."""
    http_status: int | None = None
    """As in requests."""
    error_message: str | None = None
    """As in requests."""


SERVER_SHARES = ("kv_usage", "accepted_length")
"""The server's own metrics of which several, one an engine or a server, have a mean instead of a sum."""
