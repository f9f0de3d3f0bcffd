"""`oss-eval models`: its JSON, its tables, and what it says to a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.commands import ROOT, Command
from tests.helpers.scripted_server import GOOD, MODELS, ScriptedServer, json_reply


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


def test_a_model_like_a_card_may_take_longer_sequences(oss_eval: Command) -> None:
    done = oss_eval("models", "Qwen3-30B-A3B-Instruct-2507", "--gpu", "H200-141GB", "--context", "128k", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["doubt"]
    assert found["fit"]["context"] == 131072
    assert oss_eval("models", "Qwen3-30B-A3B", "--gpu", "H200-141GB", "--context", "128k").returncode == 2


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


# -- bounds, labels and figures of others, in sweeps ---------------------------------------------------------------


def test_a_sweep_shows_its_share_of_the_bound(oss_eval: Command, fast_simulator: str) -> None:
    words = ("perf", "--url", fast_simulator, "--parallel", "2", "--number", "8", "--max-tokens", "20")
    done = oss_eval(*words, "--gpu", "H20-96GB", "--roofline", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["model_card"], document["machine"]) == ("gpt-oss-20b", "H20-96GB")
    [point] = document["points"]
    bound = point["bound"]
    rate = point.get("steady", point)["metrics"]["output_tps"]["value"]
    assert bound["share"] == pytest.approx(rate / bound["output_tps"])
    assert "Share of the bound: gpt-oss-20b on H20-96GB" in done.stderr
    assert f"{bound['share']:.0%} of the" in done.stderr
    other = oss_eval("show", "last", "--gpu", "A10-24GBx2")
    assert "Share of the bound: gpt-oss-20b on A10-24GBx2" in other.stdout
    assert "Share of the bound" not in oss_eval("show", "last").stdout


def test_a_sweep_without_a_card_says_so(oss_eval: Command, fast_simulator: str) -> None:
    words = ("perf", "--url", fast_simulator, "--parallel", "2", "--number", "8", "--max-tokens", "20")
    done = oss_eval(*words, "--roofline")
    assert done.returncode == 0, done.stderr
    assert "no bound of the speed" in done.stdout
    assert "--gpu GPU[xN]" in done.stdout


def test_an_unknown_gpu_is_told_before_anything_is_measured(oss_eval: Command, tmp_path: Path) -> None:
    done = oss_eval("perf", "--url", "sim://instant", "--gpu", "H10")
    assert done.returncode == 2
    assert "did you mean H100-80GB" in done.stderr
    assert not (tmp_path / "results").exists()
    assert oss_eval("show", "last", "--gpu", "H10").returncode == 2


def test_a_server_that_says_what_it_is_labels_its_runs(oss_eval: Command, tmp_path: Path) -> None:
    def script(number: int, request: bytes) -> list[object]:
        if request.startswith(b"GET /version "):
            return [json_reply(b'{"version":"0.24.0"}')]
        return [GOOD] if request.startswith(b"POST") else [MODELS]

    with ScriptedServer(script) as server:
        for words in (("--label", "server=a"), ("--label", "engine=mine")):
            done = oss_eval(
                "perf", "--url", server.url, "--prompt", "Hi", "--parallel", "2", "--number", "6", *words
            )
            assert done.returncode == 0, done.stderr
    labels = [
        json.loads(path.read_text())["labels"] for path in sorted((tmp_path / "results").glob("*/manifest.json"))
    ]
    assert {"engine": "vLLM", "engine_version": "0.24.0", "server": "a"} in labels
    assert {"engine": "mine"} in labels


def test_published_figures_of_another_load_are_told(oss_eval: Command) -> None:
    cold = str(next((ROOT / "results" / "examples" / "h100").glob("*-0d04")))
    done = oss_eval("compare", "published:H20-96GB", cold)
    assert done.returncode == 2
    assert "no point in common: c1, c10, c50, c100 and c128" in done.stderr


def test_published_figures_have_no_verdict(oss_eval: Command, fast_simulator: str) -> None:
    words = ("perf", "--url", fast_simulator, "--parallel", "10", "--number", "20", "--max-tokens", "20")
    assert oss_eval(*words).returncode == 0
    document = json.loads(oss_eval("compare", "published:H20-96GB", "last", "--json").stdout)
    found = {(c["metric"], c["stat"]): c for c in document["comparisons"]}
    assert found["output_tps", "value"]["a"] == 986.63
    assert found["ttft_ms", "mean"]["a"] == 865
    assert {c["verdict"] for c in found.values()} == {"no interval"}
    assert document["mismatches"][0]["a"].startswith("published 2025-08-06, error unknown, https://evalscope")
    text = oss_eval("compare", "published:H20-96GB", "last").stdout
    assert "Published figures have no interval" in text
    done = oss_eval("compare", "published:H20", "last")
    assert done.returncode == 2
    assert "H20-96GB" in done.stderr
    assert "compared with a run" in oss_eval("compare", "published:H20-96GB").stderr


# -- doctor --------------------------------------------------------------------------------------------------------


def test_doctor_advises_where_server_and_gpu_are_known(oss_eval: Command) -> None:
    listed = json_reply(b'{"data":[{"id":"openai/gpt-oss-20b","owned_by":"vllm"}]}')

    def script(number: int, request: bytes) -> list[object]:
        if request.startswith(b"GET /version "):
            return [json_reply(b'{"version":"0.24.0"}')]
        return [GOOD] if request.startswith(b"POST") else [listed]

    def checks(url: str, *words: str) -> dict[str, list[dict[str, str]]]:
        done = oss_eval("doctor", "--url", url, *words, "--json")
        found: dict[str, list[dict[str, str]]] = {}
        for check in json.loads(done.stdout):
            found.setdefault(check["name"], []).append(check)
        return found

    with ScriptedServer(script) as server:
        on_a10 = checks(server.url, "--gpu", "A10")
        on_hopper = checks(server.url, "--gpu", "H100")
        too_small = checks(server.url, "--gpu", "8GB")
        unknown = checks(server.url)
        mistaken = oss_eval("doctor", "--url", server.url, "--gpu", "H10")
    assert on_a10["model card"][0]["seen"].startswith("gpt-oss-20b: 20.9B parameters, 3.6B for a token, 12.8 GiB")
    assert on_a10["GPU"][0]["verdict"] == "pass"
    assert any("TRITON_ATTN" in check["seen"] for check in on_a10["runtime"])
    assert all("https://" in check["advice"] for check in on_a10["runtime"])
    assert any("FlashAttention 3" in check["seen"] for check in on_hopper["runtime"])
    assert too_small["GPU"][0]["verdict"] == "warn"
    assert "runtime" not in unknown
    assert mistaken.returncode == 2
    assert "did you mean H100-80GB" in mistaken.stderr
