"""Each script in examples/ runs as it stands and prints the right figures."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.helpers.bench_helpers import question_of
from tests.helpers.commands import ROOT
from tests.helpers.scripted_server import ScriptedServer, saying, talking

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def example(folder: Path, name: str, *arguments: str) -> str:
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_script_is_short_and_says_what_it_shows(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 20
    assert text.startswith('"""')
    assert path.name in (ROOT / "examples" / "README.md").read_text(encoding="utf-8")


def test_a_sweep_and_sql_over_it(tmp_path: Path) -> None:
    lines = example(tmp_path, "sweep.py").splitlines()
    assert [int(re.findall(r"concurrency (\d+)", line)[0]) for line in lines] == [1, 8, 32]
    [run] = (tmp_path / "results").iterdir()
    rows = pd.read_parquet(run / "requests")
    rows = rows[~rows.warmup & (rows.status == "ok")]
    assert [int(re.findall(r"n=(\d+)", line)[0]) for line in lines] == [20, 120, 200]
    slowest = rows.assign(latency=(rows.last_token_ns - rows.start_ns) / 1e6).nlargest(5, "latency")
    table = example(tmp_path, "duckdb_query.py", str(run))
    for row in slowest.itertuples():
        assert str(row.request_id) in table
        assert f"{row.latency:.1f}" in table


def test_effort_against_score(tmp_path: Path) -> None:
    lines = example(tmp_path, "efforts.py").splitlines()
    efforts = {line.split()[0]: [float(value) for value in line.split()[1:]] for line in lines[2:]}
    assert list(efforts) == ["low", "medium", "high"], "sorted by tokens"
    assert efforts["low"][0] < efforts["high"][0], "the simulator's rates"
    [run] = (tmp_path / "results").iterdir()
    samples = pd.read_parquet(run / "samples")
    low = samples[samples.reasoning_effort == "low"]
    assert efforts["low"][0] == pytest.approx(low.score.mean(), abs=0.0006)
    assert efforts["low"][1] == pytest.approx(low.completion_tokens.mean(), abs=0.0006)


def test_an_own_benchmark(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> bytes:
        a, b = map(int, re.findall(r"What is (\d) \+ (\d)\?", question_of(body))[0])
        return saying(f"\\boxed{{{a + b if a != 2 else 9}}}")

    with ScriptedServer(talking(answer)) as server:
        line = example(tmp_path, "custom_benchmark.py", server.url)
    assert line.startswith("score 0.667, 95% 0.")
    assert line.endswith("n=9\n")


def test_evalscope_with_the_probe(tmp_path: Path) -> None:
    data = tmp_path / "aime25"
    data.mkdir()
    problems = [{"problem": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(1, 5)]
    (data / "test.jsonl").write_text("\n".join(map(json.dumps, problems)))

    def answer(body: dict[str, Any]) -> bytes:
        n = int(re.findall(r"What is (\d)", question_of(body))[0])
        return saying(f"\\boxed{{{2 * n if n > 1 else 0}}}")

    with ScriptedServer(talking(answer)) as server:
        assert "aime25 0.750" in example(tmp_path, "evalscope_task.py", server.url, str(data)).lower()
