"""`oss-eval models`: its JSON, its tables, and what it says to a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.commands import Command


def test_a_model_as_json(oss_eval: Command) -> None:
    done = oss_eval("models", "openai/gpt-oss-20b", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["total_params"] == pytest.approx(20.91e9, rel=0.01)
    assert found["active_params"] == pytest.approx(3.61e9, rel=0.01)
    assert found["weight_bytes"] == pytest.approx(13.76e9, rel=0.01)
    assert found["kv_bytes_per_token"] == 49152
    assert found["efforts"] == ["low", "medium", "high"]
    assert found["doubt"] is None
    fits = {one["gpu"]: one["fit"]["fits"] for one in found["machines"]}
    assert fits["A10-24GB"]
    assert len(fits) >= 12


def test_what_fits_a_gpu_as_json(oss_eval: Command) -> None:
    words = ("models", "gpt-oss-20b", "--gpu", "A10", "--context", "32k", "--parallel", "64", "--json")
    found = json.loads(oss_eval(*words).stdout)
    fit = found["fit"]
    assert not fit["fits"]
    assert fit["context"] == 32768
    assert 0 < fit["max_users"] < 64
    assert fit["left_bytes"] < 0
    assert fit["left_bytes"] == pytest.approx(fit["usable_bytes"] - fit["weights_bytes"] - fit["kv_bytes"])
    assert [row["batch"] for row in found["roofline"]["decode"]] == [1, 4, 16, 64, 256]
    assert {row["limit"] for row in found["roofline"]["decode"]} <= {"memory", "compute"}
    assert any("TRITON_ATTN" in row["advice"] for row in found["advice"])
    whole = json.loads(oss_eval("models", "gpt-oss-20b", "--gpu", "A10", "--dtype", "bf16", "--json").stdout)
    assert not whole["fit"]["fits"]
    assert whole["fit"]["max_users"] == 0
    assert whole["fit"]["weights_bytes"] == pytest.approx(2 * found["total_params"])


@pytest.mark.parametrize("columns", ["80", "160"])
def test_the_tables_fit_a_terminal(oss_eval: Command, columns: str) -> None:
    for words in (
        ("models",), ("models", "--gpus"), ("models", "gpt-oss-20b"),
        ("models", "gpt-oss-120b", "--gpu", "H100-80GBx2", "--parallel", "64", "--context", "8k"),
    ):  # fmt: skip
        done = oss_eval(*words, COLUMNS=columns)
        assert done.returncode == 0, done.stderr
        assert max(map(len, done.stdout.splitlines())) <= int(columns)
        assert "…" not in done.stdout


def test_a_model_of_a_config_file(oss_eval: Command, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    config = {
        "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9, "num_key_value_heads": 3,
        "num_hidden_layers": 30, "vocab_size": 49152, "max_position_embeddings": 8192, "tie_word_embeddings": True,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    found = json.loads(oss_eval("models", "--from", "mine/config.json", "--gpu", "16GB", "--json").stdout)
    assert found["name"] == "mine"
    assert found["total_params"] == pytest.approx(134_515_008, rel=0.001)
    assert found["fit"]["fits"]
    assert found["roofline"] is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("gpt-os-20b",), "did you mean gpt-oss-20b?"),
        (("gpt-oss-20b", "--gpu", "H10"), "did you mean H100-80GB"),
        (("gpt-oss-20b", "--gpu", "H100x0"), "is not a number of GPUs"),
        (("gpt-oss-20b", "--gpu", "H100", "--context", "256k"), "--context 131072 or less"),
        (("gpt-oss-20b", "--gpu", "EPYC-9654"), "--gpu 64GB"),
        (("gpt-oss-20b", "--context", "many"), "'many' is not a number of tokens"),
        (("gpt-oss-20b", "--from", "config.json"), "give one of them"),
        (("--from", "config.json"), "can't read --from config.json"),
        (("--gpu", "H100"), "without a model"),
    ],
)
def test_a_mistake_is_told(oss_eval: Command, words: tuple[str, ...], told: str) -> None:
    done = oss_eval("models", *words)
    assert done.returncode == 2
    assert told in done.stderr
    assert not done.stdout
