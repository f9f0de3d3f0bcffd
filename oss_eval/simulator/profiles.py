"""Stated service models: what a simulated server's time is made of.

A step of a continuously batching server serves every running sequence one token and spends what is left of
its token budget on waiting prompts, first come first served, cut into chunks where they do not fit (as vLLM
schedules, https://docs.vllm.ai/en/latest/configuration/optimization.html#chunked-prefill). A step lasts

    step_ms + sequence_ms * running**sequence_power + prefill_ms * prompt_tokens_in_this_step

and every token is sent at its step's end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches

from oss_eval.errors import UsageError

SERVER = "oss-eval-simulator/"
"""Prefix of the simulator's Server header: clients can tell that no model answers."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Parameters of a simulated server; times are milliseconds at speed 1."""

    name: str
    description: str
    model: str
    step_ms: float
    """A step with nothing to do: host overhead and reading the dense weights once."""
    sequence_ms: float
    """Cost of the first running sequence in a step: its KV cache, its experts, its sampling."""
    sequence_power: float
    """Growth of this cost with the batch size; below 1 because sequences share experts."""
    prefill_ms: float
    """Cost of one prompt token."""
    batch_tokens: int = 8192
    """Token budget of a step (vLLM: max_num_batched_tokens)."""
    max_sequences: int = 1024
    """Sequences running at once; the rest queues (vLLM: max_num_seqs)."""
    reasoning_tokens: dict[str, float] = field(
        default_factory=lambda: {"low": 40.0, "medium": 120.0, "high": 480.0}
    )
    """Median length of the reasoning before the answer, by effort; lengths are log-normal (sigma 0.3)."""
    answer_tokens: float = 400.0
    """Median length of an answer."""
    solution_tokens: float = 120.0
    """Median length of an answer to a question of an answer key."""
    solve_rate: dict[str, float] = field(default_factory=lambda: {"low": 0.371, "medium": 0.721, "high": 0.917})
    """Mean share of right answers to such questions, by effort: gpt-oss-20b's on AIME 2025 without tools
    (the gpt-oss model card, https://arxiv.org/abs/2508.10925)."""


@dataclass(frozen=True, slots=True)
class Paced(Profile):
    """No service model: every stream keeps its own steady pace, whatever else goes on.

    What a client is calibrated against: at 256 streams it has to take 256 independent tokens an interval, not
    one burst as from a batching server.
    """

    token_rate: float = 66.0
    """Tokens a second of each stream."""
    ttft_ms: float = 100.0
    """From the arrival of a request to its first token."""


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="gpt-oss-20b-h20",
            description="gpt-oss-20b on one H20-96GB with vLLM 0.10.1, fitted to EvalScope's published sweep",
            model="gpt-oss-20b",
            # Printed by `python scripts/fit_profile.py`: the least fourth powers of the logs of fitted over
            # published figures (4 levels x RPS, mean latency, tok/s, mean TPOT and, weighted 3/8, mean TTFT).
            step_ms=5.745,
            sequence_ms=0.782,
            sequence_power=0.644,
            prefill_ms=0.0821,
        ),
        Profile(
            name="gpt-oss-20b-h100",
            description="gpt-oss-20b on one H100-80GB with vLLM 0.24, fitted to a measured sweep (docs/h100.md)",
            model="gpt-oss-20b",
            step_ms=2.679,
            sequence_ms=0.674,
            sequence_power=0.468,
            prefill_ms=0.0258,
        ),
        Profile(
            name="gpt-oss-20b-h100-2025",
            description="gpt-oss-20b on one H100-80GB with vLLM of 2025, fitted to a published stress test",
            model="gpt-oss-20b",
            # The stress tests have one level each: the times are those of gpt-oss-20b-h100 by one factor.
            step_ms=6.543,
            sequence_ms=1.646,
            sequence_power=0.468,
            prefill_ms=0.0630,
        ),
        Profile(
            name="gpt-oss-120b-h100",
            description="gpt-oss-120b on one H100-80GB with vLLM of 2025, fitted to a published stress test",
            model="gpt-oss-120b",
            step_ms=10.483,
            sequence_ms=2.637,
            sequence_power=0.468,
            prefill_ms=0.1010,
        ),
        Profile(
            name="instant",
            description="answers at once: for measuring a client, not for looking at results",
            model="instant",
            step_ms=0.0,
            sequence_ms=0.0,
            sequence_power=1.0,
            prefill_ms=0.0,
        ),
        Paced(
            name="paced",
            description="every stream at its own steady pace: the truth that calibrate measures against",
            model="paced",
            step_ms=0.0,
            sequence_ms=0.0,
            sequence_power=1.0,
            prefill_ms=0.0,
        ),
    )
}


def get_profile(name: str) -> Profile:
    """A profile by name. Raises UsageError that lists the names."""
    if name in PROFILES:
        return PROFILES[name]
    near = get_close_matches(name, PROFILES, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UsageError(f"unknown simulator profile {name!r}", f"{hint}there are: {', '.join(PROFILES)}")
