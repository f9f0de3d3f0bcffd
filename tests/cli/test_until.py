"""`bench --until` and budgets, end to end against the simulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from oss_eval.results.manifest import read_manifest
from oss_eval.results.reader import find_run
from tests.helpers.commands import Command

BENCH = ("bench", "demo", "--url", "sim://gpt-oss-20b-h20?speed=40", "--reasoning-effort")


def only_point(tmp_path: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    run = find_run("last", tmp_path / "results")
    [point] = read_manifest(run)["points"]
    return point, pd.read_parquet(run / "samples")


def test_until_the_score_is_known(oss_eval: Command, tmp_path: Path) -> None:
    done = oss_eval(*BENCH, "high", "--until", "±0.04", "--json")
    assert done.returncode == 0, done.stderr
    point, samples = only_point(tmp_path)
    assert point["until"]["error"] == 0.04
    assert point["until"]["half"] <= 0.04
    assert point["until"]["answers"] == point["number"] == len(samples)
    answers = samples.groupby("sample_id", observed=True).size()
    assert answers.min() >= 2
    assert answers.max() > 2 * answers.min()
    assert point["repeats"] == answers.max()
    [group] = json.loads(done.stdout)["groups"]
    score = group["score"]
    assert group["adaptive"] is True
    assert score["these_high"] - score["these_low"] <= 0.08
    assert score["these_low"] <= score["value"] <= score["these_high"]
    assert group["majority"] is None
    assert "estimate" in done.stderr
    assert f"demo high: stopped after {len(samples)} answers: ±" in done.stderr
    assert oss_eval("fsck", "last").stdout.endswith(": clean\n")
    # Known already: nothing is asked again. Known better: more is. Answers under way when the goal is reached may
    # have brought the score far below it already, so the better one is taken from what was reached.
    before, better = len(samples), round(0.7 * point["until"]["half"], 4)
    assert oss_eval("resume", "last").returncode == 0
    assert len(only_point(tmp_path)[1]) == before
    assert oss_eval("bench", "--resume", "last", "--until", f"±{better}").returncode == 0
    point, samples = only_point(tmp_path)
    assert len(samples) > before
    assert point["until"]["half"] <= better
    assert oss_eval("fsck", "last").stdout.endswith(": clean\n")


def test_until_it_is_told_from_a_reference(oss_eval: Command, tmp_path: Path) -> None:
    assert oss_eval(*BENCH, "low", "--repeats", "4", "--name", "reference").returncode == 0
    [part] = (find_run("last", tmp_path / "results") / "samples").glob("*.parquet")
    table = pq.read_table(part)  # a reference that solves nothing
    place = table.schema.get_field_index("score")
    nothing = pa.array([0.0] * table.num_rows, table.schema.field(place).type)
    pq.write_table(table.set_column(place, table.schema.field(place), nothing), part)
    done = oss_eval(*BENCH, "low", "--until", "decided", "--against", "last")
    assert done.returncode == 0, done.stderr
    point, samples = only_point(tmp_path)
    assert point["until"]["reached"].startswith("better than the reference by ")
    assert len(samples) < 34 * 8
    assert "better than the reference" in done.stdout


def test_a_budget_is_not_exceeded(oss_eval: Command, tmp_path: Path) -> None:
    done = oss_eval(*BENCH, "low", "--repeats", "20", "--budget-tokens", "20000", "--max-tokens", "400")
    assert done.returncode == 0, done.stderr
    point, samples = only_point(tmp_path)
    spent = pd.read_parquet(find_run("last", tmp_path / "results") / "requests").completion_tokens.sum()
    assert 18_000 < spent <= 20_000
    assert point["until"]["reached"] == "the budget is spent"
    assert point["number"] == len(samples) < 34 * 20
    assert samples.groupby("sample_id", observed=True).size().agg(["min", "max"]).diff().iloc[1] <= 1
    (tmp_path / "endpoints.yaml").write_text(
        "box:\n  url: sim://gpt-oss-20b-h20?speed=40\n  prices: {input: 1, output: 4}\n"
    )
    words = (
        "bench",
        "demo",
        "--endpoint",
        "box",
        "--reasoning-effort",
        "low",
        "--repeats",
        "20",
        "--max-tokens",
        "400",
    )
    done = oss_eval(*words, "--budget-usd", "0.08", "--json")
    assert done.returncode == 0, done.stderr
    rows = pd.read_parquet(find_run("last", tmp_path / "results") / "requests")
    price = (rows.prompt_tokens.sum() + 4 * rows.completion_tokens.sum()) / 1e6
    assert 0.05 < price <= 0.08


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--until", "soon"), "--until soon: give an error like ±0.02, or decided"),
        (("--until", "2"), "--until 2: give an error like ±0.02"),
        (("--until", "decided"), "--until decided and --against RUN need each other"),
        (("--until", "decided", "--against", "nothing"), "there are no runs"),
        (
            ("--budget-tokens", "1000"),
            "--budget-tokens 1000 is less than an answer to each effort may take: 32,768",
        ),
        (("--budget-usd", "1", "--max-tokens", "100"), "--budget-usd needs the prices of the endpoint"),
    ],
)
def test_what_can_not_be_a_goal(oss_eval: Command, words: tuple[str, ...], text: str) -> None:
    done = oss_eval(*BENCH, "low", *words)
    assert done.returncode == 2
    assert text in done.stderr
