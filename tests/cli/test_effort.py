"""`oss-eval effort`: finds the answer that was planted in the simulator, and says when it can't tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.helpers.commands import ROOT, Command

FAST = "sim://gpt-oss-20b-h20?speed=100"


def sheet(oss_eval: Command, url: str, *words: str) -> dict[str, Any]:
    done = oss_eval("effort", "--url", url, "--seed", "3", *words, "--json", timeout=120)
    assert done.returncode == 0, done.stderr
    [task] = json.loads(done.stdout)["tasks"]
    assert task["sentences"][0] in " ".join(done.stderr.split())
    return dict(task)


def by_effort(task: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["effort"]: row for row in task["efforts"]}


def test_the_cheapest_effort_that_is_as_good_is_found(oss_eval: Command, tmp_path: Path) -> None:
    """medium and high solve as many; low solves fewer."""
    url = f"{FAST}&solve=low:0.5,medium:0.93,high:0.93"
    words = (
        "--repeats",
        "16",
        "--margin",
        "0.06",
        "--parallel",
        "64",
        "--slo",
        "latency_p95<60s",
        "--gpu-price",
        "2/h",
    )
    task = sheet(oss_eval, url, *words)
    rows = by_effort(task)
    assert task["chosen"] == "medium"
    assert rows["low"]["verdict"] == "worse"
    assert rows["medium"]["verdict"] == "not worse"
    assert list(rows) == ["low", "medium", "high"]
    assert rows["high"]["tokens"]["value"] > 2 * rows["medium"]["tokens"]["value"]
    for row in rows.values():
        for name in ("score", "tokens", "latency_ms", "cost"):
            assert row[name]["low"] < row[name]["value"] < row[name]["high"], name
        assert row["slo"] == [{"condition": "latency_p95<60s", "state": "met"}]
    [run] = (tmp_path / "results").iterdir()
    samples = pd.read_parquet(run / "samples")
    means = samples.groupby("reasoning_effort").completion_tokens.mean()
    assert rows["medium"]["tokens"]["value"] == pytest.approx(means["medium"])
    assert rows["medium"]["score"]["value"] == pytest.approx(
        samples.groupby("reasoning_effort").score.mean()["medium"]
    )
    assert json.loads((run / "manifest.json").read_text())["effort"]["margin"] == 0.06


def test_more_effort_is_named_where_it_pays(oss_eval: Command) -> None:
    task = sheet(oss_eval, f"{FAST}&solve=low:0.3,medium:0.6,high:0.92", "--repeats", "8")
    assert (task["best"], task["chosen"], task["undecided"]) == ("high", "high", [])
    assert task["sentences"][0] == "Use high: it scores highest, and low and medium are worse by more than 0.02."


def test_too_few_answers_cannot_tell(oss_eval: Command) -> None:
    task = sheet(oss_eval, f"{FAST}&solve=low:0.3,medium:0.90,high:0.92", "--repeats", "2", "--margin", "0.01")
    rows = by_effort(task)
    assert (task["chosen"], task["undecided"]) == (None, ["medium", "high"])
    assert {rows["medium"]["verdict"], rows["high"]["verdict"]} == {"can't tell"}
    assert task["sentences"][0].startswith(f"Can't tell yet. For now use {task['best']}, which scores highest")
    assert "times the answers would tell" in " ".join(task["sentences"])


def test_an_effort_that_misses_the_service_level_is_out(oss_eval: Command, tmp_path: Path) -> None:
    """high needs 480 tokens of reasoning in the median, low 40."""
    url = "sim://gpt-oss-20b-h20?speed=20&solve=low:0.5,medium:0.6,high:0.95"  # slow enough for a busy machine
    task = sheet(oss_eval, url, "--repeats", "4", "--slo", "latency_p90<1ms", "success>50%")
    assert (task["best"], task["chosen"]) == (None, None)
    assert task["sentences"] == ["No effort can be used: each one misses an SLO."]
    again = oss_eval("effort", "--from", "last", "--slo", "latency_p90<1h", "--json")
    assert again.returncode == 2  # an hour is no unit here
    stored = json.loads(oss_eval("effort", "--from", "last", "--html", "s.html", "--json").stdout)["tasks"][0]
    assert stored["chosen"] is None, "by the service level that the run was made with"
    easy = ("--from", "last", "--slo", "success>1%", "--json", "--html", "e.html")
    whole = json.loads(oss_eval("effort", *easy).stdout)["tasks"][0]
    assert whole["chosen"] == "high"
    pages = [(tmp_path / name).read_text() for name in ("s.html", "e.html")]
    assert ["No effort can be used" in page for page in pages] == [True, False], "pages say what the terminal says"
    limit = by_effort(whole)["medium"]["latency_ms"]["value"]  # far below that of high
    some = json.loads(oss_eval("effort", "--from", "last", "--slo", f"latency_p50<{limit:.0f}ms", "--json").stdout)
    rows = by_effort(some["tasks"][0])
    assert rows["high"]["slo"][0]["state"] == "missed"
    assert some["tasks"][0]["chosen"] != "high"
    assert "; it misses latency_p50<" in " ".join(some["tasks"][0]["sentences"])


def test_the_sheet_of_a_stored_run_as_a_page(oss_eval: Command, tmp_path: Path) -> None:
    examples = ("--out", str(ROOT / "results" / "examples"))
    done = oss_eval("effort", "--from", "demo-a", *examples, "--html", "sheet.html", COLUMNS="80")
    assert done.returncode == 0, done.stderr
    assert "Use high" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "…" not in done.stdout
    page = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert "Which effort: demo, margin 0.02" in page
    assert "Use high" in page


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--from", "last", "--url", FAST), "leave --url out"),
        (("--from", "sweep-a", "--out", str(ROOT / "results" / "examples")), "is no benchmark"),
        (("--url", FAST, "--reasoning-effort", "high"), "names one effort"),
        (("--url", FAST, "--margin", "2"), "is not between 0 and 1"),
        (("--url", FAST, "--slo", "rps>3"), "is on no figure of an effort"),
        (("--url", FAST, "--slo", "latency_p95>30s"), "is no limit of a time"),
        (("--url", FAST, "--slo", "latency_p95<30"), "is no limit of a time"),
        (("--url", FAST, "--slo", "success>2s"), "is no limit of a share"),
        (("--url", FAST, "--margin", "abc"), "is not between 0 and 1"),
        (("--url", FAST, "--gpu-price", "free"), "is no price an hour"),
        (("--url", "sim://gpt-oss-20b-h20?solve=low:2"), "solve=low:2"),
    ],
)
def test_a_mistake_is_told(oss_eval: Command, tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    done = oss_eval("effort", *words)
    assert done.returncode == 2
    assert told in done.stderr
    assert not (tmp_path / "results").exists()


def test_what_nobody_knows_is_not_missed(oss_eval: Command) -> None:
    """Without streams there is no TTFA."""
    url = f"{FAST}&solve=low:0.3,medium:0.6,high:0.95"
    task = sheet(oss_eval, url, "--no-stream", "--repeats", "4", "--slo", "ttfa_p90<5s")
    assert {row["slo"][0]["state"] for row in task["efforts"]} == {"can't tell"}
    assert task["chosen"] == "high"


def test_answers_without_a_score_are_told(oss_eval: Command) -> None:
    """Every request of a twentieth fails."""
    words = ("--url", f"{FAST}&fault=500:0.1", "--seed", "3", "--retries", "0", "--max-failures", "100")
    done = oss_eval("effort", *words, "--json")
    assert done.returncode == 0, done.stderr
    [task] = json.loads(done.stdout)["tasks"]
    failed = {row["effort"]: row["failed"] for row in task["efforts"]}
    assert sum(failed.values()) > 5
    [line] = [line for line in task["sentences"] if line.startswith("Scores leave out answers")]
    for effort, count in failed.items():
        if count:
            assert f"{effort} {count} of 136 (with them as wrong 0." in line


def test_the_efforts_of_a_task_file_are_asked(oss_eval: Command, tmp_path: Path) -> None:
    """And a price of the GPUs goes before the order by tokens, in money of the same kind for each."""
    (tmp_path / "mine.jsonl").write_text((ROOT / "tasks" / "demo.jsonl").read_text())
    words = (ROOT / "tasks" / "demo.yaml").read_text().replace("demo.jsonl", "mine.jsonl")
    (tmp_path / "mine.yaml").write_text(f"{words}\nreasoning_effort: [low, high]\n")
    task = sheet(oss_eval, FAST, "--task", "mine.yaml", "--gpu-price", "2/h")
    assert list(by_effort(task)) == ["low", "high"]
    assert all(row["cost"]["value"] > 0 for row in task["efforts"])
