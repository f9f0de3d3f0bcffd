"""The simulator: its model against the published sweep, and its server as a client sees it."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from oss_eval.errors import UsageError
from oss_eval.simulator.engine import Engine, Sequence, engine_for
from oss_eval.simulator.process import SimulatorUrl, parse_sim_url, running
from oss_eval.simulator.profiles import PROFILES, get_profile
from oss_eval.simulator.truth_log import read_truth
from tests.conftest import ROOT

PROFILE = get_profile("gpt-oss-20b-h20")


def fit_module() -> Any:
    spec = importlib.util.spec_from_file_location("fit_profile", ROOT / "scripts" / "fit_profile.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("level", [(1, 5), (10, 20), (50, 100), (100, 200)])
def test_the_published_sweep_is_reproduced(level: tuple[int, int]) -> None:
    fit = fit_module()
    limits = {"TTFT s": 0.40}
    for name, got, published in zip(fit.NAMES, fit.figures(PROFILE, *level), fit.PUBLISHED[level], strict=True):
        assert got == pytest.approx(published, rel=limits.get(name, 0.15)), name


def test_a_full_batch_queues() -> None:
    engine = Engine(PROFILE)
    for _ in range(PROFILE.max_sequences + 5):
        engine.submit(Sequence(1, 2))
    engine.plan()
    assert len(engine.waiting) == 5


def test_a_long_prompt_is_prefilled_in_chunks() -> None:
    engine = Engine(PROFILE)
    engine.submit(Sequence(3 * PROFILE.batch_tokens, 1))
    steps = 0
    while engine.plan() is not None:
        engine.commit()
        steps += 1
    assert steps == 3


def test_a_dropped_sequence_gets_no_token() -> None:
    engine = Engine(PROFILE)
    stays, leaves = Sequence(1, 5), Sequence(1, 5)
    engine.submit(stays)
    engine.submit(leaves)
    engine.plan()
    engine.drop(leaves)
    assert engine.commit() == [stays]


def post(url: str, payload: Any) -> Any:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=10) as response:
        return response.read()


CHAT = {"model": "gpt-oss-20b", "messages": [{"role": "user", "content": "one two three"}]}


def test_a_whole_chat_reply(fast_simulator: str) -> None:
    reply = json.loads(post(fast_simulator + "/chat/completions", {**CHAT, "max_completion_tokens": 300}))
    message, usage = reply["choices"][0]["message"], reply["usage"]
    assert usage["prompt_tokens"] == 3 + 68
    assert usage["completion_tokens"] == 300
    thought = usage["completion_tokens_details"]["reasoning_tokens"]
    assert len(message["reasoning_content"].split()) == thought
    assert len(message["content"].split()) == 300 - thought
    assert reply["choices"][0]["finish_reason"] == "length"


def test_effort_lengthens_the_reasoning(fast_simulator: str) -> None:
    found = [
        json.loads(post(fast_simulator + "/chat/completions", {**CHAT, "reasoning_effort": effort}))["usage"]
        for effort in ("low", "medium", "high")
    ]
    thought = [usage["completion_tokens_details"]["reasoning_tokens"] for usage in found]
    assert thought[0] * 2 < thought[1] < thought[2] / 2


def test_a_stream(fast_simulator: str) -> None:
    options = {"stream": True, "max_tokens": 20, "ignore_eos": True, "stream_options": {"include_usage": True}}
    lines = post(fast_simulator + "/completions", {"prompt": "a b", **options}).decode().split("\n\n")
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    assert "".join(e["choices"][0]["text"] for e in events if e["choices"]).split()[:1]
    assert events[-1]["usage"] == {"prompt_tokens": 2, "completion_tokens": 20, "total_tokens": 22}
    assert lines[-2] == "data: [DONE]"


@pytest.mark.parametrize(
    ("path", "payload", "status"),
    [
        ("/chat/completions", b"{", 400),
        ("/chat/completions", {"model": "gpt-oss-20b"}, 400),
        ("/chat/completions", {**CHAT, "model": "other"}, 404),
        ("/chat/completions", {**CHAT, "max_tokens": 0}, 400),
        ("/nothing", {}, 404),
    ],
)
def test_refusals(fast_simulator: str, path: str, payload: Any, status: int) -> None:
    with pytest.raises(urllib.error.HTTPError) as refusal:
        post(fast_simulator + path, payload)
    assert refusal.value.code == status
    assert json.loads(refusal.value.read())["error"]["message"]


def test_the_truth_log(tmp_path: Path) -> None:
    log = tmp_path / "truth.jsonl"
    with running("sim://gpt-oss-20b-h20?speed=40", log) as url:
        request = urllib.request.Request(
            url + "/chat/completions",
            data=json.dumps({**CHAT, "max_tokens": 5, "stream": True}).encode(),
            headers={"X-Request-Id": "abc"},
        )
        before = time.time_ns()
        with urllib.request.urlopen(request, timeout=10) as response:
            response.read()
        after = time.time_ns()
    truth = read_truth(log)["abc"]
    assert truth.status == "ok"
    assert before < truth.received_ns < truth.token_ns[0] < truth.token_ns[-1] < after
    assert len(truth.token_ns) == 5


def test_a_client_that_leaves_frees_its_place(tmp_path: Path) -> None:
    import socket
    from urllib.parse import urlsplit

    log = tmp_path / "truth.jsonl"
    with running("sim://gpt-oss-20b-h20", log) as url:
        place = urlsplit(url)
        body = json.dumps({**CHAT, "stream": True}).encode()
        with socket.create_connection((place.hostname, place.port)) as sock:
            head = b"POST /v1/chat/completions HTTP/1.1\r\nX-Request-Id: left\r\nContent-Length: %d\r\n\r\n"
            sock.sendall(head % len(body) + body)
            sock.recv(1)
        time.sleep(0.3)
    assert read_truth(log)["left"].status == "left"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_server_command_ends_when_told(number: int) -> None:
    command = [sys.executable, "-m", "oss_eval", "simulate", "--port", "0", "--profile", "instant"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert "simulating instant" in process.stderr.readline()
        assert "http://127.0.0.1:" in process.stderr.readline()
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


def test_sim_urls() -> None:
    assert parse_sim_url("sim://gpt-oss-20b-h20?speed=20") == SimulatorUrl(PROFILE, 20.0)
    paced = parse_sim_url("sim://paced?rate=20&ttft=300").profile
    assert (paced.token_rate, paced.ttft_ms) == (20.0, 300.0)
    assert parse_sim_url("sim://instant") == SimulatorUrl(PROFILES["instant"])
    for url, words in (
        ("sim://gpt-oss-20b-h2O", "unknown simulator profile"),
        ("sim://instant?speed=0", "no positive number"),
        ("sim://instant?speed=nan", "no positive number"),
        ("sim://instant?color=red", "no setting 'color'"),
        ("sim://instant?rate=5", "no setting 'rate'"),
    ):
        with pytest.raises(UsageError, match=words):
            parse_sim_url(url)


def test_paced_streams_keep_their_own_time() -> None:
    profile = parse_sim_url("sim://paced?rate=50&ttft=100").profile
    engine = engine_for(profile)
    first, second = Sequence(1, 3), Sequence(1, 3)
    engine.submit(first)
    times: dict[Sequence, list[int]] = {first: [], second: []}
    for tick in range(1, 200):
        if engine.plan() is None:
            break
        for sequence in engine.commit():
            times[sequence].append(tick)
        if tick == 7:
            engine.submit(second)
    assert times == {first: [100, 120, 140], second: [107, 127, 147]}
