"""perf, bench, doctor, ask, resume and the viewer against llama.cpp's server, held to its own counts and times."""

from __future__ import annotations

import json
import signal
import statistics
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from oss_eval.analysis.perf_summary import load_run
from oss_eval.results.manifest import read_manifest
from oss_eval.results.reader import read_requests, read_samples
from oss_eval.viewer.run_index import RunIndex
from tests.helpers.browser import viewer
from tests.helpers.commands import Command, bad, ended, launched, only_run, until
from tests.helpers.llama_cpp import Engine

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHORT = ("--min-prompt-length", "40", "--max-prompt-length", "60", "--max-tokens", "48", "--temperature", "0")
EXACT = ("--min-tokens", "48", "--extra-args", '{"ignore_eos": true}')
"""Every answer has 48 tokens."""


def rows_of(run: Path) -> list[dict[str, Any]]:
    return read_requests(run).to_pylist()


def timings_of(row: dict[str, Any]) -> dict[str, float]:
    found: dict[str, float] = json.loads(row["server_timings"])
    return found


def test_doctor_sees_what_the_server_is(engine: Engine, oss_eval: Command) -> None:
    done = oss_eval("doctor", "--url", engine.url, "--json", timeout=120)
    assert done.returncode == 0, done.stderr + done.stdout
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert checks["server"]["seen"].startswith("llama.cpp")
    assert checks["model"]["seen"].endswith(f"{NAME}, context 2,048")
    assert checks["streaming"]["seen"].startswith("a token a chunk")
    assert checks["token counts"]["verdict"] == "pass"
    assert checks["fixed lengths"]["verdict"] == "pass"
    assert "closes the connection" in checks["keep-alive"]["seen"]
    assert checks["effort"]["seen"] == "the model sends no reasoning: an effort changes nothing"


def test_ask_prints_an_answer(engine: Engine, oss_eval: Command) -> None:
    question = "Who wrote Romeo and Juliet?"
    before = engine.counters()["tokens_predicted_total"]
    done = oss_eval("ask", question, "--url", engine.url, "--temperature", "0", "--max-tokens", "64")
    assert done.returncode == 0, done.stderr
    assert "Shakespeare" in done.stdout
    counted = engine.counters()["tokens_predicted_total"] - before
    assert f"{counted:.0f} tokens" in done.stderr


def test_a_sweep_agrees_with_the_servers_counts_and_times(
    engine: Engine, oss_eval: Command, tmp_path: Path
) -> None:
    before = engine.counters()
    done = oss_eval(
        "perf", "--url", engine.url, "--parallel", "1", "2", "4", "--number", "8", *SHORT, *EXACT, timeout=120
    )
    after = engine.counters()
    assert done.returncode == 0, done.stderr
    rows = rows_of(only_run(tmp_path))
    assert {row["status"] for row in rows} == {"ok"}
    measured = [row for row in rows if not row["warmup"]]
    assert len(measured) == 24
    # Its counters hold every request, the two of the preflight too, and those are rows.
    for counters, columns in (
        (["tokens_predicted_total"], ["completion_tokens"]),
        (["prompt_tokens_total", "prompt_tokens_cached_total"], ["prompt_tokens"]),
    ):
        counted = sum(after[name] - before[name] for name in counters)
        assert counted == sum(row[name] for row in rows for name in columns)
    for row in measured:
        told = timings_of(row)
        assert row["completion_tokens"] == row["n_events"] == told["predicted_n"] == 48
        assert row["cached_tokens"] == told["cache_n"]
        waited = (row["first_token_ns"] - row["start_ns"]) / 1e6
        assert waited > told["prompt_ms"]
    alone = [row for row in measured if row["parallel"] == 1]
    ours = statistics.median((row["last_token_ns"] - row["first_token_ns"]) / 47e6 for row in alone)
    # predicted_ms begins before the first token is sampled and predicted_n counts it
    theirs = statistics.median(timings_of(row)["predicted_ms"] / 47 for row in alone)
    assert ours == pytest.approx(theirs, rel=0.05)
    overhead = statistics.median(
        (row["first_token_ns"] - row["start_ns"]) / 1e6 - timings_of(row)["prompt_ms"] for row in alone
    )
    assert 0 < overhead < 50


def test_the_stop_token_has_its_event(engine: Engine, oss_eval: Command, tmp_path: Path) -> None:
    words = ("--prompt", "Say hello.", "--max-tokens", "200", "--temperature", "0")
    done = oss_eval("perf", "--url", engine.url, "--parallel", "1", "--number", "3", *words)
    assert done.returncode == 0, done.stderr
    for row in rows_of(only_run(tmp_path)):
        if row["finish_reason"] == "stop":
            assert row["completion_tokens"] == row["n_events"]
    stopped = [row for row in rows_of(only_run(tmp_path)) if row["finish_reason"] == "stop"]
    assert len(stopped) >= 3
    assert "gaps between chunks" not in done.stdout


def test_a_model_named_by_a_path_leaves_room_for_the_table(
    engine: Engine, oss_eval: Command, tmp_path: Path
) -> None:
    words = ("--url", engine.url, "--parallel", "1", "2", "--number", "6", *SHORT)
    done = oss_eval("perf", *words, COLUMNS="80")
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    assert read_manifest(run)["model"] == str(engine.model), "what is sent and stored is the server's name"
    assert f"-perf-{NAME}-" in run.name
    assert f"Load sweep of {NAME}" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    text = " ".join(done.stdout.split())
    assert text.count("closes each connection after a request") == 1, "once, not once a point"
    index = RunIndex([tmp_path / "results"])
    assert [stored.model for stored in index.runs()] == [NAME]


def test_the_engine_counts_the_same_tokens(engine: Engine, oss_eval: Command, tmp_path: Path) -> None:
    """Its /metrics, read by the sweep itself."""
    words = ("--url", engine.url, "--parallel", "2", "--number", "8", *SHORT)
    done = oss_eval("perf", *words)
    assert done.returncode == 0, done.stderr
    [point] = load_run(only_run(tmp_path)).points
    figures = point.metrics
    assert figures.get("server_output_tokens", "total") == figures.get("completion_tokens", "total")
    assert "Server metrics" in done.stdout


def test_a_benchmark_of_a_real_model(engine: Engine, oss_eval: Command, tmp_path: Path) -> None:
    questions = [("Who wrote Romeo and Juliet?", "Shakespeare"), ("What is water made of?", "hydrogen"),
                 ("What color is the sky on a clear day?", "blue"), ("What is the capital of Atlantis?", "Poseidonis")]  # fmt: skip
    (tmp_path / "facts.jsonl").write_text(
        "".join(json.dumps({"question": question, "answer": answer}) + "\n" for question, answer in questions)
    )
    (tmp_path / "facts.yaml").write_text(
        "dataset: facts.jsonl\nprompt: '{question}'\ntarget: answer\nscorer: contains\n"
    )
    before = engine.counters()["tokens_predicted_total"]
    done = oss_eval(
        "bench", "facts.yaml", "--url", engine.url, "--repeats", "2", "--temperature", "0", "--max-tokens", "120",
        "--parallel", "4", timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    samples = read_samples(run).to_pylist()
    assert len(samples) == 8
    for row in samples:
        said = row["target"] in row["response"] and not row["truncated"]
        assert row["score"] == float(said), row["response"]
    right = {row["target"] for row in samples if row["score"]}
    assert right
    assert "Poseidonis" not in right
    counted = engine.counters()["tokens_predicted_total"] - before
    assert counted == sum(row["completion_tokens"] for row in rows_of(run))
    assert bad(run) == []


def test_a_stopped_sweep_is_resumed(engine: Engine, oss_eval: Command, tmp_path: Path) -> None:
    words = ("perf", "--url", engine.url, "--parallel", "2", "--number", "24", *SHORT, *EXACT, "--grace", "0")
    with launched(tmp_path, *words) as process:
        until(lambda: (tmp_path / "results").exists() and len(rows_of(only_run(tmp_path))) > 5, 60)
        process.send_signal(signal.SIGINT)
        code, _, told = ended(process)
    assert code == 130, told
    run = only_run(tmp_path)
    assert read_manifest(run)["status"] == "interrupted"
    done = oss_eval("resume", run.name, "--missing", timeout=120)
    assert done.returncode == 0, done.stderr
    report = load_run(run)
    assert [point.metrics.get("requests") for point in report.points] == [24]
    assert [point.metrics.get("success_rate") for point in report.points] == [1]
    assert bad(run) == []


def test_the_viewer_shows_its_figures(engine: Engine, oss_eval: Command, tmp_path: Path, browser: Browser) -> None:
    done = oss_eval("perf", "--url", engine.url, "--parallel", "1", "2", "--number", "3", *SHORT)
    assert done.returncode == 0, done.stderr
    with viewer(tmp_path / "results") as address:
        page = browser.new_page()
        page.goto(f"{address}?show=perf&runs={only_run(tmp_path).name}")
        expect(page.get_by_text(NAME).first).to_be_visible(timeout=20_000)
        assert str(engine.model) not in page.inner_text("body")
        page.close()


def test_the_report_shows_its_figures(engine: Engine, oss_eval: Command, tmp_path: Path) -> None:
    done = oss_eval("perf", "--url", engine.url, "--parallel", "1", "--number", "3", *SHORT)
    assert done.returncode == 0, done.stderr
    done = oss_eval("report", only_run(tmp_path).name, "-o", "r.html")
    assert done.returncode == 0, done.stderr
    assert NAME in (tmp_path / "r.html").read_text()
