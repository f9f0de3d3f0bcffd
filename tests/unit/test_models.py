"""Model and machine cards against published figures, and what follows from them against hand and simulation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from oss_eval.errors import UsageError
from oss_eval.models import roofline
from oss_eval.models.card import cards, find_card, get_card, read_card
from oss_eval.models.fit import fit, user_bytes
from oss_eval.models.hf_config import card_from_config
from oss_eval.models.machine import GIB, get_machine, machine_of, machines
from oss_eval.models.published_speed import published_speed
from oss_eval.models.runtime_advice import advice_for
from oss_eval.models.sizes import (
    active_params,
    head_params,
    kv_bytes_per_token,
    prefill_flops,
    sequence_kv_bytes,
    state_bytes,
    total_params,
    weight_bytes,
)

COUNTED = yaml.safe_load((Path(__file__).parent / "transformers_counts.yaml").read_text())
ROUNDED = {"Kimi-K2-Instruct": 0.05, "Kimi-K2-Thinking": 0.05, "Mistral-Small-24B": 0.02}
"""Makers who publish one or two digits: 1T, 24B. The share that such rounding may be off."""


@pytest.mark.parametrize("name", cards())
def test_parameters_are_those_that_transformers_counts(name: str) -> None:
    """Of a model built from the card's fields; transformers counts norms and biases too."""
    card = cards()[name]
    assert total_params(card) == pytest.approx(COUNTED[name]["total_params"], rel=1e-3)
    assert active_params(card) == pytest.approx(COUNTED[name]["active_params"], rel=1e-3)


@pytest.mark.parametrize("name", cards())
def test_totals_are_the_published_ones(name: str) -> None:
    card = cards()[name]
    assert card.published is not None
    assert card.published.source.startswith("https://")
    assert total_params(card) == pytest.approx(card.published.total_params, rel=ROUNDED.get(name, 0.01))
    if card.published.checkpoint_bytes is not None:
        assert weight_bytes(card) == pytest.approx(card.published.checkpoint_bytes, rel=0.01)


def test_active_parameters_of_gpt_oss_are_the_published_ones() -> None:
    """The only makers here who publish three digits, and say what they count (arXiv:2508.10925, table 1)."""
    for name in ("gpt-oss-20b", "gpt-oss-120b"):
        published = cards()[name].published
        assert published is not None
        assert active_params(cards()[name]) == pytest.approx(published.active_params, rel=0.002)


@pytest.mark.parametrize(
    ("name", "bytes_per_token"),
    [
        ("DeepSeek-V3", 70_272),  # "70.272 KB", arXiv:2505.09343, table 1
        ("Llama-3.1-8B", 2 * 32 * 8 * 128 * 2),
        ("gpt-oss-20b", 49_152),  # vLLM 0.24 on an H200: 113.53 GiB for 2,477,748 tokens are 49,200 bytes each
    ],
)
def test_kv_bytes_of_a_token(name: str, bytes_per_token: int) -> None:
    assert kv_bytes_per_token(cards()[name]) == bytes_per_token


def test_a_sliding_window_stops_growing() -> None:
    card = cards()["gpt-oss-20b"]
    inside, beyond = kv_bytes_per_token(card), kv_bytes_per_token(card, beyond_windows=True)
    assert beyond == inside / 2
    assert sequence_kv_bytes(card, 100) == 100 * inside
    assert sequence_kv_bytes(card, 1128) == 128 * inside + 1000 * beyond
    assert sequence_kv_bytes(card, 1128, kv_bits=8) == sequence_kv_bytes(card, 1128) / 2


def test_linear_attention_takes_the_same_for_any_length() -> None:
    card = cards()["Qwen3-Next-80B-A3B"]
    full = 12 * 2 * 2 * 256 * 2
    assert kv_bytes_per_token(card) == full
    # 36 layers, 32 value heads with a state of 128 x 128 numbers, and the convolution's last 3 inputs; FP32
    assert state_bytes(card) == 36 * (32 * 128 * 128 + 3 * (2 * 16 * 128 + 32 * 128)) * 4
    assert sequence_kv_bytes(card, 5000) == 5000 * full + state_bytes(card)


# -- what fits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "gpu", "dtype", "fits"),
    [
        ("gpt-oss-20b", "16GB", None, True),  # "16 GB of memory", OpenAI
        ("gpt-oss-120b", "H100-80GB", None, True),  # "a single 80 GB GPU", OpenAI
        ("gpt-oss-120b", "L40S-48GB", None, False),
        ("gpt-oss-20b", "A10-24GB", "bf16", False),  # the Azure article
        ("gpt-oss-20b", "A10-24GB", None, True),
        ("DeepSeek-V3", "H100-80GBx8", None, False),  # 671 GB of weights in 640 GB
        ("DeepSeek-V3", "H200-141GBx8", None, True),
    ],
)
def test_what_is_known_to_fit(name: str, gpu: str, dtype: Any, fits: bool) -> None:
    found = fit(cards()[name], get_machine(gpu), context=8192, dtype=dtype)
    assert found.fits is fits
    assert (found.max_users > 0) is fits
    assert found.left_bytes == pytest.approx(found.usable_bytes - found.weights_bytes - found.kv_bytes)


def test_the_memory_that_vllm_leaves_for_the_kv_cache() -> None:
    """What vLLM 0.24 printed for gpt-oss-20b with --gpu-memory-utilization 0.92: "Available KV cache memory"."""
    for gpu, printed in (("NVIDIA H200", 113.53), ("NVIDIA H100 80GB HBM3", 57.76)):
        found = fit(cards()["gpt-oss-20b"], get_machine(gpu), users=0)
        assert printed < found.left_bytes / GIB < 1.05 * printed


def test_the_most_users_fit_and_one_more_does_not() -> None:
    card, machine = cards()["gpt-oss-20b"], get_machine("A10")
    most = fit(card, machine, context=32768).max_users
    assert fit(card, machine, context=32768, users=most).fits
    assert not fit(card, machine, context=32768, users=most + 1).fits


def test_tensor_parallelism_copies_what_it_cannot_split() -> None:
    llama, deepseek = cards()["Llama-3.1-8B"], cards()["DeepSeek-V3"]
    one = sequence_kv_bytes(llama, 1000)
    assert user_bytes(llama, get_machine("A100-80GBx8"), 1000, 16.0) == one
    assert user_bytes(llama, get_machine("A100-80GBx16"), 1000, 16.0) == 2 * one
    latent = sequence_kv_bytes(deepseek, 1000)
    assert user_bytes(deepseek, get_machine("H200x8"), 1000, 16.0) == 8 * latent


# -- bounds -----------------------------------------------------------------------------------------------------


def test_the_bound_of_a_dense_model_by_hand() -> None:
    """Llama-3.1-8B on an A100 80GB, one user at 1,000 tokens: docs/models.md has the arithmetic."""
    card, machine = cards()["Llama-3.1-8B"], get_machine("A100-80GB")
    embedding = 128256 * 4096
    layer = 4096 * (4096 + 2 * 1024) + 4096 * 4096 + 3 * 4096 * 14336
    moved = 2 * (32 * layer + embedding) + 1000 * 131072
    step = roofline.decode_step(card, machine, 1, 1000)
    assert step.memory_s == pytest.approx(moved / 2039e9)
    flops = 2 * (32 * layer + embedding) + 32 * 4 * 32 * 128 * 1000
    assert step.compute_s == pytest.approx(flops / 312e12)
    assert step.limit == "memory"
    assert roofline.decode_step(card, machine, 512, 16).limit == "compute"


def test_the_bound_of_a_mixture_of_experts_by_hand() -> None:
    """gpt-oss-20b on an H100 80GB, 16 users at 1,000 tokens: docs/models.md has the arithmetic."""
    card, machine = cards()["gpt-oss-20b"], get_machine("H100-80GB")
    experts = 32 * (1 - (1 - 4 / 32) ** 16)
    attention = 24 * (2880 * (64 * 64 + 2 * 8 * 64) + 64 * 64 * 2880)
    weights = 2 * (attention + 24 * 2880 * 32 + 201088 * 2880) + 24 * experts * 3 * 2880**2 * 4.25 / 8
    cache = 16 * 2 * 8 * 64 * 2 * (12 * 1000 + 12 * 128)
    step = roofline.decode_step(card, machine, 16, 1000)
    assert step.memory_s == pytest.approx((weights + cache) / 3350e9)


def test_distinct_experts_are_those_of_a_simulation() -> None:
    card = cards()["gpt-oss-20b"]
    random = np.random.default_rng(7)
    for tokens in (1, 3, 16, 64):
        found = [
            len(set(np.concatenate([random.choice(32, 4, replace=False) for _ in range(tokens)])))
            for _ in range(2000)
        ]
        error = np.std(found) / np.sqrt(len(found))
        assert roofline.distinct_experts(card, tokens) == pytest.approx(np.mean(found), abs=4 * error + 1e-9)
    assert roofline.distinct_experts(cards()["Llama-3.1-8B"], 64) == 0


def test_two_machines_are_twice_as_fast_at_best() -> None:
    card = cards()["gpt-oss-120b"]
    one, two = (roofline.decode_step(card, get_machine(gpu), 8, 1000).seconds for gpu in ("H100", "H100x2"))
    assert one == pytest.approx(2 * two)


def test_four_bit_weights_are_computed_in_eight_bits_on_blackwell_alone() -> None:
    hopper, blackwell = machines()["H100-80GB"], machines()["B200-180GB"]
    assert hopper.flops("mxfp4") == hopper.tflops["bf16"] * 1e12
    assert blackwell.flops("mxfp4") == blackwell.tflops["fp8"] * 1e12
    assert machines()["T4-16GB"].flops("bf16") == machines()["T4-16GB"].tflops["fp16"] * 1e12


# -- names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("served", "card", "doubted"),
    [
        ("openai/gpt-oss-20b", "gpt-oss-20b", False),
        ("gpt-oss:20b", "gpt-oss-20b", False),
        ("GPT_OSS_120B", "gpt-oss-120b", False),
        ("/models/gpt-oss-20b/", "gpt-oss-20b", False),
        ("gpt-oss-20b-Q4_K_M.gguf", "gpt-oss-20b", True),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507-FP8", "Qwen3-30B-A3B", True),
        ("someone/gpt-oss-20b-medical", "gpt-oss-20b", True),
        ("deepseek-ai/DeepSeek-R1", "DeepSeek-V3", False),
    ],
)
def test_a_served_name_finds_its_card(served: str, card: str, doubted: bool) -> None:
    found = find_card(served)
    assert found is not None
    assert found[0].name == card
    assert (found[1] is not None) is doubted


@pytest.mark.parametrize(
    "served",
    [
        "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "deepseek-r1:8b", "DeepSeek-R1-0528-Qwen3-8B",
        "Qwen3-8B-Embedding", "gpt-4o", "Qwen3-8", "", "instruct",
    ],
)  # fmt: skip
def test_another_model_finds_none(served: str) -> None:
    assert find_card(served) is None


def test_no_two_cards_have_a_name_in_common() -> None:
    names = [name.lower() for card in cards().values() for name in {card.name, *card.aliases}]
    assert len(names) == len(set(names))
    names = [name.lower() for card in machines().values() for name in {card.name, *card.aliases}]
    assert len(names) == len(set(names))


def test_an_unknown_name_is_told_with_a_near_one() -> None:
    with pytest.raises(UsageError) as error:
        get_card("gpt-os-20b")
    assert "gpt-oss-20b" in error.value.hint
    with pytest.raises(UsageError) as error:
        get_machine("H10")
    assert "H100-80GB" in error.value.hint


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [
        ("H100", "H100-80GB", 1),
        ("h100-80gb x 8", "H100-80GB", 8),
        ("NVIDIA H200", "H200-141GB", 1),
        ("16GBx2", "16GB", 2),
    ],
)
def test_machines_are_named_as_people_and_drivers_do(text: str, name: str, count: int) -> None:
    machine = get_machine(text)
    assert (machine.card.name, machine.count) == (name, count)


def test_gpus_that_differ_are_no_machine() -> None:
    several = machine_of(["NVIDIA H200", "NVIDIA H200"])
    assert several is not None
    assert several.name == "H200-141GBx2"
    assert machine_of(["NVIDIA H200", "NVIDIA A10"]) is None
    assert machine_of(["NVIDIA H200", None]) is None
    assert machine_of([]) is None


def test_machine_cards_are_complete() -> None:
    """Twelve GPUs and more, all with memory, bandwidth, arithmetic and power, each with its sources."""
    assert sum(card.kind == "gpu" for card in machines().values()) >= 12
    for card in machines().values():
        assert card.sources, card.name
        assert card.bandwidth_gb_s, card.name
        assert card.tflops, card.name
        assert card.power_w, card.name
        assert card.memory_mib or card.kind == "cpu", card.name


# -- Hugging Face configs ---------------------------------------------------------------------------------------

CONFIGS: dict[str, dict[str, Any]] = {
    "Llama-3.1-8B": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8,
        "num_hidden_layers": 32, "vocab_size": 128256, "max_position_embeddings": 131072,
        "tie_word_embeddings": False, "model_type": "llama",
    },
    "Qwen3-30B-A3B": {
        "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768, "num_experts": 128,
        "num_experts_per_tok": 8, "head_dim": 128, "num_attention_heads": 32, "num_key_value_heads": 4,
        "num_hidden_layers": 48, "vocab_size": 151936, "max_position_embeddings": 40960, "mlp_only_layers": [],
        "decoder_sparse_step": 1, "sliding_window": None, "use_sliding_window": False, "max_window_layers": 48,
        "tie_word_embeddings": False, "model_type": "qwen3_moe",
    },
    "DeepSeek-V3": {
        "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048, "n_routed_experts": 256,
        "n_shared_experts": 1, "num_experts_per_tok": 8, "first_k_dense_replace": 3, "moe_layer_freq": 1,
        "num_attention_heads": 128, "num_key_value_heads": 128, "num_hidden_layers": 61, "q_lora_rank": 1536,
        "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
        "vocab_size": 129280, "max_position_embeddings": 163840, "tie_word_embeddings": False,
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}, "model_type": "deepseek_v3",
    },
    "gpt-oss-120b": {
        "hidden_size": 2880, "intermediate_size": 2880, "num_local_experts": 128, "num_experts_per_tok": 4,
        "head_dim": 64, "num_attention_heads": 64, "num_key_value_heads": 8, "num_hidden_layers": 36,
        "layer_types": ["sliding_attention", "full_attention"] * 18, "sliding_window": 128, "vocab_size": 201088,
        "max_position_embeddings": 131072, "tie_word_embeddings": False, "model_type": "gpt_oss",
        "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": [
            "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]},
    },
    "Qwen3-Next-80B-A3B": {
        "hidden_size": 2048, "intermediate_size": 5120, "moe_intermediate_size": 512, "num_experts": 512,
        "num_experts_per_tok": 10, "shared_expert_intermediate_size": 512, "decoder_sparse_step": 1,
        "full_attention_interval": 4, "head_dim": 256, "num_attention_heads": 16, "num_key_value_heads": 2,
        "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_key_head_dim": 128,
        "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4, "num_hidden_layers": 48, "vocab_size": 151936,
        "max_position_embeddings": 262144, "tie_word_embeddings": False, "model_type": "qwen3_next",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_a_published_config_makes_the_same_card(name: str, tmp_path: Path) -> None:
    path = tmp_path / name / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(CONFIGS[name]))
    made, card = card_from_config(path), cards()[name]
    assert made.name == name
    assert total_params(made) == total_params(card)
    assert active_params(made) == active_params(card)
    assert weight_bytes(made) == weight_bytes(card)
    assert sequence_kv_bytes(made, made.context) == sequence_kv_bytes(card, card.context)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not JSON"), ("[]", "no JSON object"), ("{}", "num_hidden_layers"),
        (json.dumps({**CONFIGS["Llama-3.1-8B"], "vocab_size": -1}), "vocab"),
        (json.dumps({**CONFIGS["Llama-3.1-8B"], "num_hidden_layers": "many"}), "many"),
        (json.dumps({**CONFIGS["Llama-3.1-8B"], "quantization_config": {"quant_method": "aqlm", "bits": 2}}), "aqlm"),
        (json.dumps({**CONFIGS["Llama-3.1-8B"], "layer_types": ["mamba"] * 32}), "mamba"),
        (json.dumps({**CONFIGS["Llama-3.1-8B"], "moe_num_experts": 64}), "moe_num_experts"),
        (json.dumps({**CONFIGS["Llama-3.1-8B"], "quantization_config": [1]}), "list"),
        (json.dumps({**CONFIGS["Llama-3.1-8B"], "num_hidden_layers": float("inf")}), "infinity"),
    ],
)  # fmt: skip
def test_a_bad_config_is_told(content: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(UsageError) as error:
        card_from_config(path)
    assert told in error.value.message
    assert str(path) in error.value.message


def test_a_bad_card_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    values = cards()["gpt-oss-20b"].model_dump(mode="json")
    values["mlp"][0]["layers"] = 23
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(UsageError, match="24 attention layers and 23 MLP layers"):
        read_card(path)


# -- advice and others' figures -----------------------------------------------------------------------------------


def test_advice_is_for_the_gpu_and_the_engine() -> None:
    card = cards()["gpt-oss-20b"]
    hopper = " ".join(row.advice for row in advice_for(card, machines()["H100-80GB"], "vLLM", "0.24.0"))
    ampere = " ".join(row.advice for row in advice_for(card, machines()["A10-24GB"], "vLLM", "0.24.0"))
    assert "FlashAttention 3" in hopper
    assert "TRITON_ATTN" in ampere
    assert "FlashAttention 3" not in ampere
    assert all(set(row.engines) <= {"vllm"} for row in advice_for(card, machines()["A10-24GB"], "vLLM", "0.24.0"))


def test_advice_for_an_old_version_is_for_that_version_alone() -> None:
    card, a10 = cards()["gpt-oss-20b"], machines()["A10-24GB"]

    def told(version: str | None) -> bool:
        return any("Sinks are only supported" in row.advice for row in advice_for(card, a10, "vLLM", version))

    assert told("0.10.1+gptoss")
    assert not told("0.24.0")
    assert not told(None)
    assert not told("b6918")


def test_fp8_advice_is_for_fp8_checkpoints() -> None:
    a100 = machines()["A100-80GB"]
    assert any("FP8" in row.advice for row in advice_for(cards()["DeepSeek-V3"], a100, "vllm"))
    assert not any("FP8" in row.advice for row in advice_for(cards()["Llama-3.1-8B"], a100, "vllm"))


def test_every_advice_has_a_source_and_fits_a_line() -> None:
    for card in cards().values():
        for machine in machines().values():
            for row in advice_for(card, machine):
                assert row.sources
                assert all(source.startswith("https://") for source in row.sources)
                assert len(row.advice) <= 140


def test_the_published_sweep_is_there_as_published() -> None:
    rows = [row for row in published_speed("openai/gpt-oss-20b") if row.machine == "H20-96GB"]
    assert [(row.parallel, row.value("output_tps")) for row in rows] == [
        (1, 150.34), (10, 986.63), (50, 2529.14), (100, 3455.61)
    ]  # fmt: skip
    ranged = next(row for row in published_speed("gpt-oss:20b") if row.machine == "A10-24GB")
    assert ranged.metrics["output_tps"] == (45, 55)
    assert ranged.value("output_tps") is None
    assert published_speed("no such model") == []


def test_a_name_tells_the_format_of_the_weights() -> None:
    found = find_card("Qwen/Qwen3-32B-AWQ")
    assert found is not None
    whole, quarter = weight_bytes(cards()["Qwen3-32B"]), weight_bytes(found[0])
    assert quarter < 0.4 * whole
    assert "weights in int4, as its name says" in (found[1] or "")
    plain = find_card("gpt-oss-20b-MXFP4")
    assert plain is not None
    assert weight_bytes(plain[0]) == weight_bytes(cards()["gpt-oss-20b"])


@pytest.mark.parametrize("name", ["gpt-oss-20b", "DeepSeek-V3", "Llama-3.1-8B", "Qwen3-Next-80B-A3B"])
def test_operations_of_a_prompt_add_up(name: str) -> None:
    """Token by token, with the head once: sliding layers stop growing, and cached tokens cost nothing."""
    card = cards()[name]
    prompt, cached = 600, 400
    tokens = np.arange(1, prompt + 1) - 0.5  # the middle of each step of the integral
    total = 2.0 * (active_params(card) - head_params(card)) * prompt + 2.0 * head_params(card)
    for part in card.attention:
        if part.kind == "linear":
            total += part.layers * 6.0 * part.value_heads * part.key_dim * part.value_dim * prompt
        elif part.kind == "mla":
            width = part.nope_dim + part.rope_dim + part.value_dim
            total += part.layers * 2.0 * part.heads * width * tokens.sum()
        else:
            seen = np.minimum(tokens, part.window) if part.kind == "sliding" else tokens
            total += part.layers * 4.0 * part.heads * part.head_dim * seen.sum()
    assert prefill_flops(card, prompt) == pytest.approx(total, rel=1e-3)
    rest = prefill_flops(card, prompt, cached)
    assert rest == pytest.approx(prefill_flops(card, prompt) - prefill_flops(card, cached) + 2 * head_params(card))


def test_cached_tokens_are_read_by_decoding_all_the_same() -> None:
    card, machine = cards()["Llama-3.1-8B"], get_machine("H100")
    cold, warm = (roofline.request(card, machine, 64, 10_000, 500, cached) for cached in (0, 9_900))
    assert warm.memory_s == cold.memory_s
    assert warm.compute_s < 0.2 * cold.compute_s
    drafted = roofline.request(card, machine, 64, 10_000, 500, 0, 2.5)
    assert drafted.memory_s == pytest.approx(cold.memory_s / 2.5)
    assert drafted.compute_s == cold.compute_s


def test_other_window_layouts() -> None:
    base = {**CONFIGS["Llama-3.1-8B"], "sliding_window": 1024}
    from oss_eval.models.hf_config import _layer_types

    assert _layer_types({**base, "sliding_window_pattern": 6}, 12) == (["sliding"] * 5 + ["full"]) * 2
    assert _layer_types({**base, "model_type": "gemma2"}, 4) == ["sliding", "full"] * 2
