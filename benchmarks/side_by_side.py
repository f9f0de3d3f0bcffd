"""oss-eval, EvalScope's perf and vLLM's Rust client against the same truth server, on one core, one after the other.

    python benchmarks/side_by_side.py [--streams 64 256 1024] [--requests-per-stream 2] [--tokens 256] [--varying]

The server (`oss-eval simulate --profile paced`) has the last core to itself and notes the instant before each
write; all processes of a tool are held to the first core. Printed for each tool and load: reported and true
percentiles, their error, CPU time a streamed token (whole command, less what the same command costs for one
request of two tokens), peak resident memory summed over its processes, and wall time. Linux only.

With `--varying` each event holds the usage so far, so that no two events are alike.

vLLM's client takes part where VLLM_RS names it (scripts/vllm-rs downloads it). It asks for completions, as it takes the
role of a chat's first event for a token.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from oss_eval.simulator.truth_log import TruthRow, read_truth
from oss_eval.system.environment import environment

BODY: dict[str, Any] = {"ignore_eos": True}
"""Fields that every tool sends beside its own."""
VARYING = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
METRICS = ("ttft", "latency", "tpot", "itl")
Percentiles = dict[str, tuple[float, float]]
"""metric -> (p50, p99) in ms."""


@dataclass
class Cost:
    """What a command took."""

    wall: float
    cpu: float
    peak_mb: float


def pinned(core: int) -> Callable[[], None]:
    return lambda: os.sched_setaffinity(0, {core})


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(p for child in children for p in tree(int(child)))]


def resident_mb(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except (OSError, IndexError):
        return 0.0


def timed(command: list[str], log: Path) -> Cost:
    """Run a command on the first core; CPU time includes that of its children."""
    begun = time.monotonic()
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, preexec_fn=pinned(0))
    peak = 0.0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        peak = max(peak, sum(resident_mb(p) for p in tree(process.pid)))
        time.sleep(0.1)
    if status:
        sys.exit(f"{command[0]} failed:\n{log.read_text()[-3000:]}")
    return Cost(time.monotonic() - begun, usage.ru_utime + usage.ru_stime, peak)


def run_oss_eval(url: str, streams: int, number: int, tokens: int, folder: Path) -> tuple[Cost, Percentiles]:
    command = [sys.executable, "-m", "oss_eval", "perf", "--url", url, "--parallel", str(streams), "--number"]
    command += [
        str(number),
        "--max-tokens",
        str(tokens),
        "--prompt",
        "Count.",
        "--out",
        str(folder),
        "--workers",
        "1",
    ]
    command += ["--extra-args", json.dumps(BODY)]
    cost = timed(command, folder / "oss-eval.log")
    shown = [sys.executable, "-m", "oss_eval", "show", "last", "--out", str(folder), "--json"]
    document = json.loads(subprocess.run(shown, capture_output=True, check=True).stdout)
    metrics = document["points"][0]["metrics"]
    return cost, {
        m: (metrics[f"{m}_ms"]["p50"], metrics[f"{m}_ms"]["p99"]) for m in METRICS if f"{m}_ms" in metrics
    }


def run_evalscope(url: str, streams: int, number: int, tokens: int, folder: Path) -> tuple[Cost, Percentiles]:
    command = [str(Path(sys.executable).parent / "evalscope"), "perf", "--url", f"{url}/chat/completions"]
    command += ["--parallel", str(streams), "--number", str(number), "--model", "paced", "--api", "openai"]
    command += ["--dataset", "openqa", "--prompt", "Count.", "--max-tokens", str(tokens), "--stream"]
    command += ["--extra-args", json.dumps(BODY), "--no-test-connection", "--outputs-dir", str(folder)]
    cost = timed(command, folder / "evalscope.log")
    [file] = folder.rglob("benchmark_percentile.json")
    rows = {row["Percentiles"]: row for row in json.loads(file.read_text())}
    names = {
        "ttft": ("TTFT (ms)", 1),
        "latency": ("Latency (s)", 1000),
        "tpot": ("TPOT (ms)", 1),
        "itl": ("ITL (ms)", 1),
    }
    return cost, {m: (rows["50%"][key] * f, rows["99%"][key] * f) for m, (key, f) in names.items()}


def run_vllm_rs(url: str, streams: int, number: int, tokens: int, folder: Path) -> tuple[Cost, Percentiles]:
    command = [os.environ["VLLM_RS"], "bench", "serve", "--backend", "openai", "--endpoint", "/v1/completions"]
    command += ["--base-url", url.removesuffix("/v1"), "--model", "paced", "--tokenizer", str(tokenizer(folder))]
    command += ["--dataset-name", "random", "--random-input-len", "2", "--random-output-len", str(tokens)]
    command += ["--num-prompts", str(number), "--max-concurrency", str(streams), "--ignore-eos", "--disable-tqdm"]
    command += ["--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,99", "--no-steady-state"]
    command += ["--extra-body", json.dumps(BODY)]
    command += ["--save-result", "--result-dir", str(folder), "--result-filename", "result.json"]
    cost = timed(command, folder / "vllm-rs.log")
    found = json.loads((folder / "result.json").read_text())
    names = {"ttft": "ttft", "latency": "e2el", "tpot": "tpot", "itl": "itl"}
    return cost, {m: (found[f"p50_{name}_ms"], found[f"p99_{name}_ms"]) for m, name in names.items()}


def tokenizer(folder: Path) -> Path:
    """A folder with a tokenizer of a few words, which vLLM's client wants."""
    target = folder / "tokenizer"
    target.mkdir()
    made = Tokenizer(WordLevel({f"w{n}": n for n in range(1000)} | {"[UNK]": 1000}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.save(str(target / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}
    (target / "tokenizer_config.json").write_text(json.dumps(settings))
    (target / "config.json").write_text('{"model_type": "llama"}')
    return target


TOOLS = {"oss-eval": run_oss_eval, "evalscope": run_evalscope, "vllm-rs": run_vllm_rs}


def true_percentiles(requests: list[TruthRow]) -> Percentiles:
    values: dict[str, list[np.ndarray]] = {metric: [] for metric in METRICS}
    for request in requests:
        written = np.asarray(request.token_ns) - request.received_ns
        values["ttft"].append(written[:1])
        values["latency"].append(written[-1:])
        values["tpot"].append((written[-1:] - written[:1]) / (len(written) - 1))
        values["itl"].append(np.diff(written))
    found = {m: np.percentile(np.concatenate(v), (50, 99)) / 1e6 for m, v in values.items()}
    return {m: (float(p50), float(p99)) for m, (p50, p99) in found.items()}


def measure(name: str, streams: int, number: int, tokens: int) -> None:
    """One tool at one load against a server of its own; prints a row a metric."""
    tool = TOOLS[name]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        truth, port_line = folder / "truth.jsonl", folder / "server.log"
        command = [sys.executable, "-m", "oss_eval", "simulate", "--profile", "paced", "--port", "0"]
        command += ["--truth-log", str(truth)]
        with port_line.open("wb") as out:
            last = max(os.sched_getaffinity(0))
            server = subprocess.Popen(command, stderr=out, preexec_fn=pinned(last))
        while "http://" not in port_line.read_text():
            time.sleep(0.05)
        url = port_line.read_text().split("  ")[1].split()[0]
        (folder / "idle").mkdir()
        (folder / "load").mkdir()
        idle, _ = tool(url, 1, 1, 2, folder / "idle")
        cost, reported = tool(url, streams, number, tokens, folder / "load")
        server.send_signal(signal.SIGTERM)
        server.wait()
        requests = [t for t in all_truth(truth) if len(t.token_ns) == tokens]
    true = true_percentiles(requests)
    per_token = (cost.cpu - idle.cpu) / (number * tokens) * 1e6
    print(
        f"\n{name}, {streams} streams, {number} requests x {tokens} tokens ({len(requests)} in the truth log): "
        f"CPU {per_token:.1f} us a token, peak {cost.peak_mb:.0f} MB, wall {cost.wall:.1f} s"
    )
    for metric in METRICS:
        if metric not in reported:
            continue
        cells = []
        for q, mine, theirs in zip(("p50", "p99"), reported[metric], true[metric], strict=True):
            cells.append(f"{q} {mine:10.3f} true {theirs:10.3f} ms {mine / theirs - 1:+9.2%}")
        print(f"  {metric:8s} {'   '.join(cells)}", flush=True)


def all_truth(path: Path) -> list[TruthRow]:
    """Every request of a truth log; EvalScope's have no id."""
    numbered = path.with_suffix(".numbered")
    with numbered.open("w") as out:
        for number, line in enumerate(path.read_text().splitlines()):
            out.write(json.dumps({**json.loads(line), "request_id": str(number)}) + "\n")
    return list(read_truth(numbered).values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", nargs="+", type=int, default=[64, 256, 1024])
    parser.add_argument("--requests-per-stream", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--only", nargs="+", choices=list(TOOLS), default=list(TOOLS))
    parser.add_argument("--varying", action="store_true", help="usage in every event")
    arguments = parser.parse_args()
    if arguments.varying:
        BODY.update(VARYING)
    if "vllm-rs" in arguments.only and "VLLM_RS" not in os.environ:
        print("vllm-rs is left out: VLLM_RS does not name it (scripts/vllm-rs downloads it)", flush=True)
        arguments.only.remove("vllm-rs")
    host = environment()
    print(
        f"{host['cpu']}, {host['cores']} cores, {host['system']}, Python {platform.python_version()}", flush=True
    )
    print(", ".join(f"{k} {v}" for k, v in host["packages"].items()))
    for streams in arguments.streams:
        for name in arguments.only:
            measure(name, streams, streams * arguments.requests_per_stream, arguments.tokens)
