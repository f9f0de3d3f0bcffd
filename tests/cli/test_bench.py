"""Benchmarks from the command line against real servers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from oss_eval.bench.concurrency import ConcurrencyLimit
from oss_eval.bench.scoring.scorer_process import ScorerError, ScorerProcess
from oss_eval.results.manifest import read_manifest
from oss_eval.results.reader import read_samples
from oss_eval.results.schema import SAMPLES
from oss_eval.simulator.answers import solve_chance
from oss_eval.simulator.formats.base import prompt_text
from oss_eval.simulator.process import running
from oss_eval.simulator.profiles import PROFILES
from oss_eval.simulator.truth_log import read_truth
from tests.helpers.bench_helpers import add, question_of, right
from tests.helpers.commands import ROOT, Command
from tests.helpers.scripted_server import (
    CLOSE,
    LAST_CHUNK,
    RESET,
    SSE_HEAD,
    STOP,
    ScriptedServer,
    body_of,
    chunk,
    delta,
    json_reply,
    saying,
    talking,
)

DATA = ROOT.parent / "shared" / "data"


needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="the public benchmark data is not beside this repository"
)


SIM = "sim://gpt-oss-20b-h20?speed=40"


def run_of(out: Path) -> Path:
    [found] = [path for path in out.iterdir() if (path / "manifest.json").is_file()]
    return found


def rows(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_samples(run_of(out)).to_pylist()
    return found


def test_the_demonstration(oss_eval: Command, tmp_path: Path) -> None:
    done = oss_eval("bench", "demo", "--url", SIM, "--reasoning-effort", "low", "medium", "high", "--grid")
    assert done.returncode == 0, done.stderr
    assert "SIMULATED" in done.stdout
    for word in ("avg@4", "pass@k", "maj@k", "95% interval", "Reas.", "TTFT", "Wall", "problem x epoch"):
        assert word in done.stdout
    run = run_of(tmp_path / "results")
    table = pd.read_parquet(run / "samples")
    assert list(table.columns) == SAMPLES.names
    assert len(table) == 34 * 4 * 3
    assert table.score.isin([0.0, 1.0]).all()
    assert (table.second_score == table.score).all()
    assert (table.status == "ok").all()
    assert table[["ttft_ms", "latency_ms", "completion_tokens", "reasoning_tokens"]].notna().all().all()
    requests = pd.read_parquet(run / "requests")
    assert len(requests) == len(table)
    assert set(requests.clock_source) <= {"kernel", "user"}
    summary = pd.read_parquet(run / "summary.parquet")
    assert set(summary.kind) == {"bench"}
    # The simulator answers as it states: the chance of every problem at every effort is known.
    profile = PROFILES["gpt-oss-20b-h20"]
    for effort, found in table.groupby("reasoning_effort", observed=True):
        chances = [solve_chance(profile, prompt_text(json.loads(p)), str(effort)) for p in found.prompt]
        spread = np.sqrt(sum(c * (1 - c) for c in chances)) / len(chances)
        assert abs(found.score.mean() - np.mean(chances)) < 4.5 * spread
        tokens = found.reasoning_tokens.median()
        assert 0.5 < tokens / profile.reasoning_tokens[str(effort)] < 2


def test_times_are_the_true_ones(oss_eval: Command, tmp_path: Path) -> None:
    done = oss_eval("bench", "demo", "--url", SIM, "--repeats", "1", "--parallel", "8")
    assert done.returncode == 0, done.stderr
    run = run_of(tmp_path / "results")
    truth = read_truth(run / "truth.jsonl")
    errors = []
    for row in rows(tmp_path / "results"):
        true = truth[f"{row['run_id']}/{row['request_id']}"]
        errors.append(abs(row["latency_ms"] - (true.token_ns[-1] - true.received_ns) / 1e6))
    assert np.median(errors) < 1.0


def test_the_table_fits_80_columns(oss_eval: Command) -> None:
    done = oss_eval(
        "bench", "demo", "--url", SIM, "--repeats", "2", "--reasoning-effort", "low", "high", COLUMNS="80"
    )
    assert done.returncode == 0, done.stderr
    assert max(len(line.rstrip()) for line in done.stdout.splitlines()) <= 80


@needs_data
def test_aime_2025(oss_eval: Command, tmp_path: Path) -> None:
    done = oss_eval(
        "bench", "aime25", "--url", SIM, "--data", str(DATA / "aime25"), "--repeats", "2", COLUMNS="80"
    )
    assert done.returncode == 0, done.stderr
    for subset in ("AIME2025-I ", "AIME2025-II ", "OVERALL"):
        assert subset in done.stdout
    assert max(len(line.rstrip()) for line in done.stdout.splitlines()) <= 80
    found = rows(tmp_path / "results")
    assert Counter(row["subset"] for row in found) == {"AIME2025-I": 30, "AIME2025-II": 30}
    first = next(row for row in found if row["sample_id"] == "1")
    assert first["target"] == "70"
    assert "Put your answer inside \\boxed{}" in json.loads(first["prompt"])[0]["content"]
    task = read_manifest(run_of(tmp_path / "results"))["tasks"]["aime25"]
    assert len(task["samples_hash"]) == 64
    assert task["source"]["hub"] == "local"


@needs_data
def test_openai_prompt_and_a_data_file(oss_eval: Command, tmp_path: Path) -> None:
    given = sorted(path.name for path in (DATA / "aime25").iterdir())
    done = oss_eval("bench", "aime25", "--url", SIM, "--data", str(DATA / "aime25" / "test.jsonl"), "--prompt",
                    "openai", "--repeats", "1", "--limit", "3")  # fmt: skip
    assert done.returncode == 0, done.stderr
    first = next(row for row in rows(tmp_path / "results") if row["sample_id"] == "1")
    prompt = json.loads(first["prompt"])[0]["content"]
    assert prompt.startswith("\nFind the sum")
    assert prompt.endswith("final answer within \\boxed{}.\n")
    assert sorted(path.name for path in (DATA / "aime25").iterdir()) == given  # data is only read


@needs_data
def test_scores_agree_with_evalscopes_own(oss_eval: Command, tmp_path: Path) -> None:
    """The same answers (a seed makes the simulator repeat itself) through EvalScope's run_task."""
    done = oss_eval("bench", "gsm8k", "--url", SIM, "--data", str(DATA), "--limit", "40", "--seed", "7",
                    "--temperature", "0")  # fmt: skip
    assert done.returncode == 0, done.stderr
    ours = {row["sample_id"]: row["score"] for row in rows(tmp_path / "results")}
    assert 0 < sum(ours.values()) < 40
    local = tmp_path / "gsm8k"
    local.mkdir()
    (local / "test.jsonl").symlink_to(DATA / "gsm8k" / "test.jsonl")
    (local / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: test\n    path: test.jsonl\n---\n"
    )
    key = run_of(tmp_path / "results") / "answers.jsonl"
    with running(SIM, answers=key) as url:
        settings = {"model": "gpt-oss-20b", "api_url": url, "eval_type": "openai_api", "datasets": ["gsm8k"],
                    "dataset_args": {"gsm8k": {"local_path": str(local), "few_shot_num": 0}}, "limit": 40,
                    "eval_batch_size": 8, "work_dir": str(tmp_path / "theirs"), "no_timestamp": True,
                    "generation_config": {"temperature": 0, "seed": 7, "stream": True}}  # fmt: skip
        code = f"from evalscope import run_task, TaskConfig\nrun_task(TaskConfig(**{settings!r}))"
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=100, cwd=tmp_path)
    [review] = (tmp_path / "theirs" / "reviews").rglob("*.jsonl")
    lines = [json.loads(line) for line in review.read_text().splitlines()]
    theirs = {str(line["index"] + 1): float(line["sample_score"]["score"]["value"]["accuracy"]) for line in lines}
    assert theirs == ours


def test_multiple_choice(oss_eval: Command, tmp_path: Path) -> None:
    lines = [
        {"id": str(n), "question": f"Which letter is number {n}?", "answerKey": "ABCD"[n % 4],
         "choices": {"text": ["first", "second", "third", "fourth"], "label": ["A", "B", "C", "D"]}}
        for n in range(12)
    ]  # fmt: skip
    for subset in ("ARC-Easy", "ARC-Challenge"):
        (tmp_path / "arc" / subset).mkdir(parents=True)
        (tmp_path / "arc" / subset / "test.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with ScriptedServer(talking(lambda body: saying("ANSWER: B"))) as server:
        done = oss_eval(
            "bench", "arc", "--url", server.url, "--data", "arc", "--dataset-args", '{"few_shot_num": 0}'
        )
        assert done.returncode == 0, done.stderr
        assert "A) first" in question_of(body_of(server.requests[-1]))
    found = rows(tmp_path / "results")
    assert Counter(row["subset"] for row in found) == {"ARC-Easy": 12, "ARC-Challenge": 12}
    assert all((row["score"] == 1.0) == (row["target"] == "B") for row in found)
    assert {row["route"] for row in found} == {"evalscope"}


def test_a_conversation_graded_by_a_model(oss_eval: Command, tmp_path: Path) -> None:
    lines = [
        {"prompt_id": n, "category": "writing", "prompt": [f"Write line {n}.", "Now shorten it."], "reference": []}
        for n in range(6)
    ]
    (tmp_path / "mt").mkdir()
    (tmp_path / "mt" / "train.jsonl").write_text("\n".join(map(json.dumps, lines)))
    verdict = json.dumps({"explanation": "fine", "score": 7})
    judged = {"id": "1", "object": "chat.completion", "created": 1, "model": "judge", "choices": [
        {"index": 0, "message": {"role": "assistant", "content": verdict}, "finish_reason": "stop"}]}  # fmt: skip
    refused = oss_eval("bench", "mt_bench", "--url", "http://127.0.0.1:9", "--data", "mt")
    assert refused.returncode == 2
    with (
        ScriptedServer(talking(lambda body: saying(f"turn {len(body['messages'])}"))) as server,
        ScriptedServer(talking(lambda body: json_reply(json.dumps(judged).encode()))) as judge,
    ):
        without = oss_eval("bench", "mt_bench", "--url", server.url, "--data", "mt")
        assert "--judge-model" in without.stderr
        done = oss_eval("bench", "mt_bench", "--url", server.url, "--data", "mt", "--judge-model", "judge",
                        "--judge-url", judge.url, timeout=100)  # fmt: skip
        assert done.returncode == 0, done.stderr
    found = rows(tmp_path / "results")
    assert len(found) == 6
    for row in found:
        assert (row["score"], row["turns"], row["response"], row["correct"]) == (7.0, 2, "turn 3", None)
        assert [m["role"] for m in json.loads(row["prompt"])] == ["user", "assistant", "user"]
        assert json.loads(row["metrics"])["first_turn_judge_score"] == 7.0
        assert row["completion_tokens"] == 40  # both turns'


def test_what_is_missing_is_said(oss_eval: Command) -> None:
    begun = time.monotonic()
    offline = oss_eval("bench", "aime25", "--url", SIM, HF_ENDPOINT="http://127.0.0.1:9",
                       MODELSCOPE_ENDPOINT="http://127.0.0.1:9", MODELSCOPE_CACHE="nowhere")  # fmt: skip
    assert time.monotonic() - begun < 30
    assert offline.returncode == 2
    for word in ("ModelScope", "Hugging Face", "--data"):
        assert word in offline.stderr
    assert "did you mean mmlu_pro" in oss_eval("bench", "mmlu_prx", "--url", SIM).stderr
    assert "sandbox" in oss_eval("bench", "humaneval", "--url", SIM).stderr
    assert "oss-eval perf stress" in oss_eval("bench", "stress").stderr
    assert "oss-eval bench aime25" in oss_eval("perf", "aime25").stderr
    assert "which benchmark?" in oss_eval("bench").stderr
    listed = oss_eval("tasks", "--all").stdout
    assert "mmlu_pro" in listed
    assert len(listed.splitlines()) > 250


def test_a_benchmark_of_ones_own(oss_eval: Command, tmp_path: Path, sums: Path) -> None:
    wrong_over_15 = talking(
        lambda b: right(b) if add(b) <= 30 else saying("\\boxed{1}", reasoning=f"\\boxed{{{add(b)}}}")
    )
    with ScriptedServer(wrong_over_15) as server:
        done = oss_eval("bench", str(sums), "--url", server.url, "--temperature", "0.5", "--json")
        assert done.returncode == 0, done.stderr
        body = body_of(server.requests[-1])
    assert body["messages"][0]["content"].endswith("Box it: \\boxed{}.")
    assert body["temperature"] == 0.5
    [group] = json.loads(done.stdout)["groups"]
    assert group["score"]["value"] == 0.75  # the right answer in the reasoning is no answer
    found = rows(tmp_path / "results")
    assert len(found) == 20
    assert sum(row["score"] for row in found) == 15
    assert found[-1]["reasoning"] is None or "boxed" in found[-1]["reasoning"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_choices_in_a_table(oss_eval: Command, tmp_path: Path, suffix: str) -> None:
    table = pd.DataFrame({"q": ["Capital of France?", "Capital of Peru?"], "right": ["B", "A"]})
    if suffix == "csv":
        table.to_csv(tmp_path / "q.csv", index=False)
        prompt, target = "{q} A) Lima B) Paris", "right"
    else:
        table["options"] = [["Lima", "Paris"]] * 2
        table["right"] = ["Paris", "Lima"]
        table.to_parquet(tmp_path / "q.parquet")
        prompt, target = "{q}\\n{choices}", "right"
    choices = "choices: options\n" if suffix == "parquet" else ""
    (tmp_path / "mine.yaml").write_text(
        f'kind: bench\ndataset: q.{suffix}\nprompt: "{prompt}"\ntarget: {target}\n{choices}scorer: choice\n'
    )
    with ScriptedServer(talking(lambda body: saying("The answer is B."))) as server:
        done = oss_eval("bench", "./mine.yaml", "--url", server.url)
        assert done.returncode == 0, done.stderr
        assert "B) Paris" in question_of(body_of(server.requests[-1]))
    assert {row["sample_id"]: row["score"] for row in rows(tmp_path / "results")} == {"1": 1.0, "2": 0.0}


def test_a_judge_for_ones_own_questions(oss_eval: Command, tmp_path: Path, sums: Path) -> None:
    def judge(body: dict[str, Any]) -> bytes:
        text = question_of(body)
        verdict = "VERDICT: CORRECT" if "Answer to grade:\nyes" in text else "VERDICT: INCORRECT"
        if "What is 3 + 3?" in text:
            verdict = "I can't say"
        message = {"role": "assistant", "content": f"Well. {verdict}"}
        whole = {"id": "1", "object": "chat.completion", "created": 1, "model": "j",
                 "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}  # fmt: skip
        return json_reply(json.dumps(whole).encode())

    with (
        ScriptedServer(talking(lambda b: saying("yes" if add(b) % 4 else "no"))) as server,
        ScriptedServer(talking(judge)) as judging,
    ):
        done = oss_eval("bench", str(sums), "--url", server.url, "--scorer", "judge", "--judge-model", "j",
                        "--judge-url", judging.url, OSS_EVAL_JUDGE_KEY="judge-secret-1")  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert b"Bearer judge-secret-1" in judging.requests[-1]
        assert b"judge-secret-1" not in b"".join(server.requests)
    found = {int(row["sample_id"]): row for row in rows(tmp_path / "results")}
    assert found[1]["score"] == 1.0
    assert found[2]["score"] == 0.0
    assert found[3]["score"] is None
    assert "no verdict" in found[3]["unscored_reason"]
    assert "1 could not be graded" in done.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset: none.jsonl\nprompt: '{question}'\nscorer: integer", "there is no dataset file 'none.jsonl'"),
        ("dataset: sums.jsonl\nprompt: '{quest}'\nscorer: integer", "names no column"),
        ("dataset: sums.jsonl\nprompt: '{question} {answer}'\nscorer: integer", "would tell the answer"),
        ("dataset: sums.jsonl\nprompt: '{question}'\ntarget: reply\nscorer: integer", "has no 'reply'"),
        ("dataset: sums.jsonl\nprompt: '{question}'\nscorer: choice", "is none of the options"),
        ("dataset: sums.jsonl\nprompt: '{question}'", "`scorer` is missing"),
        ("dataset: sums.jsonl\nscorer: integer", "`prompt` is missing"),
        ("dataset: sums.jsonl\nprompt: '{question}'\nscorer: integr", "'integr'"),
        ("dataset: sums.jsonl\nprompt: '{question}'\nscorer: judge", "--judge-model"),
        ("benchmark: aime25\ndataset: sums.jsonl", "either `benchmark`"),
        ("benchmark: aime25\nrepeat: 3", "did you mean 'repeats'"),
    ],
)
def test_mistakes_in_a_task_file(oss_eval: Command, sums: Path, text: str, message: str) -> None:
    mine = sums.with_name("mine.yaml")
    mine.write_text("kind: bench\n" + text)
    done = oss_eval("bench", str(mine), "--url", SIM)
    assert done.returncode == 2
    assert message in done.stderr


def test_retries_wait_as_long_as_the_server_says(oss_eval: Command, tmp_path: Path, sums: Path) -> None:
    asked: Counter[str] = Counter()
    lock = threading.Lock()

    def answer(body: dict[str, Any]) -> Any:
        with lock:
            asked[question_of(body)] += 1
            times = asked[question_of(body)]
        number = add(body) // 2
        if times == 1 and number == 1:
            return json_reply(b'{"error":"slow down"}', "429 Too Many Requests", b"Retry-After: 2\r\n")
        if times == 1 and number == 2:
            return json_reply(b'{"error":"boom"}', "500 Internal Server Error")
        if times == 1 and number == 3:
            return [SSE_HEAD + chunk(delta("half an ans")), RESET]
        if number == 4:
            return json_reply(b'{"error":{"message":"no such setting"}}', "400 Bad Request")
        return right(body)

    with ScriptedServer(talking(answer)) as server:
        done = oss_eval("bench", str(sums), "--url", server.url, "--max-failures", "10")
    assert done.returncode == 0, done.stderr
    found = {int(row["sample_id"]): row for row in rows(tmp_path / "results")}
    assert [found[n]["attempts"] for n in (1, 2, 3, 4, 5)] == [2, 2, 2, 1, 1]
    assert found[1]["waited_ms"] >= 2000
    assert found[1]["latency_ms"] < 1000  # the last attempt's own
    assert found[5]["waited_ms"] == 0
    assert [found[n]["score"] for n in (1, 2, 3, 4)] == [1.0, 1.0, 1.0, None]
    assert (found[4]["status"], found[4]["http_status"]) == ("error", 400)
    assert "no such setting" in found[4]["error_message"]
    requests = pd.read_parquet(run_of(tmp_path / "results") / "requests")
    assert len(requests) == 23
    assert sorted(requests.attempt[requests.status != "ok"]) == [1, 1, 1, 1]
    assert "of 20 samples 1 failed" in done.stdout
    assert "0.9500" in done.stdout  # with the failed one as wrong


def test_too_many_failures_are_a_failed_run(oss_eval: Command, tmp_path: Path, sums: Path) -> None:
    def answer(body: dict[str, Any]) -> bytes:
        return right(body) if add(body) > 8 else json_reply(b'{"error":"no"}', "422 Unprocessable Content")

    with ScriptedServer(talking(answer)) as server:
        done = oss_eval("bench", str(sums), "--url", server.url)
    assert done.returncode == 1
    assert "20.0% of the samples failed, more than --max-failures 5%" in done.stdout
    assert "too many samples failed\n  → finished work is stored; resume with: oss-eval resume " in done.stderr
    assert read_manifest(run_of(tmp_path / "results"))["status"] == "failed"


def test_a_refused_key_ends_the_run_at_once(oss_eval: Command, tmp_path: Path, sums: Path) -> None:
    with ScriptedServer(talking(lambda body: json_reply(b'{"error":"bad key"}', "401 Unauthorized"))) as server:
        done = oss_eval("bench", str(sums), "--url", server.url, "--model", "m", OPENAI_API_KEY="sk-wrong")
    assert done.returncode == 2
    assert "refused access (HTTP 401): bad key" in done.stderr
    assert len(server.requests) < 20, "those in flight were sent, the others are not"
    assert not (tmp_path / "results").exists()


def test_a_server_that_goes_away_ends_the_run(oss_eval: Command, tmp_path: Path, sums: Path) -> None:
    server = ScriptedServer(talking(right))
    seen = 0

    def answer(body: dict[str, Any]) -> Any:
        nonlocal seen
        seen += 1
        if seen == 5:
            threading.Thread(target=server.close).start()
        return [0.05, right(body)]

    server._script = talking(answer)
    done = oss_eval("bench", str(sums), "--url", server.url, "--repeats", "4", "--retries", "0")
    assert done.returncode == 1
    assert "can't be reached any more" in done.stderr
    assert 1 <= sum(row["status"] == "ok" for row in rows(tmp_path / "results")) < 20


def test_a_key_is_written_nowhere(oss_eval: Command, tmp_path: Path, sums: Path) -> None:
    def answer(body: dict[str, Any]) -> bytes:
        return (
            right(body)
            if add(body) > 4
            else json_reply(b'{"error":"key sk-hidden-77 is out of credit"}', "400 Bad")
        )

    with ScriptedServer(talking(answer)) as server:
        done = oss_eval(
            "bench", str(sums), "--url", server.url, "--max-failures", "50", OPENAI_API_KEY="sk-hidden-77"
        )
        assert b"Bearer sk-hidden-77" in server.requests[-1]
    assert done.returncode == 0, done.stderr
    everything = b"".join(path.read_bytes() for path in (tmp_path / "results").rglob("*") if path.is_file())
    assert b"sk-hidden-77" not in everything + done.stdout.encode() + done.stderr.encode()


def test_marks(oss_eval: Command, tmp_path: Path, sums: Path) -> None:
    def answer(body: dict[str, Any]) -> bytes:
        number = add(body)
        if number == 2:
            return saying("It seems to be 2", finish="length")
        if number == 4:
            return saying("<think>\\boxed{4}</think>I can't tell.")
        if number == 6:
            return saying("", reasoning="\\boxed{6}", finish="length")
        if number == 8:
            return saying("\\boxed{08.}")
        return right(body)

    with ScriptedServer(talking(answer)) as server:
        done = oss_eval("bench", str(sums), "--url", server.url, "--grid")
    assert done.returncode == 0, done.stderr
    found = {int(row["sample_id"]): row for row in rows(tmp_path / "results")}
    assert [(found[n]["score"], found[n]["truncated"], found[n]["leaked"]) for n in (1, 2, 3, 4)] == [
        (0.0, True, False), (0.0, False, True), (0.0, True, False), (1.0, False, False),
    ]  # fmt: skip
    assert found[4]["second_score"] == 0.0  # math-verify does not read 08.
    assert "10.0% of the answers were cut" in done.stdout
    assert "reasoning had leaked" in done.stdout
    assert "judged 1 of 18 answers otherwise" in done.stdout
    assert "✂" in done.stdout


def test_a_cut_answer_is_not_read_by_evalscope_either(oss_eval: Command, tmp_path: Path) -> None:
    (tmp_path / "g").mkdir()
    lines = [{"question": f"What is {n} + {n}?", "answer": f"so\n#### {2 * n}"} for n in range(1, 7)]
    (tmp_path / "g" / "test.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "mine.yaml").write_text("kind: bench\nbenchmark: gsm8k\ndataset_args: {few_shot_num: 0}\n")

    def answer(body: dict[str, Any]) -> bytes:
        number = 2 * int(question_of(body).split()[2])
        texts = {2: "and so it is 2", 4: "\\boxed{4} but let me check wheth", 6: "\\boxed{6"}
        return saying(texts.get(number, f"\\boxed{{{number}}}"), finish="length" if number in texts else "stop")

    with ScriptedServer(talking(answer)) as server:
        done = oss_eval("bench", "./mine.yaml", "--url", server.url, "--data", "g")
    assert done.returncode == 0, done.stderr
    found = {int(row["sample_id"]): row for row in rows(tmp_path / "results")}
    assert [found[n]["score"] for n in range(1, 7)] == [0.0, 1.0, 0.0, 1.0, 1.0, 1.0]
    assert [found[n]["route"] for n in range(1, 4)] == ["truncated", "evalscope", "cut box"]


def test_what_has_no_answers_of_its_own_has_no_majority(oss_eval: Command, sums: Path) -> None:
    turn: Counter[str] = Counter()

    def answer(body: dict[str, Any]) -> bytes:
        turn[question_of(body)] += 1
        return saying(str(add(body)) if turn[question_of(body)] == 1 else "no idea")

    with ScriptedServer(talking(answer)) as server:
        done = oss_eval(
            "bench", str(sums), "--url", server.url, "--scorer", "contains", "--repeats", "4", "--json"
        )
    [group] = json.loads(done.stdout)["groups"]
    assert group["majority"] is None
    assert group["pass_at"]["4"]["value"] == 1.0


def test_counts_that_cannot_be(oss_eval: Command, tmp_path: Path, sums: Path) -> None:
    with ScriptedServer(
        talking(lambda body: saying(f"\\boxed{{{add(body)}}}", tokens=(10, 9_999_999_999)))
    ) as server:
        done = oss_eval("bench", str(sums), "--url", server.url)
    assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "results")[0]["score"] == 1.0


def test_unscored_is_not_wrong(oss_eval: Command, tmp_path: Path, sums: Path) -> None:
    rows = [json.loads(line) for line in (tmp_path / "sums.jsonl").read_text().splitlines()]
    rows[0]["answer"] = ""  # nothing can be the same as nothing
    (tmp_path / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with ScriptedServer(talking(right)) as server:
        done = oss_eval("bench", str(sums), "--url", server.url, "--scorer", "exact", "--json")
    [group] = json.loads(done.stdout)["groups"]
    assert (group["score"]["value"], group["of_all"]["value"], group["unscored"]) == (1.0, 0.95, 1)


def test_targets_and_patterns_are_checked_before_anything_is_asked(
    oss_eval: Command, tmp_path: Path, sums: Path
) -> None:
    text = (tmp_path / "sums.jsonl").read_text().replace('"answer": 2}', '"answer": 2.5}')
    (tmp_path / "sums.jsonl").write_text(text)
    with ScriptedServer(talking(right)) as server:
        integer = oss_eval("bench", str(sums), "--url", server.url)
        pattern = oss_eval("bench", str(sums), "--url", server.url, "--scorer", "regex", "--pattern", "([")
        twice = oss_eval("bench", str(sums), "--url", server.url, "--reasoning-effort", "low", "low")
        assert not [request for request in server.requests if request.startswith(b"POST")]
    assert "the target '2.5' is no integer" in integer.stderr
    assert "is no regular expression" in pattern.stderr
    assert "names an effort twice" in twice.stderr


def test_efforts_do_not_share_the_server(oss_eval: Command, tmp_path: Path, sums: Path) -> None:
    with ScriptedServer(talking(lambda body: [0.02, right(body)])) as server:
        done = oss_eval("bench", str(sums), "--url", server.url, "--reasoning-effort", "low", "high")
    assert done.returncode == 0, done.stderr
    spans = pd.read_parquet(run_of(tmp_path / "results") / "samples").groupby("reasoning_effort", observed=True)
    low, high = spans.get_group("low"), spans.get_group("high")
    assert low.end_ns.max() <= high.start_ns.min()


def test_another_model_is_not_mixed_in(oss_eval: Command, tmp_path: Path, sums: Path) -> None:
    with ScriptedServer(talking(right)) as server:
        assert oss_eval("bench", str(sums), "--url", server.url).returncode == 0
    other = json_reply(b'{"data":[{"id":"another"}]}')
    with ScriptedServer(
        lambda number, request: [other] if request.startswith(b"GET") else [right(body_of(request))]
    ) as server:
        done = oss_eval("bench", "--resume", "last", "--repeats", "2", "--url", server.url)
        assert not [request for request in server.requests if request.startswith(b"POST")]
    assert done.returncode == 2
    assert "are from 'm', and the server has 'another'" in done.stderr
    assert read_manifest(run_of(tmp_path / "results"))["status"] == "finished"


def test_keys_in_other_peoples_words(oss_eval: Command, tmp_path: Path, sums: Path) -> None:
    def judge(body: dict[str, Any]) -> bytes:
        return json_reply(b'{"error":{"message":"bad key judge-key-55"}}', "401 Unauthorized")

    with ScriptedServer(talking(right)) as server, ScriptedServer(talking(judge)) as judging:
        address = judging.url.replace("http://", "http://user:hunter2@")
        done = oss_eval("bench", str(sums), "--url", server.url, "--scorer", "judge", "--judge-model", "j", "--judge-url",
                        address, "--retries", "0", "--extra-args", '{"api_key": "sk-extra-9"}',
                        OSS_EVAL_JUDGE_KEY="judge-key-55")  # fmt: skip
    assert done.returncode == 1  # nothing could be graded
    everything = b"".join(path.read_bytes() for path in (tmp_path / "results").rglob("*") if path.is_file())
    for secret in (b"judge-key-55", b"hunter2", b"sk-extra-9"):
        assert secret not in everything + done.stdout.encode() + done.stderr.encode(), secret
    refused = oss_eval("bench", "--resume", "last")
    assert "without its secret part" in refused.stderr


def test_a_slow_sample_idles_nobody(oss_eval: Command, sums: Path) -> None:
    lock, now, most = threading.Lock(), 0, 0
    levels = []

    def answer(body: dict[str, Any]) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            levels.append(now)
        time.sleep(3.0 if add(body) == 2 else 0.05)
        with lock:
            now -= 1
        return right(body)

    with ScriptedServer(talking(answer)) as server:
        begun = time.monotonic()
        done = oss_eval(
            "bench", str(sums), "--url", server.url, "--repeats", "8", "--parallel", "8", "--limit", "20"
        )
        took = time.monotonic() - begun
    assert done.returncode == 0, done.stderr
    assert most == 8
    # 8 slow answers of 3 s, all of them begun early: beside them 152 quick ones must not wait in line behind them.
    assert np.mean(levels) > 6
    assert took < 20


def test_those_who_wait_make_room(oss_eval: Command, sums: Path) -> None:
    """More samples are told to wait than there are spare threads; the others are asked meanwhile."""
    seen: Counter[str] = Counter()
    lock = threading.Lock()
    instants: list[float] = []

    def answer(body: dict[str, Any]) -> bytes:
        with lock:
            seen[question_of(body)] += 1
            instants.append(time.monotonic())
            first = seen[question_of(body)] <= 3
        if add(body) <= 30 and first:  # 15 of 20 questions, each three times
            return json_reply(b'{"error":"later"}', "429 Too Many Requests", b"Retry-After: 4\r\n")
        return right(body)

    with ScriptedServer(talking(answer)) as server:
        done = oss_eval("bench", str(sums), "--url", server.url, "--repeats", "6", "--parallel", "4")
    assert done.returncode == 0, done.stderr
    begun = min(instants)
    assert sum(instant - begun < 3 for instant in instants) >= 120


def test_a_worker_that_dies_ends_the_run(oss_eval: Command, tmp_path: Path, sums: Path) -> None:
    with ScriptedServer(
        talking(lambda body: json_reply(b'{"error":"later"}', "429 Too Many", b"Retry-After: 3\r\n"))
    ) as server:
        process = start("bench", str(sums), "--url", server.url, "--limit", "2", cwd=tmp_path)
        deadline = time.monotonic() + 20
        while len(server.requests) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        listed = subprocess.run(
            ["pgrep", "-P", str(process.pid), "-f", "load.worker"], capture_output=True, text=True
        )
        os.kill(int(listed.stdout.split()[0]), signal.SIGKILL)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "worker process ended unexpectedly" in errors.decode()


def test_ctrl_c_waits_no_longer_for_a_judge_than_for_an_answer(tmp_path: Path, sums: Path) -> None:
    with (
        ScriptedServer(talking(right)) as server,
        ScriptedServer(talking(lambda body: [60.0, json_reply(b"{}")])) as judging,
    ):
        process = start("bench", str(sums), "--url", server.url, "--scorer", "judge", "--judge-model", "j", "--judge-url",
                        judging.url, "--grace", "1", cwd=tmp_path)  # fmt: skip
        deadline = time.monotonic() + 20
        while not judging.requests and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    assert process.returncode == 130


def test_the_gate_is_fair_and_never_overfull() -> None:
    gate = ConcurrencyLimit(3)
    order: list[int] = []
    inside, most = 0, 0
    lock = threading.Lock()

    def pass_through(number: int) -> None:
        nonlocal inside, most
        with gate.passing():
            with lock:
                inside += 1
                most = max(most, inside)
                order.append(number)
            time.sleep(0.01)
            with lock:
                inside -= 1

    threads = []
    for number in range(12):
        threads.append(threading.Thread(target=pass_through, args=(number,)))
        threads[-1].start()
        time.sleep(0.002)
    for thread in threads:
        thread.join()
    assert most == 3
    assert order == list(range(12))
    assert gate.inside == 0


@pytest.mark.slow
def test_parallel_auto(oss_eval: Command, tmp_path: Path) -> None:
    done = oss_eval("bench", "demo", "--url", "sim://gpt-oss-20b-h20?speed=8", "--parallel", "auto", "--repeats", "24",
                    "--reasoning-effort", "low")  # fmt: skip
    assert done.returncode == 0, done.stderr
    parallel = read_manifest(run_of(tmp_path / "results"))["parallel"]
    assert parallel["asked"] == "auto"
    assert parallel["most_in_flight"] > 16
    levels = parallel["levels"]
    assert [limit for limit, _ in levels][:2] == [8, 16]
    assert levels[1][1] > levels[0][1]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A simulator that knows the demo's answers, and its truth log."""
    from oss_eval.bench import answer_key
    from oss_eval.bench.run import open_benchmark
    from oss_eval.bench.select import plans

    [plan] = plans(["demo"], {})
    key, truth = tmp_path / "key.jsonl", tmp_path / "truth.jsonl"
    answer_key.write(key, open_benchmark(plan, "m", ScorerProcess(), None, tmp_path).samples())
    with running("sim://gpt-oss-20b-h20?speed=6", truth, key) as url:
        yield url, truth


def start(*words: str, cwd: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "oss_eval", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_samples(out: Path, count: int) -> Path:
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        for manifest in out.glob("*/manifest.json"):
            if read_samples(manifest.parent).num_rows >= count:
                return manifest.parent
        time.sleep(0.05)
    raise AssertionError("no samples")


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["point_id"], row["subset"], row["sample_id"], row["epoch"]


def test_resume_after_kill_9_asks_nothing_twice(
    oss_eval: Command, tmp_path: Path, served: tuple[str, Path]
) -> None:
    url, truth = served
    words = ("bench", "demo", "--url", url, "--repeats", "6", "--parallel", "8", "--reasoning-effort", "low")
    process = start(*words, cwd=tmp_path)
    run = wait_for_samples(tmp_path / "results", 40)
    process.kill()
    process.wait()
    killed = time.time_ns()
    process.stderr.close() if process.stderr else None
    before = read_samples(run)
    kept = {key_of(row): row["request_id"] for row in before.to_pylist()}
    assert 40 <= len(kept) < 34 * 6
    again = oss_eval("bench", "--resume", run.name)
    assert again.returncode == 0, again.stderr
    after = rows(tmp_path / "results")
    assert len(after) == 34 * 6
    assert len({key_of(row) for row in after}) == 34 * 6
    assert {key_of(r): r["request_id"] for r in after if key_of(r) in kept} == kept
    time.sleep(0.7)  # the truth log is written twice a second
    # The server's own account: whatever was stored when the run was killed has been asked exactly once; what was
    # in flight then - at most eight - was asked again.
    log = [json.loads(line) for line in truth.read_text().splitlines()]
    asked = Counter(entry["request_id"] for entry in log)
    stored = {f"{row['run_id']}/{row['request_id']}" for row in before.to_pylist()}
    assert all(asked[name] == 1 for name in stored)
    twice = [entry for entry in log if asked[entry["request_id"]] > 1 and entry["received_ns"] < killed]
    in_flight = [entry for entry in twice if not entry["token_ns"] or entry["status"] != "ok"]
    done_at_that_moment = [entry for entry in twice if entry not in in_flight]
    assert len(in_flight) <= 8
    assert all(killed - entry["token_ns"][-1] < 0.3e9 for entry in done_at_that_moment)
    assert all(count <= 2 for count in asked.values())
    assert read_manifest(run)["status"] == "finished"
    assert len(read_manifest(run)["sessions"]) == 2


def test_ctrl_c_keeps_what_was_finished(oss_eval: Command, tmp_path: Path, served: tuple[str, Path]) -> None:
    process = start("bench", "demo", "--url", served[0], "--repeats", "9", "--parallel", "8", "--grace", "0",
                    cwd=tmp_path)  # fmt: skip
    run = wait_for_samples(tmp_path / "results", 10)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert f"resume with: oss-eval resume {run.name}" in errors.decode()
    assert read_manifest(run)["status"] == "interrupted"
    assert 10 <= read_samples(run).num_rows < 34 * 9
    requests = pd.read_parquet(run / "requests")
    assert "cancelled" in set(requests.status)
    assert oss_eval("show", "last").returncode == 0


def test_a_run_grows(oss_eval: Command, tmp_path: Path, sums: Path) -> None:
    with ScriptedServer(talking(right)) as server:

        def asked() -> int:
            return sum(request.startswith(b"POST") for request in server.requests)

        first = oss_eval("bench", str(sums), "--url", server.url, "--limit", "5", "--repeats", "2",
                         "--reasoning-effort", "low", "--temperature", "1")  # fmt: skip
        assert first.returncode == 0, first.stderr
        assert asked() == 10
        assert oss_eval("bench", "--resume", "last").returncode == 0
        assert asked() == 10  # nothing was missing
        more = oss_eval(
            "bench", "--resume", "last", "--repeats", "3", "--limit", "8", "--reasoning-effort", "high"
        )
        assert more.returncode == 0, more.stderr
        assert asked() == 8 * 3 * 2
        refused = oss_eval("bench", "--resume", "last", "--temperature", "0.2")
        assert refused.returncode == 2
        assert "--temperature was 1.0, now 0.2" in refused.stderr
        assert "--repeats was 3, now 2" in oss_eval("bench", "--resume", "last", "--repeats", "2").stderr
        (tmp_path / "sums.jsonl").write_text(
            (tmp_path / "sums.jsonl").read_text().replace("What is 1 + 1?", "What is 1 plus 1?")
        )
        assert "has changed:" in oss_eval("bench", "--resume", "last").stderr
    found = rows(tmp_path / "results")
    assert Counter((row["point_id"], row["epoch"]) for row in found) == {
        (point, epoch): 8 for point in ("00-sums-low", "01-sums-high") for epoch in (1, 2, 3)
    }


def test_failed_samples_are_asked_again_on_resume(oss_eval: Command, tmp_path: Path, sums: Path) -> None:
    broken = True

    def answer(body: dict[str, Any]) -> bytes:
        return json_reply(b'{"error":"no"}', "400 Bad") if broken and add(body) > 30 else right(body)

    with ScriptedServer(talking(answer)) as server:
        assert oss_eval("bench", str(sums), "--url", server.url).returncode == 1
        broken = False
        before = len(server.requests)
        done = oss_eval("bench", "--resume", "last")
        assert done.returncode == 0, done.stderr
        assert sum(r.startswith(b"POST") for r in server.requests[before:]) == 5
    found = rows(tmp_path / "results")
    assert len(found) == 20
    assert all(row["score"] == 1.0 for row in found)
    assert len(pd.read_parquet(run_of(tmp_path / "results") / "samples")) == 20
    assert len(pd.read_parquet(run_of(tmp_path / "results") / "requests")) == 25


def test_real_and_simulated_answers_are_not_mixed(
    oss_eval: Command, tmp_path: Path, served: tuple[str, Path]
) -> None:
    made = oss_eval("bench", "demo", "--url", SIM, "--limit", "4", "--repeats", "1")
    assert made.returncode == 0, made.stderr
    with ScriptedServer(talking(lambda body: saying("\\boxed{1}"))) as server:
        to_real = oss_eval("bench", "--resume", "last", "--limit", "8", "--url", server.url)
        assert to_real.returncode == 2
        assert "simulated, and a real server would answer now" in to_real.stderr
        assert not [request for request in server.requests if request.startswith(b"POST")]
        real = oss_eval("bench", "demo", "--limit", "4", "--repeats", "1", OPENAI_BASE_URL=server.url)
        assert real.returncode == 0, real.stderr
    gone = oss_eval("bench", "--resume", "last", "--limit", "8")  # found by a variable that is not set any more
    assert gone.returncode == 2
    assert "can't reach" in gone.stderr
    to_simulated = oss_eval("bench", "--resume", "last", "--limit", "8", "--url", served[0])
    assert to_simulated.returncode == 2
    assert "from a real server, and a simulator would answer now" in to_simulated.stderr
    assert read_manifest(sorted((tmp_path / "results").iterdir())[-1])["status"] == "finished"


def test_one_writer_at_a_time(oss_eval: Command, tmp_path: Path, served: tuple[str, Path]) -> None:
    process = start("bench", "demo", "--url", served[0], "--repeats", "20", "--parallel", "4", cwd=tmp_path)
    try:
        run = wait_for_samples(tmp_path / "results", 3)
        second = oss_eval("bench", "--resume", run.name)
        assert second.returncode == 2
        assert f"is being written by process {process.pid} on " in second.stderr
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)


def test_counted_tokens_are_marked(oss_eval: Command, tmp_path: Path, sums: Path) -> None:
    def answer(body: dict[str, Any]) -> bytes:
        return (
            SSE_HEAD
            + chunk(delta(f"\\\\boxed{{{add(body)}}}") + delta(".") + STOP + b"data: [DONE]\n\n")
            + LAST_CHUNK
        )

    with ScriptedServer(talking(answer)) as server:
        done = oss_eval("bench", str(sums), "--url", server.url)
    assert done.returncode == 0, done.stderr
    assert "2.000~" in done.stdout.split()
    assert "tokens counted from chunks" in done.stdout
    assert {row["token_source"] for row in rows(tmp_path / "results")} == {"chunks"}


def test_every_epoch_has_its_own_seed(oss_eval: Command, sums: Path) -> None:
    with ScriptedServer(talking(right)) as server:
        done = oss_eval("bench", str(sums), "--url", server.url, "--limit", "2", "--repeats", "3", "--seed", "40",
                        "--reasoning-effort", "low", "--extra-args", '{"min_p": 0.1}')  # fmt: skip
        assert done.returncode == 0, done.stderr
        bodies = [body_of(request) for request in server.requests if request.startswith(b"POST")]
    assert Counter(body["seed"] for body in bodies) == {40: 2, 41: 2, 42: 2}
    assert {(body["reasoning_effort"], body["min_p"], body["stream"]) for body in bodies} == {("low", 0.1, True)}


def test_a_whole_reply_can_be_asked_for(oss_eval: Command, tmp_path: Path, sums: Path) -> None:
    def answer(body: dict[str, Any]) -> bytes:
        message = {"role": "assistant", "content": f"\\boxed{{{add(body)}}}"}
        whole = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                 "usage": {"prompt_tokens": 1, "completion_tokens": 5}}  # fmt: skip
        return json_reply(json.dumps(whole).encode())

    with ScriptedServer(talking(answer)) as server:
        done = oss_eval("bench", str(sums), "--url", server.url, "--no-stream")
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path / "results")
    assert all(row["score"] == 1.0 and row["ttft_ms"] is None and row["latency_ms"] > 0 for row in found)


def test_a_server_that_closes_every_connection(oss_eval: Command, tmp_path: Path, sums: Path) -> None:
    with ScriptedServer(talking(lambda body: [right(body), CLOSE])) as server:
        done = oss_eval("bench", str(sums), "--url", server.url, "--repeats", "3")
    assert done.returncode == 0, done.stderr
    assert all(row["status"] == "ok" for row in rows(tmp_path / "results"))


def test_as_evalscopes_model(tmp_path: Path) -> None:
    """run_task with our model API, and EvalScope's own command with it."""
    data = tmp_path / "qa"
    data.mkdir()
    (data / "test.jsonl").write_text(
        "\n".join(json.dumps({"problem": f"What is {n} + {n}?", "answer": str(2 * n)}) for n in range(1, 7))
    )

    def answer(body: dict[str, Any]) -> bytes:
        words = question_of(body).split()
        return saying(f"\\boxed{{{2 * int(words[words.index('+') - 1])}}}", reasoning="sum")

    arguments = {"aime25": {"local_path": str(data)}}
    with ScriptedServer(talking(answer)) as server:
        settings = {"model": "m", "api_url": server.url, "eval_type": "oss_eval", "datasets": ["aime25"],
                    "dataset_args": arguments, "work_dir": "a", "no_timestamp": True}  # fmt: skip
        code = (
            "import oss_eval.plugin\nfrom evalscope import run_task, TaskConfig\n"
            f"r = run_task(TaskConfig(**{settings!r}))\nprint('SCORE', r['aime25'].metrics[0].score)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=100
        )
        assert "SCORE 1.0" in done.stdout, done.stderr[-2000:]
        words = ["evalscope", "eval", "--model", "m", "--api-url", server.url, "--datasets", "aime25", "--dataset-args", json.dumps(arguments), "--work-dir", "b",
                 "--no-timestamp"]  # fmt: skip
        command = [sys.executable, "-m", "oss_eval", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr[-2000:]
    for folder in ("a", "b"):
        [predictions] = (tmp_path / folder / "predictions").rglob("*.jsonl")
        for line in predictions.read_text().splitlines():
            output = json.loads(line)["model_output"]
            assert output["metadata"]["oss_eval"]["first_token_ns"] > 0
            assert output["choices"][0]["message"]["perf_metrics"]["ttft"] > 0


def test_a_second_ctrl_c_loses_no_graded_sample(oss_eval: Command, tmp_path: Path, sums: Path) -> None:
    """It comes while the last judges are waited for."""
    verdict = saying("VERDICT: CORRECT")
    with (
        ScriptedServer(talking(right)) as server,
        ScriptedServer(talking(lambda body: [2.0, verdict])) as judging,
    ):
        process = start("bench", str(sums), "--url", server.url, "--scorer", "judge", "--judge-model", "j", "--judge-url",
                        judging.url, "--grace", "0.5", "--repeats", "20", cwd=tmp_path)  # fmt: skip
        run = wait_for_samples(tmp_path / "results", 5)
        process.send_signal(signal.SIGINT)
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=15)
    assert process.returncode == 130, errors.decode()
    assert b"Traceback" not in errors
    assert f"resume {run.name}" in errors.decode()
    assert read_samples(run).num_rows >= 5


def test_a_grader_that_hangs_is_ended_at_once() -> None:
    grader = ScorerProcess()
    outcome: list[object] = []

    def grade() -> None:
        try:
            outcome.append(grader.grade("regex", "a" * 60 + "!", "x", False, {"pattern": "(a+)+$"}))
        except ScorerError as error:
            outcome.append(error)

    threads = [threading.Thread(target=grade) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(3)
    begun = time.monotonic()
    grader.close()
    for thread in threads:
        thread.join(5)
    assert time.monotonic() - begun < 14, "not fifteen seconds for each of them"
    assert len(outcome) == 3
    assert all(isinstance(one, ScorerError) for one in outcome)
