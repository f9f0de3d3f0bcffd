"""The simulator: its model against the published sweep, and its server as a client sees it."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from oss_eval.simulator.process import running
from oss_eval.simulator.truth_log import read_truth


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
