"""Bounds of the speed: the bytes that a step has to move and its operations, over what the machine can (roofline,
Williams, Waterman, Patterson 2009, https://doi.org/10.1145/1498765.1498785).

A bound is no promise: kernels, launches, scheduling and communication between GPUs take time that is not in it. It
takes balanced routing to experts for granted; where tokens prefer few experts, less is read and the bound can be
exceeded.
"""

from __future__ import annotations

from dataclasses import dataclass

from oss_eval.models.card import BITS, Dtype, Group, ModelCard
from oss_eval.models.machine import Machine
from oss_eval.models.sizes import (
    active_params,
    attention_flops,
    format_of,
    prefill_flops,
    read_bytes,
    sequence_kv_bytes,
)

MEMORY, COMPUTE = "memory", "compute"


@dataclass(frozen=True, slots=True)
class Bound:
    """The least time for some work, in seconds, and what needs it."""

    memory_s: float
    compute_s: float

    @property
    def seconds(self) -> float:
        """The longer of the two: at best they overlap completely."""
        return max(self.memory_s, self.compute_s)

    @property
    def limit(self) -> str:
        """MEMORY or COMPUTE."""
        return MEMORY if self.memory_s >= self.compute_s else COMPUTE


def distinct_experts(card: ModelCard, tokens: float) -> float:
    """How many experts of a layer `tokens` tokens use, expected where each token takes `active` of `experts` with
    equal probability and independently: experts * (1 - (1 - active / experts) ** tokens). 0 in a dense model."""
    moe = card.moe
    if moe is None:
        return 0.0
    unused: float = (1.0 - moe.active_experts / moe.experts) ** tokens
    return moe.experts * (1.0 - unused)


def decode_bytes(
    card: ModelCard, batch: float, context: float, dtype: Dtype | None = None, kv_dtype: Dtype = "bf16"
) -> float:
    """Bytes that a step of decoding reads: the weights once, the KV cache of each of `batch` sequences."""
    weights = read_bytes(card, distinct_experts(card, batch), dtype)
    return weights + batch * sequence_kv_bytes(card, context, BITS[kv_dtype])


def token_flops(card: ModelCard, context: float) -> float:
    """Operations for one token at a context: two for each weight that it goes through, and its attention."""
    return 2.0 * active_params(card) + attention_flops(card, context)


def known(machine: Machine, card: ModelCard, dtype: Dtype | None = None) -> bool:
    """Whether bandwidth and arithmetic of the machine are known for a model."""
    return machine.card.bandwidth_gb_s is not None and _flops(machine, card, dtype) is not None


def _flops(machine: Machine, card: ModelCard, dtype: Dtype | None) -> float | None:
    """Operations per second: those of the format that most of the active weights have."""
    group: Group = "experts" if card.moe is not None else "mlp"
    flops = machine.card.flops(format_of(card, group, dtype))
    return None if flops is None else flops * machine.count


def _over(machine: Machine, card: ModelCard, moved: float, flops: float, dtype: Dtype | None) -> Bound:
    rate = _flops(machine, card, dtype)
    bandwidth = machine.card.bandwidth_gb_s
    assert rate is not None
    assert bandwidth is not None
    return Bound(moved / (bandwidth * 1e9 * machine.count), flops / rate)


def decode_step(
    card: ModelCard,
    machine: Machine,
    batch: float,
    context: float,
    dtype: Dtype | None = None,
    kv_dtype: Dtype = "bf16",
) -> Bound:
    """The least time of a step that gives each of `batch` sequences of `context` tokens one token. The machine
    must be `known`."""
    moved = decode_bytes(card, batch, context, dtype, kv_dtype)
    return _over(machine, card, moved, batch * token_flops(card, context), dtype)


def prefill(card: ModelCard, machine: Machine, tokens: float, dtype: Dtype | None = None) -> Bound:
    """The least time to read one prompt of `tokens` tokens. The machine must be `known`."""
    moved = read_bytes(card, distinct_experts(card, tokens), dtype)
    return _over(machine, card, moved, prefill_flops(card, tokens), dtype)


def request(
    card: ModelCard,
    machine: Machine,
    batch: float,
    prompt: float,
    output: float,
    cached: float = 0.0,
    accepted: float = 1.0,
) -> Bound:
    """The least time of the machine for one of `batch` requests in flight: `prompt` tokens read, of which `cached`
    are in the prefix cache, and `output` tokens generated, `accepted` of them in a step (speculative decoding).

    Prompts are read along with decoding, so they add operations and no further pass over the weights. The machine
    must be `known`.
    """
    context = prompt + output / 2
    moved = output / accepted * decode_bytes(card, batch, context) / batch
    flops = output * token_flops(card, context) + prefill_flops(card, prompt, cached)
    return _over(machine, card, moved, flops, None)
