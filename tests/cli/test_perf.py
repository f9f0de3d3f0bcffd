"""The main job as a user runs it: the command, over real sockets, in processes of its own."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orjson
import pandas as pd
import pytest

from oss_eval.results.manifest import read_manifest
from oss_eval.results.reader import read_requests
from oss_eval.simulator.process import running
from oss_eval.simulator.truth_log import read_truth
from tests.helpers.commands import ROOT, Command, until
from tests.helpers.interrupts_helpers import begun
from tests.helpers.scripted_server import (
    CLOSE,
    DONE,
    GOOD,
    LAST_CHUNK,
    MODELS,
    SSE_HEAD,
    STOP,
    ScriptedServer,
    answering,
    chunk,
    delta,
    json_reply,
    usage,
)  # fmt: skip

pytestmark = pytest.mark.alone

SIM = "sim://gpt-oss-20b-h20?speed=40"


def only_run(folder: Path) -> Path:
    [run] = (folder / "results").iterdir()
    return run


def test_the_first_command_of_the_readme(oss_eval: Command, tmp_path: Path) -> None:
    done = oss_eval("perf", "--url", SIM, "--parallel", "1", "10", "50", "--number", "5", "20", "100")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("SIMULATED by sim://gpt-oss-20b-h20?speed=40, no model is run")
    assert "point 3/3 parallel 50: 100/100 done, 0 in flight" in done.stderr
    for words in (
        "SIMULATED: no model was run",
        "(simulated)",
        "kernel receive timestamps",
        "Recommendations",
        "±",
    ):
        assert words in done.stdout
    run = only_run(tmp_path)
    frame = pd.read_parquet(run / "requests")
    measured = frame[~frame.warmup]
    assert measured.groupby("point_id", observed=True).size().to_dict() == {
        "00-c1": 5,
        "01-c10": 20,
        "02-c50": 100,
    }
    assert (measured.status == "ok").all()
    assert set(frame.clock_source) == {"kernel" if sys.platform.startswith("linux") else "user"}
    assert measured.prompt_tokens.unique().tolist() == [512 + 68]
    assert measured.completion_tokens.max() == 256
    manifest = read_manifest(run)
    assert manifest["endpoint"]["simulated"] is True
    assert [client["connections"] for client in manifest["client"].values()] == [1, 10, 50]
    assert manifest["status"] == "finished"
    assert manifest["prompt_lengths_by"] == "the server's own counts"
    assert manifest["environment"]["packages"]["uvloop"]
    summary = pd.read_parquet(run / "summary.parquet")
    means = summary[(summary.metric == "ttft_ms") & (summary.stat == "mean")].set_index("point_id")
    alone = means.loc["00-c1"]
    assert alone.ci_low < alone.value < alone.ci_high
    assert pd.isna(means.loc["02-c50"].ci_low)  # two requests a slot do not tell
    assert means.loc["02-c50"].n == 100
    again = oss_eval("show", run.name)
    assert again.stdout == done.stdout


def test_reported_times_are_the_true_ones_at_64_streams(oss_eval: Command, tmp_path: Path) -> None:
    done = oss_eval(
        "perf", "--url", "sim://gpt-oss-20b-h20?speed=4", "--parallel", "64", "--number", "192", "--json"
    )
    run = Path(tmp_path / json.loads(done.stdout)["path"])
    truth, reported, true = read_truth(run / "truth.jsonl"), {}, {}
    for row in read_requests(run).to_pylist():
        if row["warmup"]:
            continue
        token_ns = truth[f"{run.name}/{row['request_id']}"].token_ns
        received = truth[f"{run.name}/{row['request_id']}"].received_ns
        tokens = row["completion_tokens"]
        assert len(token_ns) == tokens
        first, last = row["first_token_ns"], row["last_token_ns"]
        for name, mine, theirs in (
            ("ttft", first - row["start_ns"], token_ns[0] - received),
            ("latency", last - row["start_ns"], token_ns[-1] - received),
            ("tpot", (last - first) / (tokens - 1), (token_ns[-1] - token_ns[0]) / (tokens - 1)),
        ):
            reported.setdefault(name, []).append(mine)
            true.setdefault(name, []).append(theirs)
    for name in reported:
        for q in (50, 90, 99):
            error = np.percentile(reported[name], q) / np.percentile(true[name], q) - 1
            assert abs(error) < 0.01, f"{name} p{q} is off by {error:.2%}"


def test_one_json_document_on_standard_output(oss_eval: Command) -> None:
    done = oss_eval(
        "perf", "--url", SIM, "--parallel", "2", "--number", "6", "--reasoning-effort", "low", "high",
        "--max-tokens", "1200", "--json", "--name", "nightly", "--label", "gpu=none", "--out", "elsewhere",
    )  # fmt: skip
    document = json.loads(done.stdout)
    assert document["simulated"] is True
    assert document["path"].startswith("elsewhere/")
    assert "perf-nightly-" in document["run_id"]
    assert [p["reasoning_effort"] for p in document["points"]] == ["low", "high"]
    for point in document["points"]:
        assert {"mean", "p50", "p90", "p95", "p99", "n", "unit"} <= point["metrics"]["ttft_ms"].keys()
        assert point["metrics"]["ttft_ms"]["n"] == 6
    low, high = (p["metrics"]["ttfa_ms"]["mean"] for p in document["points"])
    assert low * 3 < high
    assert "Performance by concurrency" in done.stderr
    again = json.loads(oss_eval("show", "last", "--out", "elsewhere", "--json").stdout)
    assert again == document


ARTICLE = (
    "--parallel 1 10 50 100 --number 5 20 100 200 --model gpt-oss-20b --api openai --dataset random "
    "--max-tokens 1024 --min-tokens 1024 --prefix-length 0 --min-prompt-length 1024 --max-prompt-length 1024 "
    "--log-every-n-query 20 --tokenizer-path openai-mirror/gpt-oss-20b"
)


def test_the_evalscope_article(oss_eval: Command, fast_simulator: str, tmp_path: Path) -> None:
    words = [*ARTICLE.split(), "--extra-args", '{"ignore_eos": true}', "--url", f"{fast_simulator}/completions"]
    hubs = {"HF_ENDPOINT": "http://127.0.0.1:9", "MODELSCOPE_DOMAIN": "127.0.0.1:9"}
    done = oss_eval("perf", *words, "--json", timeout=100, **hubs)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["simulated"] is True, "a simulator behind a URL is still one"
    assert [(p["parallel"], p["number"]) for p in document["points"]] == [(1, 5), (10, 20), (50, 100), (100, 200)]
    for point in document["points"]:
        assert point["metrics"]["prompt_tokens"]["mean"] == 1024
        assert point["metrics"]["completion_tokens"]["mean"] == 1024
        assert point["metrics"]["success_rate"]["value"] == 1
    assert "point 4/4 parallel 100: 180/200 done" in done.stderr
    assert "can't be reached" in done.stderr
    assert read_manifest(only_run(tmp_path))["endpoint"]["api"] == "completions"


@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
def test_the_azure_article(oss_eval: Command, fast_simulator: str, stream: str) -> None:
    done = oss_eval(
        "perf", "--url", fast_simulator, "--parallel", "256", "--number", "2000", "--max-tokens", "256", stream,
        "--prompt", "Explain quantum mechanics in one paragraph.", "--json",
    )  # fmt: skip
    [point] = json.loads(done.stdout)["points"]
    metrics = point["metrics"]
    assert metrics["requests"]["value"] == 2000
    assert metrics["rps"]["value"] > 0
    assert metrics["output_tps"]["value"] == pytest.approx(256 * metrics["rps"]["value"])
    assert metrics["latency_ms"]["p50"] <= metrics["latency_ms"]["p90"] <= metrics["latency_ms"]["p99"]
    assert ("ttft_ms" in metrics) == (stream == "--stream")
    assert ("TTFT and TPOT need streaming" in done.stderr) == (stream == "--no-stream")


def test_nobody_answers_so_the_simulator_does_and_says_so(tmp_path: Path) -> None:
    code = (
        "import sys; from oss_eval.endpoint import discovery; from oss_eval.cli.main import main\n"
        "discovery.LOCAL_PORTS = {'vLLM': 9}\n"
        "sys.exit(main(['perf', '--parallel', '2', '--max-tokens', '8']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith("no server answers on the usual local ports: SIMULATED by sim://gpt-oss-20b-h20")
    assert lines[1].startswith("number 10 (4 a slot")
    assert "SIMULATED" in done.stdout


def test_the_key_is_sent_and_never_stored(oss_eval: Command, tmp_path: Path) -> None:
    with ScriptedServer(answering(GOOD)) as server:
        done = oss_eval(
            "perf", "--url", server.url, "--parallel", "2", "--number", "4", OPENAI_API_KEY="sk-hidden"
        )
        assert done.returncode == 0, done.stderr
        assert all(b"Authorization: Bearer sk-hidden\r\n" in request for request in server.requests)
    stored = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert b"sk-hidden" not in stored + done.stdout.encode() + done.stderr.encode()


def test_what_is_sent(oss_eval: Command) -> None:
    with ScriptedServer(answering(GOOD)) as server:
        oss_eval(
            "perf", "--url", server.url, "--parallel", "1", "--number", "3", "--prompt", "Hi", "--warmup", "2",
            "--reasoning-effort", "high", "--temperature", "0", "--extra-args", '{"top_k": 5}',
        )  # fmt: skip
        posts = [r for r in server.requests if r.startswith(b"POST")]
    assert len(posts) >= 1 + 2 + 3, "a probe, the warm-up, those measured, and some that keep the load up"
    head, _, body = posts[5].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert b"X-Client-Request-Id: " in head
    sent = orjson.loads(body)
    assert sent["messages"] == [{"role": "user", "content": "Hi"}]
    assert (sent["model"], sent["reasoning_effort"], sent["temperature"], sent["top_k"]) == ("m", "high", 0, 5)
    assert sent["stream_options"] == {"include_usage": True}  # the server does not count chunks


def test_a_failed_request_is_a_row(oss_eval: Command, tmp_path: Path) -> None:
    def script(number: int, request: bytes) -> list[object]:
        if number < 2:
            return [MODELS if number == 0 else GOOD]  # listing models, then the probe
        if number % 8 == 0:
            return [SSE_HEAD + chunk(delta("Hi")), CLOSE]
        if number % 4 == 1:
            return [json_reply(b'{"error":{"message":"overloaded"}}', "503 Service Unavailable")]
        return [GOOD]

    with ScriptedServer(script) as server:
        done = oss_eval(
            "perf", "--url", server.url, "--parallel", "4", "--number", "40", "--prompt", "Hi", "--json"
        )
    assert done.returncode == 0, done.stderr
    [point] = json.loads(done.stdout)["points"]
    frame = pd.read_parquet(only_run(tmp_path) / "requests")
    frame = frame[~frame.warmup]
    assert len(frame) == 40
    failed = frame[frame.status != "ok"]
    assert set(failed.error_kind) == {"http_5xx", "stream_broken"}
    assert point["metrics"]["failures"]["value"] == len(failed) == 15
    assert point["metrics"]["success_rate"]["value"] == 25 / 40
    assert point["metrics"]["latency_ms"]["n"] == 25
    assert point["failures"]["http_5xx"] == {"count": 10, "example": "overloaded"}
    assert "15 of 40 requests failed" in done.stderr


def test_when_every_request_fails_the_exit_code_says_so(oss_eval: Command, tmp_path: Path) -> None:
    def script(number: int, request: bytes) -> list[bytes]:
        return (
            [MODELS]
            if number == 0
            else [GOOD]
            if number == 1
            else [json_reply(b"{}", "500 Internal Server Error")]
        )

    with ScriptedServer(script) as server:
        done = oss_eval("perf", "--url", server.url, "--parallel", "2", "--number", "4", "--prompt", "Hi")
    assert done.returncode == 1
    assert "every request failed" in done.stderr
    assert "0.0%" in done.stdout
    assert "4 × http_5xx" in done.stdout
    assert len(read_requests(only_run(tmp_path))) == 5


def test_a_server_that_closes_idle_connections_costs_no_request(oss_eval: Command, tmp_path: Path) -> None:
    """The response ends, and the connection with it a moment later, without `Connection: close`."""
    with ScriptedServer(answering(GOOD, 0.002, CLOSE)) as server:
        done = oss_eval("perf", "--url", server.url, "--parallel", "3", "--number", "60", "--prompt", "Hi")
    assert done.returncode == 0, done.stderr
    rows = read_requests(only_run(tmp_path))
    assert set(rows["status"].to_pylist()) == {"ok"}
    assert 2 in rows["attempt"].to_pylist()
    assert read_manifest(only_run(tmp_path))["client"]["00-c3"]["connections"] > 50
    assert "Instrument, c3: the server close" in done.stdout


def test_timeouts_are_rows_and_end_the_run(oss_eval: Command, tmp_path: Path) -> None:
    def script(number: int, request: bytes) -> list[object]:
        return [MODELS] if number == 0 else [GOOD] if number != 3 else [SSE_HEAD + chunk(delta("Hi")), 20.0]

    with ScriptedServer(script) as server:
        begun = time.monotonic()
        done = oss_eval("perf", "--url", server.url, "--parallel", "2", "--number", "6", "--prompt", "Hi",
                        "--read-timeout", "1")  # fmt: skip
    assert time.monotonic() - begun < 18, "the server says nothing for 20 s"
    assert done.returncode == 0, done.stderr
    rows = [r for r in read_requests(only_run(tmp_path)).to_pylist() if r["status"] == "timeout"]
    assert [r["error_kind"] for r in rows] == ["timeout_idle"]
    assert rows[0]["n_events"] == 1
    assert rows[0]["end_ns"] - rows[0]["last_token_ns"] > 0.9e9, "it ended when it was given up"


def test_the_simulator_and_the_workers_end_with_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "oss_eval", "perf", "--url", SIM, "--parallel", "4", "--number", "100000"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.DEVNULL) as process:
        found = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        if not found.exists():
            process.kill()
            pytest.skip("this system does not list child processes")
        until(lambda: begun(tmp_path))
        children = [Path("/proc") / pid for pid in found.read_text().split()]
        assert len(children) == 2
        process.kill()
        process.wait()
    deadline = time.monotonic() + 10
    while any(child.exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [child for child in children if child.exists()]


# -- mistakes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "cause", "next_step"),
    [
        (["swep"], "unknown task 'swep'", "did you mean sweep?"),
        (["./nowhere.yaml"], "there is no task file", "oss-eval tasks"),
        (["--url", "sim://gpt-oss"], "unknown simulator profile 'gpt-oss'", "gpt-oss-20b-h20"),
        (["--parallel", "1", "2", "--number", "1", "2", "3"], "2 values and --number has 3", "--help"),
        (["--parallel", "0"], "--parallel 0", "--help"),
        (["--number", "-5"], "--number -5", "--help"),
        (["--parallel", "many"], "invalid int value: 'many'", "--help"),
        (["--paralel", "1"], "does not know --paralel", "did you mean --parallel?"),
        (["--prompt", "@/no/such/file"], "can't read the prompt file /no/such/file", "--prompt TEXT"),
        (["--extra-args", "{nope"], "--extra-args '{nope': not valid JSON", "--help"),
        (["--url", "http://127.0.0.1:9"], "can't reach http://127.0.0.1:9/v1", "--url"),
        (["--url", "http://127.0.0.1:9", "--model", "m"], "can't reach http://127.0.0.1:9/v1", "--url"),
        (["--url", "http://no-such-host.invalid"], "can't reach http://no-such-host.invalid/v1", "--url"),
        (["--url", "ftp://x"], "'ftp://x' is no usable address", "http://127.0.0.1:8000/v1"),
        (["--url", SIM, "--out", "/proc/nowhere"], "can't write results to /proc/nowhere", "--out"),
        (["--url", SIM, "--label", "x"], "--label 'x' is not KEY=VALUE", "--label gpu=H100"),
        (["--url", SIM, "--model", "other"], "does not know this address or model", "--model"),
    ],
)
def test_mistakes_are_explained(
    oss_eval: Command, tmp_path: Path, words: list[str], cause: str, next_step: str
) -> None:
    begun = time.monotonic()
    done = oss_eval("perf", *words)
    assert time.monotonic() - begun < 30
    assert done.returncode == 2
    assert cause in done.stderr
    assert next_step in done.stderr.splitlines()[-1]
    assert done.stdout == ""
    assert not list(tmp_path.rglob("*")), "a mistake leaves nothing behind"


@pytest.mark.parametrize("given_model", [[], ["--model", "m"]])
@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        (
            json_reply(b'{"error":{"message":"Invalid key"}}', "401 Unauthorized"),
            "refused access (HTTP 401): Invalid key",
        ),
        (json_reply(b'{"error":{"message":"No such"}}', "404 Not Found"), "(HTTP 404): No such"),
        (json_reply(b"<html><h1>It works!</h1></html>"), "no OpenAI-compatible server"),
        (b"220 smtp.example.org ESMTP\r\n", "no OpenAI-compatible server"),
    ],
)
def test_servers_that_refuse_or_are_something_else(
    oss_eval: Command, reply: bytes, cause: str, given_model: list[str]
) -> None:
    with ScriptedServer(lambda number, request: [reply, CLOSE]) as server:
        done = oss_eval("perf", "--url", server.url, *given_model)
    assert (done.returncode, done.stdout) == (2, "")
    assert cause in done.stderr
    assert done.stderr.splitlines()[-1].startswith("  → ")


def test_a_server_that_accepts_and_says_nothing(oss_eval: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        begun = time.monotonic()
        done = oss_eval("perf", "--url", f"http://127.0.0.1:{listener.getsockname()[1]}")
    assert time.monotonic() - begun < 30
    assert done.returncode == 2
    assert "no answer in time" in done.stderr


def test_a_table_does_not_wait_for_large_libraries() -> None:
    """They took more than half of the time of `oss-eval show`."""
    stored = next((ROOT / "results/examples").glob("*-perf-*"))
    code = (
        "import sys; from oss_eval.cli.main import main; main(['show', sys.argv[1]])\n"
        "print([name for name in sys.modules if name in ('scipy.stats', 'pyarrow.dataset', 'evalscope')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(stored)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_passing_failure_of_the_first_request_ends_nothing(oss_eval: Command, tmp_path: Path) -> None:
    asked: list[bytes] = []

    def script(number: int, request: bytes) -> list[bytes]:
        if request.startswith(b"GET"):
            return [MODELS]
        asked.append(request)
        if len(asked) < 3:
            return [json_reply(b'{"error":{"message":"overloaded"}}', "503 Service Unavailable")]
        return [GOOD]

    words = ("--parallel", "1", "--number", "2", "--prompt", "x")
    with ScriptedServer(script) as server:
        done = oss_eval("perf", "--url", server.url, *words)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("the first request failed (http_5xx); it is sent again") == 2
    [run] = (tmp_path / "results").iterdir()
    rows = read_requests(run).to_pylist()
    assert [(row["request_id"], row["status"]) for row in rows] == [
        ("probe/0", "error"), ("probe~2/0", "error"), ("probe~3/0", "ok"), ("00-c1/0", "ok"), ("00-c1/1", "ok"),
    ]  # fmt: skip
    asked.clear()
    with ScriptedServer(answering(json_reply(b"{}", "503 Service Unavailable"))) as server:
        done = oss_eval("perf", "--url", server.url, "--model", "m", *words)
    assert done.returncode == 2
    assert "HTTP 503" in done.stderr


def test_help_and_lists(oss_eval: Command) -> None:
    assert "load sweep" in oss_eval("--help").stdout
    assert "--reasoning-effort" in oss_eval("perf", "--help").stdout
    lines = oss_eval("tasks").stdout.splitlines()
    kinds = dict(line.split()[:2] for line in lines)
    assert {name for name, kind in kinds.items() if kind == "perf"} == {"effort", "gpt_oss_1k", "stress", "sweep"}
    assert {"aime24", "aime25", "demo", "gpqa_diamond", "gsm8k", "ifeval", "math_500", "template"} == {
        name for name, kind in kinds.items() if kind == "bench"
    }
    assert oss_eval("show", "last").returncode == 2


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_published_sweep_at_full_speed(tmp_path: Path, oss_eval: Command) -> None:
    """Two and a half minutes: the article's table from the running server, not from the model alone."""
    with running("sim://gpt-oss-20b-h20") as url:
        words = [*ARTICLE.split(), "--extra-args", '{"ignore_eos": true}', "--url", f"{url}/completions", "--json"]
        hubs = {"HF_ENDPOINT": "http://127.0.0.1:9", "MODELSCOPE_DOMAIN": "127.0.0.1:9"}
        document = json.loads(oss_eval("perf", *words, timeout=400, **hubs).stdout)
    published = {1: (0.15, 6.811, 150.34, 0.094), 10: (0.96, 10.374, 986.63, 0.865),
                 50: (2.47, 20.222, 2529.14, 2.051), 100: (3.37, 29.570, 3455.61, 2.354)}  # fmt: skip
    for point in document["points"]:
        rps, latency, rate, ttft = published[point["parallel"]]
        metrics = point["metrics"]
        assert metrics["rps"]["value"] == pytest.approx(rps, rel=0.15)
        assert metrics["latency_ms"]["mean"] / 1000 == pytest.approx(latency, rel=0.15)
        assert metrics["output_tps"]["value"] == pytest.approx(rate, rel=0.15)
        assert metrics["tpot_ms"]["mean"] == pytest.approx((latency - ttft) / 1.023, rel=0.15)
        assert metrics["ttft_ms"]["mean"] / 1000 == pytest.approx(ttft, rel=0.40)


# -- accidents ----------------------------------------------------------------------------------------------------


def test_a_server_that_gives_up_late_is_a_failure_and_not_asked_again(oss_eval: Command, tmp_path: Path) -> None:
    """A reused connection closed without an answer after 1.2 s: the request had reached the server."""

    def script(number: int, request: bytes) -> list[object]:
        return [1.2, CLOSE] if b"/00-c1/1\r\n" in request else answering(GOOD)(number, request)

    with ScriptedServer(script) as server:
        done = oss_eval("perf", "--url", server.url, "--parallel", "1", "--number", "3", "--prompt", "Hi")
        assert sum(b"/00-c1/1\r\n" in request for request in server.requests) == 1
    assert done.returncode == 0, done.stderr
    [failed] = [r for r in read_requests(only_run(tmp_path), "00-c1").to_pylist() if r["status"] != "ok"]
    assert (failed["error_kind"], failed["attempt"]) == ("stream_broken", 1)


def test_brackets_in_names_and_prompts_are_shown_as_they_are(oss_eval: Command) -> None:
    with ScriptedServer(answering(GOOD)) as server:
        done = oss_eval("perf", "--url", server.url, "--parallel", "1", "--number", "2", "--prompt", "[INST] hi [/INST]",
                        "--model", "[/m]", "--reasoning-effort", "[/e]")  # fmt: skip
    assert done.returncode == 0, done.stderr
    for words in ("[INST] hi [/INST]", "Load sweep of [/m]", "[/e]"):
        assert words in done.stdout


def test_a_proxy_in_the_environment_is_not_in_the_way(oss_eval: Command) -> None:
    with ScriptedServer(answering(GOOD)) as server:
        done = oss_eval("perf", "--url", server.url, "--parallel", "1", "--number", "2", "--prompt", "Hi",
                        http_proxy="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9")  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_files_of_the_user_do_not_get_into_the_workers(oss_eval: Command, tmp_path: Path) -> None:
    for name in ("queue.py", "random.py", "socket.py"):
        (tmp_path / name).write_text("raise SystemExit('not mine')\n")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "oss_eval", "perf", "--url", SIM, "--parallel", "1", "--number", "2"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_run_that_has_not_begun_to_measure_says_so(oss_eval: Command, tmp_path: Path) -> None:
    from oss_eval.results.writer import RunWriter

    RunWriter(tmp_path / "results", "r1", {"kind": "perf"})
    done = oss_eval("show", "r1")
    assert done.returncode == 2
    assert "has not begun to measure" in done.stderr


@pytest.mark.parametrize("pipe", ["2>&1 | head -1", "| head -1", "--json | head -c 1", "2>&1 --json | true"])
def test_a_reader_that_leaves_early_does_not_spoil_the_run(tmp_path: Path, pipe: str) -> None:
    line = f"set -o pipefail; {sys.executable} -m oss_eval perf --url sim://instant --parallel 2 --number 8 {pipe}"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert read_manifest(only_run(tmp_path))["status"] == "finished"


def test_a_cold_start_is_named(oss_eval: Command) -> None:
    posts = itertools.count()  # 0: the preflight

    def script(number: int, request: bytes) -> list[object]:
        return [MODELS] if request.startswith(b"GET") else [1.2 if next(posts) in (1, 2) else 0.01, GOOD]

    with ScriptedServer(script) as server:
        done = oss_eval("perf", "--url", server.url, "--parallel", "2", "--number", "8", "--prompt", "Hi")
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "Instrument, c2: the first 2 requests took 1.2" in text
    assert "a cold server or the start's burst is in the figures" in text
    assert "clean" not in text


def test_a_ttft_that_is_an_upper_bound_is_marked(oss_eval: Command, tmp_path: Path) -> None:
    """The server answers late, and then sends two tokens at once."""
    two = chunk(delta("Hi")) + chunk(delta("!"))
    late = answering(SSE_HEAD, 0.1, two, 0.02, chunk(STOP + usage(5, 2) + DONE) + LAST_CHUNK)
    with ScriptedServer(late) as server:
        done = oss_eval("perf", "--url", server.url, "--parallel", "1", "--number", "4", "--prompt", "Hi")
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "≤0.1" in text
    assert "≤ an upper bound: first tokens were read together with later ones" in text
    assert "Instrument, c1: the TTFT p99 lies between" in text
    rows = read_requests(only_run(tmp_path)).to_pylist()
    assert all(row["start_ns"] < row["first_token_low_ns"] < row["first_token_ns"] for row in rows)


def test_the_price_of_output_tokens(oss_eval: Command, tmp_path: Path) -> None:
    words = ("perf", "--parallel", "2", "--number", "6", "--prompt", "Hi", "--json")
    done = oss_eval(*words, "--url", "sim://instant", "--gpu-price", "3.6/h", COLUMNS="140")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["points"][0]["metrics"]
    # 3.6 an hour is 0.001 a second.
    assert figures["price_per_mtok"]["value"] == pytest.approx(1000 / figures["output_tps"]["value"])
    shown = oss_eval("show", "last", COLUMNS="140").stdout
    assert "Price of" in shown
    assert "Lowest price" not in shown  # of one point
    refused = oss_eval(*words, "--url", "sim://instant", "--gpu-price", "cheap")
    assert refused.returncode == 2
    assert "--gpu-price 'cheap': a price an hour is needed, for example 2.5/h" in refused.stderr
    with running("sim://instant") as url:
        (tmp_path / "endpoints.yaml").write_text(f"box:\n  url: {url}\n  gpu_price: 7.2/h\n")
        named = oss_eval(*words, "--endpoint", "box")
        assert named.returncode == 0, named.stderr
        figures = json.loads(named.stdout)["points"][0]["metrics"]
        assert figures["price_per_mtok"]["value"] == pytest.approx(2000 / figures["output_tps"]["value"])
        graded = oss_eval("bench", "demo", "--endpoint", "box", "--limit", "2", "--repeats", "1")
    assert graded.returncode == 0, graded.stderr
    assert oss_eval("fsck", "last").returncode == 0
