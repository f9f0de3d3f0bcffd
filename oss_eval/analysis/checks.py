"""Checks of a measurement by the instrument itself: stored with the run, shown below its table.

A `warn` says that metrics may be wrong; a `note` is an observation that does not change them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # computing metrics takes libraries that the start of a run should not wait for
    from oss_eval.analysis.figures import PointMetrics
    from oss_eval.analysis.steady_state import SlowStart

from oss_eval.load.client_stats import ClientStats

LAG_SHARE = 0.05
"""Client lag that is reported, as a share of the TTFT's P99."""
BOUND_SHARE = 0.001
"""Percentiles of TTFT are said to be upper bounds where the lower ones are lower by more than this share."""
SHARED_SHARE = 0.01
RATE_SHARE = 0.01
"""Difference between the planned and the achieved rate of an open loop that is said."""
LATE_MS = 10.0
"""Delay of starts that is said."""
CHUNK_TOKENS = 1.05
"""Tokens in a chunk, on average, from which on chunks are not tokens."""
WAITED_SHARE = 0.10
STALL_SECONDS = 0.05
CLOCK_STEP_SECONDS = 0.002
"""Larger than any slewing (500 ppm) between two readings of a clock."""


NO_TEXT = (
    "the streams carried no text in a field that oss-eval knows (content, text, reasoning), so there is no TTFT "
    "and no TPOT; oss-eval doctor says what the server sent"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check of a point, with what to do about it."""

    kind: str
    level: str
    message: str


def check_point(
    metrics: PointMetrics,
    client: ClientStats | None,
    user_clock: bool,
    failures: dict[str, tuple[int, str]],
    streamed: bool = True,
    slow_start: SlowStart | None = None,
) -> list[Finding]:
    """The findings of a point; an empty list: clean. `streamed`: whether streams were asked for."""
    found: list[Finding] = []
    if metrics.get("success_rate") == 0:
        found.append(Finding("failed", "warn", "every request failed: there is nothing to measure"))
    elif streamed and metrics.metric("ttft_ms", "p50") is None and metrics.get("success_rate"):
        found.append(Finding("no_text", "warn", NO_TEXT))
    workers = client.workers if client else 1
    room = client is not None and workers * 2 <= min(client.cores, client.slots)
    more = f"use --workers {workers * 2} or another machine" if room else "use another machine"
    lag, ttft = metrics.get("client_lag_ms", "p99"), metrics.get("ttft_ms", "p99")
    shared = metrics.get("shared_reads") or 0.0
    # Tokens meet in one read when the client is late by about a gap, or the server sends them together. The mean
    # gap, because the median is 0 where most come in company; the median lag, because one late read is not it.
    late = (metrics.get("client_lag_ms", "p50") or 0.0) > (metrics.get("itl_ms", "mean") or 0.0) / 2
    merged = shared > SHARED_SHARE and (late or user_clock)
    if user_clock:
        text = "no kernel receive timestamps: times include an unknown delay of this client"
        found.append(Finding("user_clock", "warn", text))
    if lag is not None and ttft and lag > LAG_SHARE * ttft:
        text = f"client lag p99 was {_ms(lag)}, {lag / ttft:.0%} of the TTFT p99"
        found.append(
            Finding("client_lag", "warn", f"{text}: {more}")
            if merged
            else Finding("client_lag", "note", f"{text}; kernel timestamps are not affected")
        )
    if merged:
        text = f"{shared:.1%} of the token events were read with a later one and share its timestamp: {more}"
        found.append(Finding("shared_reads", "warn", text))
    elif shared > SHARED_SHARE:
        text = f"{shared:.1%} of the token events arrived with another: the server sends several at once"
        found.append(Finding("shared_reads", "note", text))
    low, bounded = metrics.get("ttft_low_ms", "p99"), metrics.get("ttft_bounded")
    if low is not None and ttft and bounded and low < ttft * (1 - BOUND_SHARE):
        text = f"the TTFT p99 lies between {_ms(low)} and {_ms(ttft)}: {bounded:.0f} first tokens were read with"
        found.append(Finding("ttft_bounds", "warn", f"{text} later ones, whose timestamp they have; {more}"))
    chunk, uncounted = metrics.get("tokens_per_chunk") or 0.0, metrics.get("chunks_uncounted")
    if chunk > CHUNK_TOKENS and uncounted:
        found.append(Finding("chunks", "warn", _chunks(metrics, chunk)))
    if metrics.get("leaked"):
        text = "the answers contain reasoning (<think> or Harmony tags), so TTFA is its time"
        found.append(Finding("leaked", "warn", f"{text}; use --split-think, or a reasoning parser on the server"))
    if slow_start is not None:
        found.append(Finding("slow_start", "note", _slow_start(slow_start, metrics.steady is not None)))
    found += _arrivals(metrics)
    if client is not None:
        found += _client_side(client, metrics, more)
    if any("assign requested address" in text.lower() for _, text in failures.values()):
        text = "this machine ran out of local ports: each closed connection keeps its port for a minute"
        found.append(Finding("ports", "warn", f"{text}; lower --parallel, or wait between runs"))
    if any("too many open files" in text.lower() for _, text in failures.values()):
        found.append(Finding("descriptors", "warn", "the limit of open files was reached: raise it (ulimit -n)"))
    return found


def _client_side(client: ClientStats, metrics: PointMetrics, more: str) -> list[Finding]:
    found: list[Finding] = []
    if client.waited_share is not None and client.waited_share > WAITED_SHARE:
        text = f"a worker waited for a core {client.waited_share:.0%} of the time: free this machine"
        found.append(Finding("starved", "warn", text))
    if client.longest_stall_seconds > STALL_SECONDS:
        text = f"a worker was blocked for {_ms(client.longest_stall_seconds * 1000)}: {more}"
        found.append(Finding("stall", "warn", text))
    if client.held_back_seconds > 0:
        text = f"slots were idle for {client.held_back_seconds:.1f} s in total because decoding was behind"
        found.append(Finding("held_back", "warn", f"{text}: the load was lower than requested; use more cores"))
    again = client.reconnects
    requests = metrics.get("requests") or 0.0
    if again > max(1.0, 0.01 * requests):
        could_be_kept = requests - (client.connections - again)
        text = f"the server closed connections between requests: {again} of {requests:.0f} needed a new one"
        if again >= could_be_kept:
            text = "the server closes each connection after a request: the next one needs a new one"
        found.append(Finding("reconnects", "note", f"{text}, whose set-up time is in no metric"))
    return found


def _chunks(metrics: PointMetrics, chunk: float) -> str:
    text = f"the server sends {chunk:.2f} tokens a chunk and does not say how many each has"
    length = metrics.get("completion_tokens", "mean") or 0.0
    low = (chunk - 1) / (length - 1) if length > 1 else 1.0
    text = f"{text}: token gaps are gaps between chunks, TPOT may be {min(low, 1.0):.1%} too low"
    return f"{text}; --tokenizer-path NAME counts the tokens of each chunk"


def _arrivals(metrics: PointMetrics) -> list[Finding]:
    """Findings of an open loop."""
    found: list[Finding] = []
    planned, achieved = metrics.get("planned_rate"), metrics.get("achieved_rate")
    delay, growth = metrics.get("dispatch_delay_ms", "p99"), metrics.get("queue_growth")
    if planned and achieved and abs(achieved / planned - 1) > RATE_SHARE:
        text = f"{achieved:.4g} requests/s were started and {planned:.4g} planned"
        found.append(
            Finding("rate", "warn", f"{text}: raise --max-in-flight, or use --workers or another machine")
        )
    if delay is not None and delay > LATE_MS:
        text = f"requests started up to {_ms(delay)} (P99) after their planned start"
        found.append(Finding("late", "warn", f"{text}: latency from the planned start includes that"))
    if growth:
        text = f"more requests arrive than the server ends: {growth:.3g} more are in flight each second"
        found.append(Finding("queue", "warn", f"{text}, so latency depends on how long the point lasts"))
    return found


def _slow_start(waves: SlowStart, steady: bool) -> str:
    first, second = (f"{ms / 1000:.3g} s" for ms in (waves.first_ms, waves.second_ms))
    times = f"{waves.first_ms / waves.second_ms:.1f} times"
    first_ones = "first request" if waves.first == 1 else f"first {waves.first} requests"
    text = f"the {first_ones} took {first}, the next {waves.second} {second} (medians, {times})"
    if steady:
        return f"{text}: a cold server or the start's burst, in the figures of the whole point alone"
    return f"{text}: a cold server or the start's burst is in the figures; use --warmup auto, or raise --number"


def _ms(value: float) -> str:
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


class ClockWatch:
    """Detects steps of the wall clock by comparing it with the monotonic clock."""

    def __init__(self) -> None:
        self._offset: float | None = None
        self._when = 0.0
        self.steps: list[float] = []

    def look(self, before: float, wall: float, monotonic: float) -> None:
        """Readings in seconds: monotonic, wall, monotonic again; ignored when they are too far apart."""
        if monotonic - before > CLOCK_STEP_SECONDS / 4:
            return
        offset = wall - monotonic
        if self._offset is not None:
            step = offset - self._offset
            allowed = CLOCK_STEP_SECONDS + 1e-3 * (monotonic - self._when)
            if abs(step) > allowed:
                self.steps.append(step)
        self._offset, self._when = offset, monotonic

    def findings(self) -> list[Finding]:
        """A finding if the clock stepped."""
        if not self.steps:
            return []
        sizes = ", ".join(f"{step * 1000:+.0f} ms" for step in self.steps[:3])
        text = f"the wall clock was set during the run ({sizes}): times across the step are wrong; run again"
        return [Finding("clock_step", "warn", text)]
