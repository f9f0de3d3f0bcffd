"""`oss-eval compare`: verdicts, conditions with their exit codes, formats, and what can't be compared."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest

from oss_eval.analysis.stats import holm
from oss_eval.results.reader import find_run
from tests.helpers.commands import ROOT, Command

EXAMPLES = ("--out", str(ROOT / "results" / "examples"))


def compared(oss_eval: Command, *words: str) -> list[dict[str, Any]]:
    done = oss_eval("compare", *words, "--json")
    assert done.returncode == 0, done.stderr
    entries: list[dict[str, Any]] = json.loads(done.stdout)["comparisons"]
    return entries


def scores(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in entries if entry["metric"] == "score"]


def test_efforts_in_all_pairs(oss_eval: Command) -> None:
    found = scores(compared(oss_eval, "demo-a", "--by", "reasoning_effort", *EXAMPLES))
    assert [(c["side_a"], c["side_b"]) for c in found] == [("low", "medium"), ("low", "high"), ("medium", "high")]
    assert [c["p_holm"] for c in found] == pytest.approx(holm([c["p"] for c in found]))
    low_high = found[1]
    assert low_high["task"] == "demo"
    assert low_high["effort"] is None
    assert low_high["difference"] == pytest.approx(low_high["b"] - low_high["a"])
    assert low_high["low"] > 0
    assert low_high["like_low"] <= low_high["low"] < low_high["high"] <= low_high["like_high"]
    assert low_high["verdict"] == "better"
    assert low_high["wins"] + low_high["losses"] + low_high["ties"] == 12
    flip = next(f for f in low_high["flips"] if f["sample_id"] == "3")
    assert (flip["a"], flip["b"]) == ("0/3", "3/3")
    assert "sample=02-demo-high%2Fdefault%2F3%2F1" in flip["link"]
    text = oss_eval("compare", "demo-a", "--by", "reasoning_effort", *EXAMPLES, COLUMNS="80").stdout
    assert "demo: B = high against A = low" in text
    assert "B's score is better: +0.3889 on these problems" in text
    assert "3 (0/3 → 3/3)" in text.replace("\n", " ")
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


def test_two_runs_and_what_it_would_take(oss_eval: Command) -> None:
    found = scores(compared(oss_eval, "demo-a", "demo-b", *EXAMPLES))
    assert [c["effort"] for c in found] == ["low", "medium", "high"]
    assert {c["verdict"] for c in found} == {"can't tell"}
    text = oss_eval("compare", "demo-a", "demo-b", *EXAMPLES).stdout
    assert "would be found 9 times in 10" in text
    assert "times the answers" in text
    points = scores(compared(oss_eval, "demo-a:low", "demo-a:high", *EXAMPLES))
    assert [c["difference"] for c in points] == pytest.approx([14 / 36])


@pytest.mark.parametrize(
    ("conditions", "code"),
    [
        ((), 0),
        (("--fail-if", "score < -0.02"), 0),  # it may be so: that does not fail
        (("--require", "score > -0.3"), 0),
        (("--require", "score > -0.02"), 3),
        (("--require", "score > 0.4"), 1),
        (("--fail-if", "score > -0.5"), 1),
        (("--require", "score > -0.02", "--fail-if", "score < 0.5"), 1),
        (("--require", "tokens < +80%", "--require", "score > -30%"), 0),
    ],
)
def test_exit_codes_of_conditions(oss_eval: Command, conditions: tuple[str, ...], code: int) -> None:
    done = oss_eval("compare", "demo-a", "demo-b", *EXAMPLES, *conditions)
    assert done.returncode == code, done.stdout + done.stderr
    for flag, text in zip(conditions[::2], conditions[1::2], strict=True):
        assert done.stdout.count(f"{flag} '{text}' is ") == 3  # at each effort


def test_formats(oss_eval: Command) -> None:
    words = ("compare", "demo-a", "demo-b", *EXAMPLES, "--require", "score > -0.02", "--fail-if", "score < 0.5")
    suite = ElementTree.fromstring(oss_eval(*words, "--format", "junit").stdout)
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("6", "3", "3")
    assert [case.get("name") for case in suite][:1] == ["--fail-if score < 0.5"]
    markdown = oss_eval(*words, "--format", "markdown").stdout
    assert "| Figure | A | B | B - A | 95% interval | p | Verdict |" in markdown
    assert "### Conditions" in markdown
    page = oss_eval(*words, "--format", "html").stdout
    assert page.startswith("<!doctype html>")
    assert page.count("<table>") == 3
    assert page.count("is undecided") == 3
    document = json.loads(oss_eval(*words, "--format", "json").stdout)
    assert [c["state"] for c in document["conditions"]] == ["established"] * 3 + ["undecided"] * 3


def test_sweeps(oss_eval: Command, fast_simulator: str, tmp_path: Path) -> None:
    sweep = ("perf", "--url", fast_simulator, "--parallel", "2", "8", "--number", "40", "--max-tokens", "40")
    names = []
    for name, prompt in (("one", "256"), ("two", "256"), ("longer", "8000")):
        done = oss_eval(
            *sweep,
            "--name",
            name,
            "--min-prompt-length",
            prompt,
            "--max-prompt-length",
            prompt,
            "--label",
            f"as={name}",
        )
        assert done.returncode == 0, done.stderr
        names.append(name)
    same, longer = (compared(oss_eval, "one", other) for other in names[1:])
    assert {(c["parallel"], c["stat"]) for c in same if c["metric"] == "ttft_ms"} >= {(2, "mean"), (8, "mean")}
    slower = next(c for c in longer if (c["metric"], c["stat"], c["parallel"]) == ("ttft_ms", "mean", 2))
    assert slower["verdict"] == "worse"
    assert slower["relative_low"] > 0.5
    assert slower["difference"] == pytest.approx(slower["relative"] * slower["a"])
    words = ("compare", "one", "longer")
    warned = oss_eval(*words).stdout
    assert "longer differs from A in workload: " in warned
    assert "Intervals are within one run each" in warned
    assert oss_eval(*words, "--fail-if", "ttft > +10%").returncode == 1
    assert oss_eval(*words, "--fail-if", "ttft > 1s").returncode == 0
    assert oss_eval(*words, "--require", "success > -50%").returncode == 0
    within = compared(oss_eval, "one", "longer", "--slo", "ttft<60s", "tpot<1ms")
    shares = {(c["metric"], c["parallel"]): c for c in within if c["metric"] in ("attainment", "goodput", "rps")}
    assert 0 <= shares["attainment", 2]["a"] <= 1
    rows = pd.read_parquet(find_run("one", tmp_path / "results") / "requests")
    mine = rows[~rows.warmup & (rows.parallel == 2)]
    tpot = (
        (mine.last_token_ns - mine.first_token_ns)
        / 1e6
        / (mine.completion_tokens - mine.first_event_tokens.fillna(1))
    )
    assert shares["attainment", 2]["a"] == pytest.approx((tpot <= 1).mean())
    assert shares["goodput", 2]["a"] == pytest.approx(shares["rps", 2]["a"] * (tpot <= 1).mean())
    grouped = compared(oss_eval, "one", "longer", "--by", "label:as")
    assert {(c["side_a"], c["side_b"]) for c in grouped} == {("one", "longer")}


def problem(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stdout
    assert done.stderr.count("→") == 1
    return done.stderr


def test_what_cannot_be_compared(oss_eval: Command, tmp_path: Path) -> None:
    for words, text in (
        (("demo-a",), "one run alone can't be compared"),
        (("demo-a", "sweep-a"), "have no point in common"),
        (("demo-a", "--by", "gpu"), "--by 'gpu' is unknown"),
        (("demo-a", "demo-b", "--by", "label:gpu"), "has no label:gpu"),
        (("demo-a", "demo-b", "--by", "model"), "all points have the same model"),
        (("demo-a:huge", "demo-b"), "0 points of"),
        (("demo-a", "demo-b", "--fail-if", "score"), "--fail-if 'score' is no condition"),
        (("demo-a", "demo-b", "--require", "speed > 1"), "nothing compared has a figure 'speed'"),
        (("sweep-a", "sweep-b", "--fail-if", "ttft > 2"), "has no unit of time"),
        (("demo-a", "demo-b", "--format", "junit"), "no test without a condition"),
        (("sweep-a", "sweep-b", "--slo", "ttft>2s"), "--slo 'ttft>2s' is no limit"),
    ):
        assert text in problem(oss_eval("compare", *words, *EXAMPLES))


def test_from_python() -> None:
    import oss_eval as package

    frame = package.compare("demo-a", "demo-b", out=EXAMPLES[1])
    assert set(frame[frame.metric == "score"].verdict) == {"can't tell"}
    efforts = package.compare("demo-a", by="reasoning_effort", out=EXAMPLES[1])
    assert efforts[efforts.metric == "score"].side_b.tolist() == ["medium", "high", "high"]
    assert callable(package.resume)
