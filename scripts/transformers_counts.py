#!/usr/bin/env python
"""Count the parameters of every model card with transformers, and write tests/unit/transformers_counts.yaml.

Each card's own fields make a transformers config, whose model is built on torch's meta device: without memory and
without weights. Needs `pip install transformers torch`, which the project itself does not.
"""

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

from oss_eval.models.card import FullAttention, LatentAttention, LinearAttention, ModelCard, MoeMlp, cards

COUNTS = Path(__file__).parent.parent / "tests" / "unit" / "transformers_counts.yaml"
OTHERS = {"linear": "linear_attention", "sliding": "sliding_attention"}


def common(card: ModelCard) -> dict[str, Any]:
    """What all configs have."""
    found: dict[str, Any] = {
        "hidden_size": card.hidden, "vocab_size": card.vocab, "max_position_embeddings": card.context,
        "tie_word_embeddings": card.tied_embeddings, "num_hidden_layers": card.layers,
    }  # fmt: skip
    for part in card.attention:
        if isinstance(part, FullAttention):
            found |= {
                "num_attention_heads": part.heads, "num_key_value_heads": part.kv_heads, "head_dim": part.head_dim
            }  # fmt: skip
        elif isinstance(part, LatentAttention):
            found |= {
                "num_attention_heads": part.heads, "num_key_value_heads": part.heads, "q_lora_rank": part.q_rank,
                "kv_lora_rank": part.kv_rank, "qk_nope_head_dim": part.nope_dim, "qk_rope_head_dim": part.rope_dim,
                "v_head_dim": part.value_dim, "n_group": 1, "topk_group": 1,
            }  # fmt: skip
        elif isinstance(part, LinearAttention):
            found |= {
                "linear_num_key_heads": part.key_heads, "linear_num_value_heads": part.value_heads,
                "linear_key_head_dim": part.key_dim, "linear_value_head_dim": part.value_dim,
                "linear_conv_kernel_dim": part.conv,
            }  # fmt: skip
        else:
            found["sliding_window"] = part.window
    if len(card.attention) > 1:  # the rarer kind ends each group of layers
        [full] = (part for part in card.attention if isinstance(part, FullAttention))
        [other] = (part for part in card.attention if part is not full)
        every = card.layers // full.layers
        kinds = [full.kind if (layer + 1) % every == 0 else other.kind for layer in range(card.layers)]
        found["layer_types"] = [OTHERS.get(kind, "full_attention") for kind in kinds]
    for mlp in card.mlp:
        if not isinstance(mlp, MoeMlp):
            found |= {"intermediate_size": mlp.width, "first_k_dense_replace": mlp.layers}
            continue
        found |= {
            "moe_intermediate_size": mlp.width, "num_experts": mlp.experts, "n_routed_experts": mlp.experts,
            "num_local_experts": mlp.experts, "num_experts_per_tok": mlp.active_experts,
            "n_shared_experts": mlp.shared_width // mlp.width,
            "shared_expert_intermediate_size": mlp.shared_width,
        }  # fmt: skip
        found.setdefault("intermediate_size", mlp.width)
    return found


def config(card: ModelCard) -> Any:
    """The config of a card; the first class whose begin its name has."""
    moe = card.moe is not None
    classes: tuple[tuple[str, type, dict[str, Any]], ...] = (
        ("gpt-oss", transformers.GptOssConfig, {"attention_bias": True}),
        ("DeepSeek", transformers.DeepseekV3Config, {}),
        ("Kimi", transformers.DeepseekV3Config, {}),
        ("GLM-4.6", transformers.Glm4MoeConfig, {"attention_bias": True, "use_qk_norm": True}),
        ("GLM-4", transformers.Glm4MoeConfig, {"attention_bias": True}),
        ("MiniMax", transformers.MiniMaxM2Config, {}),
        ("Qwen3-Next", transformers.Qwen3NextConfig, {}),
        ("Qwen3.5", transformers.Qwen3_5MoeTextConfig if moe else transformers.Qwen3_5TextConfig, {}),
        ("Qwen3", transformers.Qwen3MoeConfig if moe else transformers.Qwen3Config, {}),
        ("Mistral", transformers.MistralConfig, {"sliding_window": None}),
        ("", transformers.LlamaConfig, {}),
    )
    kind, extra = next((kind, extra) for begin, kind, extra in classes if card.name.startswith(begin))
    return kind(**common(card), **extra)


def count(card: ModelCard) -> tuple[int, int]:
    """(all parameters, those without the unused experts and the input embedding)."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config(card), dtype=torch.bfloat16)
    total = sum(p.numel() for p in model.parameters())
    experts = sum(p.numel() for name, p in model.named_parameters() if ".experts" in name)
    idle = 0 if card.moe is None else experts * (card.moe.experts - card.moe.active_experts) // card.moe.experts
    embedding = 0 if card.tied_embeddings else model.get_input_embeddings().weight.numel()
    return total, total - idle - embedding


if __name__ == "__main__":
    lines = [f"# by scripts/transformers_counts.py with transformers {transformers.__version__}"]
    for card in cards().values():
        total, active = count(card)
        print(f"{card.name:20} {total:>17,} {active:>15,}", flush=True)
        lines.append(f"{card.name}: {{total_params: {total}, active_params: {active}}}")
    COUNTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
