"""Sizes of a model: parameters, bytes of its weights, bytes of its KV cache."""

from __future__ import annotations

from collections.abc import Iterator

from oss_eval.models.card import (
    BITS,
    Attention,
    Dtype,
    FullAttention,
    Group,
    LatentAttention,
    LinearAttention,
    ModelCard,
    MoeMlp,
    SlidingAttention,
)

STATE_BYTES = 4
"""Bytes of a number in the state of linear attention, which engines keep in FP32."""


def attention_params(part: Attention, hidden: int) -> int:
    """Weights of one attention layer."""
    if isinstance(part, (FullAttention, SlidingAttention)):
        queries = part.heads * part.head_dim
        keys = 2 * part.kv_heads * part.head_dim
        return hidden * (queries * (2 if part.gated else 1) + keys) + queries * hidden
    if isinstance(part, LatentAttention):
        query_dim = part.heads * (part.nope_dim + part.rope_dim)
        query = hidden * query_dim if part.q_rank is None else part.q_rank * (hidden + query_dim)
        key_value = hidden * (part.kv_rank + part.rope_dim)
        key_value += part.kv_rank * part.heads * (part.nope_dim + part.value_dim)
        return query + key_value + part.heads * part.value_dim * hidden
    keys, values = part.key_heads * part.key_dim, part.value_heads * part.value_dim
    inputs = hidden * (2 * keys + 2 * values + 2 * part.value_heads)
    return inputs + part.conv * (2 * keys + values) + values * hidden


def expert_params(card: ModelCard, part: MoeMlp) -> int:
    """Weights of one routed expert."""
    return 3 * card.hidden * part.width


def _groups(card: ModelCard) -> Iterator[tuple[Group | None, int, int]]:
    """(group, weights, those that each token goes through) of the parts of a model; group None: routers."""
    embedding = card.vocab * card.hidden
    yield "embedding", embedding * (1 if card.tied_embeddings else 2), embedding
    for attention in card.attention:
        weights = attention.layers * attention_params(attention, card.hidden)
        yield "attention", weights, weights
    for mlp in card.mlp:
        if not isinstance(mlp, MoeMlp):
            weights = mlp.layers * 3 * card.hidden * mlp.width
            yield "mlp", weights, weights
            continue
        one = mlp.layers * expert_params(card, mlp)
        yield "experts", one * mlp.experts, one * mlp.active_experts
        shared, router = mlp.layers * 3 * card.hidden * mlp.shared_width, mlp.layers * card.hidden * mlp.experts
        yield "mlp", shared, shared
        yield None, router, router


def total_params(card: ModelCard) -> int:
    """All weights of the matrices."""
    return sum(weights for _, weights, _ in _groups(card))


def active_params(card: ModelCard) -> int:
    """Weights that are multiplied for each token: of the embeddings only the output's, of the experts the active
    ones."""
    return sum(active for _, _, active in _groups(card))


def format_of(card: ModelCard, group: Group | None, dtype: Dtype | None = None) -> Dtype:
    """The number format of a group of weights: `dtype` for all, else that of the checkpoint."""
    if dtype is not None:
        return dtype
    return "bf16" if group is None else card.weights.get(group, "bf16")


def weight_bytes(card: ModelCard, dtype: Dtype | None = None) -> float:
    """Bytes of the weights as published, or with all of them in `dtype`."""
    return sum(weights * BITS[format_of(card, group, dtype)] / 8 for group, weights, _ in _groups(card))


def read_bytes(card: ModelCard, experts: float, dtype: Dtype | None = None) -> float:
    """Bytes of the weights that a step reads if each MoE layer uses `experts` of its experts. Of the input
    embedding a step reads a row for each token, which is left out."""
    read = 0.0
    for group, weights, active in _groups(card):
        bits = BITS[format_of(card, group, dtype)]
        read += 0.0 if group == "experts" else (active if group == "embedding" else weights) * bits / 8
    for mlp in card.mlp:
        if isinstance(mlp, MoeMlp):
            bits = BITS[format_of(card, "experts", dtype)]
            read += mlp.layers * min(experts, mlp.experts) * expert_params(card, mlp) * bits / 8
    return read


def token_kv_bytes(part: Attention, kv_bits: float = 16.0) -> float:
    """Bytes of the KV cache of one token in one layer."""
    if isinstance(part, LinearAttention):
        return 0.0
    if isinstance(part, LatentAttention):
        return (part.kv_rank + part.rope_dim) * kv_bits / 8
    return 2 * part.kv_heads * part.head_dim * kv_bits / 8


def kv_bytes_per_token(card: ModelCard, kv_bits: float = 16.0, beyond_windows: bool = False) -> float:
    """Bytes of the KV cache of one token in all layers; `beyond_windows`: in those without a sliding window, which
    is what a sequence longer than the window grows by."""
    return sum(
        part.layers * token_kv_bytes(part, kv_bits)
        for part in card.attention
        if not (beyond_windows and isinstance(part, SlidingAttention))
    )


def state_bytes(card: ModelCard) -> float:
    """Bytes that a sequence of any length takes in layers of linear attention."""
    return sum(part_kv_bytes(part, 0) for part in card.attention)


def part_kv_bytes(part: Attention, tokens: float, kv_bits: float = 16.0) -> float:
    """Bytes that one sequence of `tokens` tokens takes in all layers of a kind: a sliding one keeps its window
    only, a linear one a state whatever the length."""
    if isinstance(part, LinearAttention):
        state = part.value_heads * part.key_dim * part.value_dim
        state += (part.conv - 1) * (2 * part.key_heads * part.key_dim + part.value_heads * part.value_dim)
        return part.layers * state * STATE_BYTES
    kept = min(tokens, part.window) if isinstance(part, SlidingAttention) else tokens
    return part.layers * token_kv_bytes(part, kv_bits) * kept


def sequence_kv_bytes(card: ModelCard, tokens: float, kv_bits: float = 16.0) -> float:
    """Bytes that one sequence of `tokens` tokens takes in all layers."""
    return sum(part_kv_bytes(part, tokens, kv_bits) for part in card.attention)


def head_params(card: ModelCard) -> int:
    """Weights of the output embedding."""
    return card.vocab * card.hidden


def prefill_flops(card: ModelCard, prompt: float, cached: float = 0.0) -> float:
    """Floating-point operations to read a prompt, of which the first `cached` tokens are in the prefix cache.

    Two for each weight and new token, of the output embedding for the last token alone, and the causal attention
    of the new tokens. With multi-head latent attention, prompts are read with expanded keys and values.
    """
    new = max(0.0, prompt - cached)
    total = 2.0 * (active_params(card) - head_params(card)) * new + 2.0 * head_params(card)
    for part in card.attention:
        pairs = (prompt**2 - cached**2) / 2
        if isinstance(part, LinearAttention):
            total += part.layers * 6.0 * part.value_heads * part.key_dim * part.value_dim * new
        elif isinstance(part, LatentAttention):
            total += part.layers * 2.0 * part.heads * (part.nope_dim + part.rope_dim + part.value_dim) * pairs
        else:
            if isinstance(part, SlidingAttention):
                pairs = _windowed(prompt, part.window) - _windowed(cached, part.window)
            total += part.layers * 4.0 * part.heads * part.head_dim * pairs
    return total


def _windowed(tokens: float, window: int) -> float:
    """How many pairs of tokens the first `tokens` tokens attend to, each to the last `window`."""
    inside = min(tokens, window)
    return inside**2 / 2 + (tokens - inside) * window


def attention_flops(card: ModelCard, tokens: float) -> float:
    """Floating-point operations of the attention of one new token at a context of `tokens` tokens: two for each
    multiply-add of scores and values."""
    total = 0.0
    for part in card.attention:
        if isinstance(part, LinearAttention):
            # The state is decayed, read and updated: three products of its size.
            total += part.layers * 6.0 * part.value_heads * part.key_dim * part.value_dim
        elif isinstance(part, LatentAttention):
            # Heads attend in the compressed space, as engines decode (weight absorption).
            total += part.layers * 2.0 * part.heads * (2 * part.kv_rank + part.rope_dim) * tokens
        else:
            seen = min(tokens, part.window) if isinstance(part, SlidingAttention) else tokens
            total += part.layers * 4.0 * part.heads * part.head_dim * seen
    return total
