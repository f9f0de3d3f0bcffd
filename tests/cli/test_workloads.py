"""Workloads on the wire: mixes of efforts, requests that the client cancels, token ids, an emptied prefix cache."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import orjson
import pandas as pd
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.conftest import Command
from tests.helpers.commands import only_run
from tests.helpers.scripted_server import GOOD, MODELS, ScriptedServer, answering, json_reply

pytestmark = pytest.mark.alone


def sent(server: ScriptedServer, path: bytes = b"/v1/") -> list[dict[str, object]]:
    some = [r for r in server.requests if r.startswith(b"POST " + path)]
    return [orjson.loads(r.partition(b"\r\n\r\n")[2]) for r in some]


def test_a_mix_of_efforts(oss_eval: Command, tmp_path: Path) -> None:
    with ScriptedServer(answering(GOOD)) as server:
        done = oss_eval(
            "perf", "--url", server.url, "--parallel", "4", "--number", "200", "--mix", "low:0.7,high:0.3", "--prompt",
            "Hi", "--json", "--seed", "1",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        asked = Counter(body.get("reasoning_effort") for body in sent(server)[1:])
    rows = pd.read_parquet(only_run(tmp_path) / "requests").query("not warmup")
    assert Counter(rows.reasoning_effort) == asked
    assert asked["low"] + asked["high"] == 200
    assert 120 < asked["low"] < 160
    [point] = json.loads(done.stdout)["points"]
    assert [(one["reasoning_effort"], one["n"]) for one in point["mix"]] == sorted(asked.items())
    assert "Parts of the mix" in done.stderr


def test_a_mix_of_task_files(oss_eval: Command, tmp_path: Path) -> None:
    """Each part has its own prompts, lengths and effort; what is typed holds for all."""
    (tmp_path / "chat.yaml").write_text("kind: perf\nprompt: Hi\nmax_tokens: 5\nreasoning_effort: low\n")
    (tmp_path / "report.yaml").write_text(
        "kind: perf\nmin_prompt_length: 40\nmax_prompt_length: 40\nmax_tokens: 9\ntemperature: 0.5\n"
    )
    with ScriptedServer(answering(GOOD)) as server:
        done = oss_eval(
            "perf", "--url", server.url, "--parallel", "4", "--number", "100", "--mix", "chat.yaml:3,report.yaml:1",
            "--json", "--seed", "1", "--top-p", "0.9",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        bodies = sent(server)[-100:]
    chats = [body for body in bodies if body["max_tokens"] == 5]
    reports = [body for body in bodies if body["max_tokens"] == 9]
    assert len(chats) + len(reports) == 100
    assert 60 < len(chats) < 90
    assert {body["messages"][0]["content"] for body in chats} == {"Hi"}
    assert {body.get("reasoning_effort") for body in chats} == {"low"}
    assert {(body.get("reasoning_effort"), body["temperature"]) for body in reports} == {(None, 0.5)}
    assert len({body["messages"][0]["content"] for body in reports}) == len(reports)
    assert {body["top_p"] for body in bodies} == {0.9}
    rows = pd.read_parquet(only_run(tmp_path) / "requests").query("not warmup")
    assert Counter(rows.sample_id) == {"chat.yaml": len(chats), "report.yaml": len(reports)}
    [point] = json.loads(done.stdout)["points"]
    assert [(one["sample_id"], one["n"]) for one in point["mix"]] == [
        ("chat.yaml", len(chats)), ("report.yaml", len(reports)),
    ]  # fmt: skip
    refused = oss_eval("perf", "--url", "sim://instant", "--mix", "nowhere.yaml:1")
    assert refused.returncode == 2
    assert "there is no task file 'nowhere.yaml'" in refused.stderr


def test_requests_that_the_client_cancels(oss_eval: Command, tmp_path: Path) -> None:
    done = oss_eval(
        "perf", "--url", "sim://paced?rate=50&ttft=20", "--parallel", "10", "--number", "60", "--cancel", "0.5:0.1s",
        "--max-tokens", "20", "--prompt", "Hi", "--json", "--seed", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = pd.read_parquet(only_run(tmp_path) / "requests").query("not warmup")
    gone = rows[rows.error_kind == "abandoned"]
    assert 20 <= len(gone) <= 40
    assert set(gone.status) == {"cancelled"}
    assert ((gone.end_ns - gone.start_ns) / 1e9).between(0.09, 0.2).all()
    assert (gone.n_events > 0).all(), "what had come is kept"
    metrics = json.loads(done.stdout)["points"][0]["metrics"]
    assert metrics["abandoned"]["value"] == len(gone)
    assert metrics["success_rate"]["value"] == 1.0, "neither successes nor failures"
    assert metrics["latency_ms"]["n"] == 60 - len(gone)
    again = oss_eval("resume", "last")
    assert "nothing is missing" in again.stderr
    assert oss_eval("fsck", "last").returncode == 0


def test_token_ids(oss_eval: Command, tmp_path: Path) -> None:
    from oss_eval.load.prompts.prompts import VOCABULARY

    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate([*VOCABULARY, "?"])}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    done = oss_eval(
        "perf", "--url", "sim://instant", "--api", "completions", "--parallel", "2", "--number", "10", "--token-ids",
        "--tokenizer-path", "tokenizer.json", "--prompt-length", "50-60", "--max-tokens", "4", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = pd.read_parquet(only_run(tmp_path) / "requests").query("not warmup")
    assert rows.prompt_tokens.between(50, 60).all()
    with ScriptedServer(answering(json_reply(b'{"error": "no"}', "400 Bad Request"))) as server:
        oss_eval(
            "perf", "--url", server.url + "/completions", "--parallel", "1", "--number", "1", "--token-ids",
            "--tokenizer-path", "tokenizer.json", "--prompt", "time and water", "--model", "m",
        )  # fmt: skip
    refused = oss_eval("perf", "--url", "sim://instant", "--token-ids")
    assert refused.returncode == 2
    assert "--token-ids needs --tokenizer-path" in refused.stderr


def test_the_prefix_cache_is_emptied_before_every_point(oss_eval: Command) -> None:
    def script(number: int, request: bytes) -> list[object]:
        if request.startswith(b"GET"):
            return [MODELS]
        if request.startswith(b"POST /reset_prefix_cache"):
            return [json_reply(b"{}")]
        return [GOOD]

    with ScriptedServer(script) as server:
        done = oss_eval(
            "perf", "--url", server.url, "--parallel", "1", "2", "--number", "4", "--prompt", "Hi", "--reset-cache"
        )
        assert done.returncode == 0, done.stderr
        assert len(sent(server, b"/reset_prefix_cache")) == 2
    with ScriptedServer(lambda n, r: [MODELS if r.startswith(b"GET") else GOOD if b"/v1/" in r[:20] else
                                      json_reply(b"{}", "404 Not Found")]) as server:  # fmt: skip
        done = oss_eval(
            "perf", "--url", server.url, "--parallel", "1", "--number", "4", "--prompt", "Hi", "--reset-cache"
        )
    assert done.returncode == 1
    assert "does not empty its prefix cache (/reset_prefix_cache 404, /flush_cache 404)" in done.stderr
