"""Whether a model fits a machine, and for how many users."""

from __future__ import annotations

from dataclasses import dataclass

from oss_eval.errors import UsageError
from oss_eval.models.card import BITS, Attention, Dtype, LatentAttention, LinearAttention, ModelCard
from oss_eval.models.machine import Machine
from oss_eval.models.sizes import part_kv_bytes, weight_bytes

MEMORY_SHARE = 0.92
"""Of the memory, for weights and KV cache: vLLM's default since 0.21 (--gpu-memory-utilization). The rest is for
activations, CUDA graphs and the driver."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Bytes of all GPUs together."""

    fits: bool
    """Whether the weights and the KV cache of `users` sequences of `context` tokens fit."""
    memory_bytes: float
    usable_bytes: float
    weights_bytes: float
    kv_bytes: float
    """Of `users` sequences, with copies that tensor parallelism makes."""
    left_bytes: float
    """Usable memory less weights and KV cache; negative where it is not enough."""
    users: int
    context: int
    max_users: int
    """The most sequences of `context` tokens that fit."""


def kv_copies(part: Attention, count: int) -> float:
    """How often tensor parallelism over `count` GPUs keeps the KV cache of a layer: a GPU holds at least one whole
    key-value head, and the compressed vector of MLA is not split."""
    if isinstance(part, LatentAttention):
        return count
    if isinstance(part, LinearAttention):
        return 1.0
    return count / min(count, part.kv_heads)


def user_bytes(card: ModelCard, machine: Machine, context: int, kv_bits: float) -> float:
    """Bytes that the KV cache of one sequence takes on all GPUs together."""
    return sum(part_kv_bytes(part, context, kv_bits) * kv_copies(part, machine.count) for part in card.attention)


def fit(
    card: ModelCard,
    machine: Machine,
    *,
    context: int | None = None,
    users: int = 1,
    dtype: Dtype | None = None,
    kv_dtype: Dtype = "bf16",
    memory_share: float = MEMORY_SHARE,
) -> Fit:
    """Compare the memory of a machine with what a model takes, with `users` sequences of `context` tokens
    (default: the model's longest).

    An engine needs more than this counts: vLLM 0.24 kept 113.5 GiB of an H200 for the KV cache of gpt-oss-20b,
    where this says 116.3 GiB. Raises UsageError where the machine's memory is not known or the context is longer
    than the model's.
    """
    context = card.context if context is None else context
    if context > card.context:
        raise UsageError(
            f"--context {context} is longer than the {card.context} tokens of {card.name}",
            f"--context {card.context} or less",
        )
    if machine.card.memory_bytes is None:
        raise UsageError(
            f"{machine.name} has no memory of its own: it is what was built in", "give a size: --gpu 64GB"
        )
    memory = machine.card.memory_bytes * machine.count
    usable = memory * memory_share
    weights = weight_bytes(card, dtype)
    one = user_bytes(card, machine, context, BITS[kv_dtype])
    left = usable - weights - users * one
    most = int((usable - weights) // one) if usable > weights else 0
    return Fit(left >= 0, memory, usable, weights, users * one, left, users, context, most)
