"""Conversations: history of the model's own answers, one slot a conversation, turns planned for the end of the last one."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import orjson
import pandas as pd
import pytest

from tests.conftest import Command
from tests.helpers.commands import only_run
from tests.helpers.scripted_server import MODELS, ScriptedServer, json_reply, saying

pytestmark = pytest.mark.alone


def posts(server: ScriptedServer) -> list[dict[str, object]]:
    bodies = [r.partition(b"\r\n\r\n")[2] for r in server.requests if r.startswith(b"POST")]
    return [orjson.loads(body) for body in bodies][1:]  # without the first request, which is a probe


def script(number: int, request: bytes) -> list[object]:
    return [MODELS] if request.startswith(b"GET") else [saying(f"answer {number}", reasoning="hm")]


def test_history_grows_with_the_models_own_answers(oss_eval: Command, tmp_path: Path) -> None:
    (tmp_path / "talks.json").write_text(
        json.dumps(
            [
                {
                    "id": "x",
                    "conversations": [
                        {"from": "human", "value": "one"}, {"from": "gpt", "value": "not this"},
                        {"from": "human", "value": "two"}, {"from": "gpt", "value": "nor this"},
                        {"from": "human", "value": "three"},
                    ],
                }
            ]
        )
    )  # fmt: skip
    with ScriptedServer(script) as server:
        done = oss_eval(
            "perf", "--url", server.url, "--parallel", "1", "--number", "2", "--turns", "3", "--data", "talks.json",
            "--json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        sent = [body["messages"] for body in posts(server)]
    assert [len(messages) for messages in sent] == [1, 3, 5, 1, 3, 5]
    assert [message["role"] for message in sent[2]] == ["user", "assistant", "user", "assistant", "user"]
    assert [message["content"] for message in sent[2]][::2] == ["one", "two", "three"]
    said = [message["content"] for message in sent[2]][1::2]
    assert all(text.startswith("answer ") for text in said), "the model's own answers, without its reasoning"
    rows = pd.read_parquet(only_run(tmp_path) / "requests", dtype_backend="pyarrow").query("not warmup")
    assert rows.sort_values("start_ns")[["conversation", "turn"]].values.tolist() == [
        [0, 1], [0, 2], [0, 3], [1, 1], [1, 2], [1, 3],
    ]  # fmt: skip
    [point] = json.loads(done.stdout)["points"]
    assert [(turn["turn"], turn["n"]) for turn in point["turns"]] == [(1, 2), (2, 2), (3, 2)]
    assert "Turns" in done.stderr


def test_turns_are_planned_for_the_end_of_the_last_answer_and_the_time_to_think(
    oss_eval: Command, tmp_path: Path
) -> None:
    done = oss_eval(
        "perf", "--url", "sim://paced?rate=400&ttft=20", "--parallel", "20", "--duration", "4s", "--turns", "2-6",
        "--think-time", "0.05-0.1", "--max-tokens", "8", "--min-prompt-length", "20", "--max-prompt-length", "40",
        "--json", "--seed", "3",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = pd.read_parquet(only_run(tmp_path) / "requests", dtype_backend="pyarrow").query("not warmup")
    assert len(rows) > 300
    later = rows[rows.turn > 1]
    assert (later.start_ns >= later.scheduled_ns).all(), "none starts before its time"
    assert ((later.start_ns - later.scheduled_ns) / 1e6).quantile(0.9) < 5
    ordered = rows.sort_values(["conversation", "turn"])
    for _, talk in ordered.groupby("conversation"):
        pauses = (talk.scheduled_ns - talk.end_ns.shift()).dropna() / 1e9
        assert pauses.between(0.049, 0.11).all()
        assert talk.prompt_tokens.is_monotonic_increasing, "the context grows"
    assert rows.turn.max() == 6


def test_conversations_of_two_points_do_not_mix(oss_eval: Command, tmp_path: Path) -> None:
    """Slots of the first point are in the middle of theirs while the second point begins."""
    with ScriptedServer(script) as server:
        done = oss_eval(
            "perf", "--url", server.url, "--parallel", "2", "4", "--turns", "6", "--duration", "1s", "--warmup", "0.3s",
            "--think-time", "0.05", "--min-prompt-length", "5", "--max-prompt-length", "5", "--json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        sent = [body["messages"] for body in posts(server)]
    for messages in sent:
        said = [message["content"] for message in messages if message["role"] == "assistant"]
        assert len(said) == len(set(said)), "no answer is there twice"
    by_first: dict[str, list[list[str]]] = {}
    for messages in sent:
        by_first.setdefault(messages[0]["content"], []).append([message["content"] for message in messages])
    for talk in by_first.values():
        for shorter, longer in pairwise(talk):
            assert longer[: len(shorter)] == shorter, "each turn has all the history of its own conversation"
    assert oss_eval("fsck", "last").returncode == 0


def test_a_failed_turn_ends_its_conversation(oss_eval: Command, tmp_path: Path) -> None:
    def failing(number: int, request: bytes) -> list[object]:
        if request.startswith(b"GET"):
            return [MODELS]
        messages = orjson.loads(request.partition(b"\r\n\r\n")[2])["messages"]
        broken = len(messages) == 3
        return [json_reply(b'{"error": {"message": "no"}}', "500 Oh")] if broken else [saying("yes")]

    with ScriptedServer(failing) as server:
        done = oss_eval(
            "perf", "--url", server.url, "--parallel", "2", "--number", "4", "--turns", "3", "--min-prompt-length", "5",
            "--max-prompt-length", "5", "--json",
        )  # fmt: skip
    [point] = json.loads(done.stdout)["points"]
    assert point["metrics"]["requests"]["value"] == 8, "four first turns, four failed second ones"
    assert point["failures"]["http_5xx"]["count"] == 4


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("p.jsonl", '{"prompt": "one"}\n{"question": "two"}\n"three"\n', ["one", "two", "three"]),
        ("p.csv", "id,text\n1,one\n2,two\n", ["one", "two", "one"]),
        ("p.txt", "one\n\ntwo\n", ["one", "two", "one"]),
        (
            "p.json",
            '[{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "one"}]}]',
            None,
        ),
    ],
)
def test_prompts_from_a_file(
    oss_eval: Command, tmp_path: Path, name: str, text: str, expected: list[str] | None
) -> None:
    (tmp_path / name).write_text(text)
    with ScriptedServer(script) as server:
        done = oss_eval("perf", "--url", server.url, "--parallel", "1", "--number", "3", "--data", name)
        assert done.returncode == 0, done.stderr
        sent = [body["messages"] for body in posts(server)]
    if expected is None:
        assert sent[0] == [{"role": "system", "content": "s"}, {"role": "user", "content": "one"}]
    else:
        assert [messages[0]["content"] for messages in sent] == expected


def test_a_whole_body_wins_over_the_flags(oss_eval: Command, tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "one"}], "temperature": 0.5, "top_k": 3}
    (tmp_path / "p.jsonl").write_text(json.dumps(row))
    with ScriptedServer(script) as server:
        oss_eval(
            "perf",
            "--url",
            server.url,
            "--parallel",
            "1",
            "--number",
            "2",
            "--data",
            "p.jsonl",
            "--temperature",
            "1",
        )
        sent = posts(server)
    assert {(body["temperature"], body["top_k"]) for body in sent} == {(0.5, 3)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--turns", "5-2"], "the lower end of the range comes first"),
        (["--turns", "x"], "a number or a range is needed"),
        (["--turns", "3", "--rate", "2"], "--turns needs --parallel"),
        (["--turns", "3", "--warmup", "auto"], "--turns takes a time as --warmup"),
        (["--turns", "3", "--prompt", "Hi"], "--turns and --prompt exclude each other"),
        (["--data", "nowhere.jsonl"], "can't read --data nowhere.jsonl"),
        (["--data", "bad.jsonl"], "row 2: there is no prompt in it"),
        (["--data", "broken.jsonl"], "line 1 is not JSON"),
        (["--data", "bad.jsonl", "--prompt", "Hi"], "exclude each other"),
    ],
)
def test_what_makes_no_sense(oss_eval: Command, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "bad.jsonl").write_text('{"prompt": "one"}\n{"number": 3}\n')
    (tmp_path / "broken.jsonl").write_text("{")
    done = oss_eval("perf", "--url", "sim://instant", *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
