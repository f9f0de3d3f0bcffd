"""A model card from a Hugging Face config.json.

Keys: https://huggingface.co/docs/transformers/main_classes/configuration and the models' own classes.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from oss_eval.errors import UsageError
from oss_eval.models.card import Attention, DenseMlp, Dtype, Group, Mlp, ModelCard, MoeMlp
from oss_eval.system.files import read_file

MAX_BYTES = 1_000_000
WANTED = "give the config.json of a decoder-only language model"
QUANTIZED: dict[str, Dtype] = {"mxfp4": "mxfp4", "fp8": "fp8", "fbgemm_fp8": "fp8", "nvfp4": "nvfp4"}
"""Number format by `quant_method`; others tell it by their number of bits."""
KEPT: tuple[tuple[str, tuple[Group, ...]], ...] = (
    ("self_attn", ("attention",)), ("lm_head", ("embedding",)), ("embed_tokens", ("embedding",)),
    ("shared_expert", ("mlp",)),
)  # fmt: skip
"""Begin of module names in `modules_to_not_convert`, and the groups that they are."""


REFUSED = (
    "interleave_moe_layer_step", "moe_num_experts", "num_kv_heads", "mamba_d_state", "mamba_n_heads",
    "ssm_state_size", "attn_layer_period", "hybrid_override_pattern", "cross_attention_layers",
    "is_encoder_decoder",
)  # fmt: skip
"""Keys of architectures that a card can't describe (Llama 4, ERNIE, Falcon, Mamba hybrids, ...)."""
TIED = ("gemma", "gemma2", "gemma3", "gemma3_text")
"""Model types whose embeddings are tied unless their config says otherwise."""


def card_from_config(path: Path) -> ModelCard:
    """The card of the model that a config.json describes. Raises UsageError."""
    try:
        values = json.loads(read_file(path, MAX_BYTES))
    except OSError as error:
        raise UsageError(
            f"can't read --from {path}: {error.strerror}", "give the config.json of a model"
        ) from None
    except ValueError as error:
        raise UsageError(f"--from {path} is not JSON: {error}", WANTED) from None
    if not isinstance(values, dict):
        raise UsageError(f"--from {path} holds no JSON object", "give the config.json of a model")
    name = str(values.get("_name_or_path") or "").rstrip("/").rpartition("/")[2] or path.resolve().parent.name
    try:
        return _card(values, name, str(path))
    except KeyError as error:
        raise UsageError(f"--from {path} has no {error.args[0]}", WANTED) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UsageError(f"--from {path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (TypeError, ValueError, ZeroDivisionError, AttributeError, OverflowError) as error:
        raise UsageError(f"--from {path}: {error}", "give the config.json of a model") from None


def _card(values: dict[str, Any], name: str, source: str) -> ModelCard:
    text = values.get("text_config") or values  # of models that see, too
    refused = [key for key in REFUSED if text.get(key)]
    if refused:
        raise ValueError(f"its {', '.join(refused)} means an architecture that model cards do not describe")
    layers = int(text["num_hidden_layers"])
    tied = str(text.get("model_type", values.get("model_type"))) in TIED
    notes = ["Without its vision encoder."] if "vision_config" in values else []
    rope = text.get("rope_scaling") or {}
    return ModelCard(
        name=name,
        source=source,
        hidden=text["hidden_size"],
        vocab=text["vocab_size"],
        context=int(text.get("max_position_embeddings") or rope.get("original_max_position_embeddings") or 0),
        tied_embeddings=bool(text.get("tie_word_embeddings", values.get("tie_word_embeddings", tied))),
        attention=_attention(text, layers),
        mlp=_mlp(text, layers),
        weights=_weights(values.get("quantization_config") or text.get("quantization_config") or {}),
        sinks=values.get("model_type") == "gpt_oss",
        notes=tuple(notes),
    )


def _attention(text: dict[str, Any], layers: int) -> tuple[Attention, ...]:
    counts = Counter(_layer_types(text, layers))
    return tuple(_attention_part(text, kind, count) for kind, count in counts.items())


def _layer_types(text: dict[str, Any], layers: int) -> list[str]:
    """The kind of each layer: full, sliding or linear."""
    if text.get("layer_types"):
        short = {"full_attention": "full", "sliding_attention": "sliding", "linear_attention": "linear"}
        unknown = set(text["layer_types"]) - set(short)
        if unknown:
            raise ValueError(f"layers of the kind {', '.join(sorted(unknown))} are not supported")
        return [short[kind] for kind in text["layer_types"][:layers]]
    if interval := text.get("full_attention_interval"):
        return ["full" if (layer + 1) % interval == 0 else "linear" for layer in range(layers)]
    if text.get("sliding_window") and (pattern := text.get("sliding_window_pattern")):
        return ["full" if (layer + 1) % int(pattern) == 0 else "sliding" for layer in range(layers)]
    if text.get("sliding_window") and text.get("model_type") == "gemma2":
        return ["full" if layer % 2 else "sliding" for layer in range(layers)]
    windowed = text.get("sliding_window") and text.get("use_sliding_window", True)
    first = int(text.get("max_window_layers", 0)) if windowed and "use_sliding_window" in text else 0
    return ["sliding" if windowed and layer >= first else "full" for layer in range(layers)]


def _attention_part(text: dict[str, Any], kind: str, count: int) -> Attention:
    part: dict[str, Any] = {"layers": count}
    if kind == "linear":
        part |= {
            "kind": "linear", "key_heads": text["linear_num_key_heads"],
            "value_heads": text["linear_num_value_heads"], "key_dim": text["linear_key_head_dim"],
            "value_dim": text["linear_value_head_dim"], "conv": text.get("linear_conv_kernel_dim", 4),
        }  # fmt: skip
    elif text.get("kv_lora_rank"):
        part |= {
            "kind": "mla", "heads": text["num_attention_heads"], "q_rank": text.get("q_lora_rank"),
            "kv_rank": text["kv_lora_rank"], "nope_dim": text["qk_nope_head_dim"],
            "rope_dim": text["qk_rope_head_dim"], "value_dim": text["v_head_dim"],
        }  # fmt: skip
    else:
        heads = int(text["num_attention_heads"])
        part |= {
            "kind": kind, "heads": heads, "kv_heads": text.get("num_key_value_heads") or heads,
            "head_dim": text.get("head_dim") or text["hidden_size"] // heads,
            "gated": bool(text.get("attn_output_gate", "linear_num_key_heads" in text)),
        }  # fmt: skip
        if kind == "sliding":
            part["window"] = text["sliding_window"]
    adapter: TypeAdapter[Attention] = TypeAdapter(Attention)
    return adapter.validate_python(part)


def _mlp(text: dict[str, Any], layers: int) -> tuple[Mlp, ...]:
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    experts = next((int(text[name]) for name in names if text.get(name)), 0)
    if experts <= 1:
        return (DenseMlp(kind="dense", layers=layers, width=text["intermediate_size"]),)
    step = int(text.get("decoder_sparse_step") or text.get("moe_layer_freq") or 1)
    always_dense = set(text.get("mlp_only_layers") or ()) | set(range(int(text.get("first_k_dense_replace") or 0)))
    sparse = [n for n in range(layers) if n not in always_dense and (n + 1) % step == 0]
    width = int(text.get("moe_intermediate_size") or text["intermediate_size"])
    shared = int(text.get("shared_expert_intermediate_size") or width * int(text.get("n_shared_experts") or 0))
    parts: list[Mlp] = []
    if len(sparse) < layers:
        parts.append(DenseMlp(kind="dense", layers=layers - len(sparse), width=text["intermediate_size"]))
    active = text.get("num_experts_per_tok") or text["experts_per_token"]
    moe = MoeMlp(
        kind="moe", layers=len(sparse), width=width, experts=experts, active_experts=active, shared_width=shared
    )
    return (*parts, moe)


def _weights(quantization: dict[str, Any]) -> dict[Group, Dtype]:
    """Number formats by group, from a config's `quantization_config`."""
    method = str(quantization.get("quant_method") or "").lower()
    if not method:
        return {}
    dtype = QUANTIZED.get(method) or _by_bits(quantization)
    kept = [str(name) for name in quantization.get("modules_to_not_convert") or quantization.get("ignore") or ()]
    groups: set[Group] = {"experts", "attention", "mlp"}
    for begin, out in KEPT:
        if any(begin in name for name in kept):
            groups -= set(out)
    return dict.fromkeys(sorted(groups), dtype)


def _by_bits(quantization: dict[str, Any]) -> Dtype:
    bits, kind = quantization.get("bits"), "int"
    for group in (quantization.get("config_groups") or {}).values():
        weights = group.get("weights") or {}
        bits, kind = weights.get("num_bits", bits), weights.get("type", kind)
    known: dict[tuple[Any, str], Dtype] = {
        (4, "int"): "int4", (8, "int"): "int8", (8, "float"): "fp8", (4, "float"): "nvfp4",
    }  # fmt: skip
    if (bits, kind) not in known:
        method = quantization.get("quant_method")
        raise ValueError(f"the quantization {method} with {bits} bits is not known")
    return known[bits, kind]
