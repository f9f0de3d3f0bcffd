"""Try oss-eval against real servers out of the package registries, with tiny models of random weights.

    python scripts/real_server.py litellm        # LiteLLM's proxy in front of the simulator
    python scripts/real_server.py llama-cpp      # llama-cpp-python's server with a GGUF written here
    python scripts/real_server.py transformers   # `transformers serve` with a tiny gpt-oss

`--python PATH` names the interpreter that has the server's packages (default: this one): `litellm[proxy]`,
`llama-cpp-python[server]` with `gguf`, `transformers[serving]` with `torch`. Runs doctor, ask, perf and bench, prints
what they say, and ends the server. Nothing but loopback is used.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from oss_eval.simulator.process import running

PORT = 18765
KEY = "sk-loopback-only"

GGUF = """
import sys, numpy as np, gguf
dim, heads, layers, ffn, vocab = 64, 4, 2, 128, 260
w = gguf.GGUFWriter(sys.argv[1], "llama")
w.add_context_length(2048); w.add_embedding_length(dim); w.add_block_count(layers); w.add_feed_forward_length(ffn)
w.add_head_count(heads); w.add_head_count_kv(heads); w.add_layer_norm_rms_eps(1e-5); w.add_rope_dimension_count(dim // heads)
w.add_vocab_size(vocab); w.add_file_type(gguf.LlamaFileType.ALL_F32)
tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + ["\\u2581"]
types = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL] + [gguf.TokenType.BYTE] * 256 + [gguf.TokenType.NORMAL]
w.add_tokenizer_model("llama"); w.add_token_list(tokens); w.add_token_scores([0.0] * vocab); w.add_token_types(types)
w.add_bos_token_id(1); w.add_eos_token_id(2); w.add_unk_token_id(0)
rng = np.random.default_rng(0)
def put(name, *shape):
    w.add_tensor(name, (rng.standard_normal(shape) * 0.05).astype(np.float32) if len(shape) > 1 else np.ones(shape, np.float32))
put("token_embd.weight", vocab, dim); put("output_norm.weight", dim); put("output.weight", vocab, dim)
for i in range(layers):
    for n in ("attn_q", "attn_k", "attn_v", "attn_output"): put(f"blk.{i}.{n}.weight", dim, dim)
    put(f"blk.{i}.attn_norm.weight", dim); put(f"blk.{i}.ffn_norm.weight", dim)
    put(f"blk.{i}.ffn_gate.weight", ffn, dim); put(f"blk.{i}.ffn_up.weight", ffn, dim); put(f"blk.{i}.ffn_down.weight", dim, ffn)
w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()
"""

TRANSFORMERS = """
import sys, torch
from tokenizers import Tokenizer, models, pre_tokenizers, decoders
from transformers import GptOssConfig, GptOssForCausalLM, PreTrainedTokenizerFast
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
vocab = {token: n for n, token in enumerate(["<|endoftext|>", *alphabet])}
tok = Tokenizer(models.BPE(vocab=vocab, merges=[])); tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tok.decoder = decoders.ByteLevel()
fast = PreTrainedTokenizerFast(tokenizer_object=tok, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
fast.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\\n{% endfor %}assistant:"
torch.manual_seed(0)
config = GptOssConfig(vocab_size=len(vocab), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=16, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=2048,
    eos_token_id=0, pad_token_id=0)
model = GptOssForCausalLM(config); model.generation_config.eos_token_id = 0; model.generation_config.pad_token_id = 0
model.save_pretrained(sys.argv[1]); fast.save_pretrained(sys.argv[1])
"""


@contextlib.contextmanager
def serving(command: list[str], ready: str, folder: Path, patience: float = 120.0) -> Iterator[None]:
    """A server as a child process, from its first answer until it is no longer needed."""
    log = (folder / "server.log").open("wb")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "*",
                   "LITELLM_MASTER_KEY": KEY, "HF_HUB_CACHE": str(folder)}  # fmt: skip
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + patience
        while True:
            with contextlib.suppress(OSError):
                urllib.request.build_opener(urllib.request.ProxyHandler({})).open(ready, timeout=2).close()
                break
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the server did not start:\n{(folder / 'server.log').read_text()[-2000:]}")
            time.sleep(0.5)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        log.close()


def try_out(url: str, model: str, folder: Path, *more: str) -> None:
    """What a user would type first."""
    for words in (
        ["doctor"],
        ["ask", "Say hello.", "--max-tokens", "32"],
        ["perf", "--parallel", "1", "4", "--number", "4", "8", "--prompt", "Say hello.", "--max-tokens", "32", "--out", str(folder / "results")],
        ["bench", "demo", "--limit", "4", "--repeats", "1", "--parallel", "4", "--max-tokens", "64", "--retries", "1",
         "--out", str(folder / "results")],
    ):  # fmt: skip
        command = [sys.executable, "-m", "oss_eval", *words, "--url", url, "--model", model, *more]
        print(f"\n$ oss-eval {' '.join(words[:2])} ...", flush=True)
        done = subprocess.run(command, timeout=300, env={**os.environ, "OPENAI_API_KEY": KEY})
        print(f"exit code {done.returncode}", flush=True)


def main() -> None:
    """Set up, try out, tear down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", choices=["litellm", "llama-cpp", "transformers"])
    parser.add_argument("--python", default=sys.executable, help="interpreter that has the server's packages")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # so that the server goes too
    url = f"http://127.0.0.1:{PORT}"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if given.server == "litellm":
            with running("sim://gpt-oss-20b-h20?speed=20") as simulator:
                model = {"model_name": "oss", "litellm_params": {"model": "openai/gpt-oss-20b", "api_base": simulator,
                                                                 "api_key": "none"}}  # fmt: skip
                (folder / "config.yaml").write_text(json.dumps({"model_list": [model]}))
                command = [str(Path(given.python).parent / "litellm"), "--config", str(folder / "config.yaml"),
                           "--host", "127.0.0.1", "--port", str(PORT)]  # fmt: skip
                with serving(command, f"{url}/health/liveliness", folder):
                    try_out(url, "oss", folder)
        elif given.server == "llama-cpp":
            subprocess.run([given.python, "-c", GGUF, str(folder / "tiny.gguf")], check=True)
            command = [given.python, "-m", "llama_cpp.server", "--model", str(folder / "tiny.gguf"), "--host", "127.0.0.1",
                       "--port", str(PORT), "--n_ctx", "2048", "--model_alias", "tiny", "--chat_format", "chatml"]  # fmt: skip
            with serving(command, f"{url}/v1/models", folder):
                try_out(url, "tiny", folder)
        else:
            subprocess.run([given.python, "-c", TRANSFORMERS, str(folder / "tiny")], check=True)
            command = [
                str(Path(given.python).parent / "transformers"),
                "serve",
                "--host",
                "127.0.0.1",
                "--port",
                str(PORT),
            ]
            with serving(command, f"{url}/v1/models", folder):
                try_out(url, str(folder / "tiny"), folder)


if __name__ == "__main__":
    main()
