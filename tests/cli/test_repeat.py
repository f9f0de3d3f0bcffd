"""`perf --repeat` and `--assert`: points measured several times, and conditions on figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from oss_eval.results.reader import find_run
from oss_eval.viewer.pages import compare, perf
from oss_eval.viewer.query import Query
from oss_eval.viewer.run_index import RunIndex
from tests.helpers.commands import Command

pytestmark = pytest.mark.alone

SWEEP = ("perf", "--parallel", "2", "4", "8", "--number", "24", "32", "40", "--max-tokens", "30", "--seed", "5")


def test_repeats_are_one_run_with_intervals_over_them(
    oss_eval: Command, fast_simulator: str, tmp_path: Path
) -> None:
    done = oss_eval(*SWEEP, "--url", fast_simulator, "--repeat", "3", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    points = document["points"]
    by_repeat = [[p["parallel"] for p in points if p["repeat"] == repeat] for repeat in (1, 2, 3)]
    assert [sorted(levels) for levels in by_repeat] == [[2, 4, 8]] * 3
    assert len({tuple(levels) for levels in by_repeat}) > 1  # shuffled
    run = find_run("last", tmp_path / "results")
    rows = pd.read_parquet(run / "requests")
    sizes = rows[rows.point_id.astype(str).str.contains("-x")].groupby("point_id", observed=True).size()
    assert sorted(sizes) == [24] * 3 + [32] * 3 + [40] * 3
    assert [p["parallel"] for p in document["repeats"]] == [2, 4, 8]
    for together in document["repeats"]:
        mine = [p["metrics"] for p in points if p["parallel"] == together["parallel"]]
        assert together["repeats"] == 3
        assert together["metrics"]["requests"]["value"] == sum(m["requests"]["value"] for m in mine)
        for metric, stat in (("ttft_ms", "p50"), ("output_tps", "value")):
            values = [m[metric][stat] for m in mine]
            figure = together["metrics"][metric]
            assert figure[stat] == pytest.approx(np.mean(values))
            interval = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
            assert figure["ci95"][stat] == pytest.approx(interval)
    assert "each point is the mean of 3 repeats" in done.stderr
    assert done.stderr.count("100%") == 3
    assert oss_eval("fsck", "last").returncode == 0
    query = Query("perf", (run.name,), {"latency": "60000"})
    html = str(perf.draw(RunIndex([tmp_path / "results"]), query, lambda words: words).value(query)["html"])
    assert html.count(">c8</a>") == 2  # in the table of service levels, and in its numbers
    # Another run of the same server: compared over repeats, not within a run.
    assert oss_eval(*SWEEP, "--url", fast_simulator, "--repeat", "2").returncode == 0
    runs = sorted(path.name for path in (tmp_path / "results").iterdir())
    entries = json.loads(oss_eval("compare", *runs, "--json").stdout)["comparisons"]
    assert {tuple(entry["repeats"]) for entry in entries} == {(3, 2)}
    assert "3 and 2 repeats" in oss_eval("compare", *runs).stdout
    index = RunIndex([tmp_path / "results"])
    one, two = (index.find(name) for name in runs)
    assert one is not None
    assert two is not None
    shown = {(c.where, c.metric, c.stat): c.difference.p for c in compare.contrasts(one, two)}
    told = {(f"c{e['parallel']}", e["metric"], e["stat"]): e["p"] for e in entries}
    assert shown == pytest.approx(told)


def test_an_interrupted_repeat_is_resumed(oss_eval: Command, fast_simulator: str, tmp_path: Path) -> None:
    assert oss_eval(*SWEEP, "--url", fast_simulator, "--repeat", "2").returncode == 0
    run = find_run("last", tmp_path / "results")
    manifest = json.loads((run / "manifest.json").read_text())
    last = manifest["points"][-1]["point_id"]
    for part in (run / "requests").glob("*.parquet"):
        frame = pd.read_parquet(part)
        kept = pa.array((frame.point_id.astype(str) != last).to_numpy())
        pq.write_table(pq.read_table(part).filter(kept), part)
    (run / "summary.parquet").unlink()
    manifest |= {"status": "interrupted", "begun": manifest["begun"][:-1], "ended": manifest["ended"][:-1]}
    (run / "manifest.json").write_text(json.dumps(manifest))
    done = oss_eval("resume", "last", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [p["repeats"] for p in document["repeats"]] == [2, 2, 2]
    assert document["points"][-1]["point_id"] == last


@pytest.mark.parametrize(
    ("conditions", "code", "states"),
    [
        (("latency_p50<60s", "success>80%"), 0, ["established", "established"]),
        (("latency_p50<1ms", "success>80%"), 1, ["refuted", "established"]),
        (("success>99%",), 3, ["undecided"]),
        (("success<=100%", "tps>1"), 0, ["established", "established"]),
        (("failures<1", "ttft_p99<60s"), 3, ["established", "undecided"]),  # the largest of 40 bounds no P99
    ],
)
def test_assertions(
    oss_eval: Command, fast_simulator: str, conditions: tuple[str, ...], code: int, states: list[str]
) -> None:
    words = ("perf", "--url", fast_simulator, "--parallel", "2", "--number", "40", "--max-tokens", "30")
    done = oss_eval(*words, "--assert", *conditions, "--json")
    assert done.returncode == code, done.stderr
    assert json.loads(done.stdout)["status"] == "finished"
    for text, state in zip(conditions, states, strict=True):
        assert f"c2: --assert '{text}' is {state}: " in done.stderr


def test_a_condition_that_can_not_be_is_refused_before_anything_is_sent(oss_eval: Command, tmp_path: Path) -> None:
    for text, words in (
        ("speed<2", "there is no figure 'speed'"),
        ("ttft", "is no condition"),
        ("score>0.9", "there is no figure 'score'"),
    ):
        done = oss_eval("perf", "--url", "sim://instant", "--assert", text)
        assert done.returncode == 2
        assert words in done.stderr
    assert not (tmp_path / "results").exists()


def test_an_assertion_on_a_score(oss_eval: Command) -> None:
    words = ("bench", "demo", "--url", "sim://gpt-oss-20b-h20?speed=40", "--limit", "12", "--repeats", "4")
    refuted = oss_eval(*words, "--reasoning-effort", "low", "--assert", "score>=0.9")
    assert refuted.returncode == 1, refuted.stderr
    assert "demo low: --assert 'score>=0.9' is refuted: " in refuted.stderr
    held = oss_eval(*words, "--reasoning-effort", "high", "--assert", "score>0.5", "truncated<50%")
    assert held.returncode == 0, held.stderr
