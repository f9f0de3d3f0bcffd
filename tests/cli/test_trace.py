"""Traces replayed against the simulator: every request when it is planned, prefix caches hit as the trace says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from oss_eval.simulator.truth_log import read_truth
from tests.conftest import Command
from tests.helpers.commands import only_run

pytestmark = pytest.mark.alone
TRACES = Path(__file__).parents[3] / "shared" / "data" / "traces"


def test_the_demonstration(oss_eval: Command, tmp_path: Path) -> None:
    """It ships with oss-eval; its blocks hit the simulator's prefix cache as often as they can."""
    done = oss_eval(
        "perf", "--url", "sim://instant?prefix-cache=on", "--api", "completions", "--trace", "demo", "--time-scale", "30",
        "--extra-args", '{"ignore_eos": true}', "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    [point] = document["points"]
    trace = json.loads((only_run(tmp_path) / "manifest.json").read_text())["trace"]
    assert point["metrics"]["requests"]["value"] == trace["requests"] == 225
    assert point["metrics"]["prompt_tokens"]["total"] == trace["input_tokens"]
    assert point["metrics"]["completion_tokens"]["total"] == trace["output_tokens"]
    assert trace["theoretical_hit_rate"] > 0.5
    assert point["metrics"]["cached_share"]["value"] == pytest.approx(trace["theoretical_hit_rate"], abs=0.01)
    assert "a cache without limit would have" in done.stderr
    assert point["metrics"]["duration"]["value"] == pytest.approx(trace["seconds"], abs=0.5)


@pytest.mark.skipif(not TRACES.is_dir(), reason="public traces are not here")
def test_mooncakes_blocks_hit_as_they_should(oss_eval: Command, tmp_path: Path) -> None:
    done = oss_eval(
        "perf", "--url", "sim://instant?prefix-cache=on", "--trace", str(TRACES / "mooncake_synthetic_trace.jsonl"),
        "--time-scale", "20", "--limit", "300", "--max-tokens", "4", "--json", timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [point] = json.loads(done.stdout)["points"]
    trace = json.loads((only_run(tmp_path) / "manifest.json").read_text())["trace"]
    assert point["metrics"]["cached_share"]["value"] == pytest.approx(trace["theoretical_hit_rate"], abs=0.01)


@pytest.mark.skipif(not TRACES.is_dir(), reason="public traces are not here")
def test_azures_code_trace_at_sixty_times_its_speed(oss_eval: Command, tmp_path: Path) -> None:
    """Azure LLM inference trace 2023 (Patel et al., Splitwise, ISCA 2024; CC-BY 4.0): its first 20 s, at 147 requests/s."""
    done = oss_eval(
        "perf", "--url", "sim://instant", "--trace", str(TRACES / "AzureLLMInferenceTrace_code.csv"),
        "--time-scale", "60", "--limit", "1500", "--max-tokens", "4", "--json", timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = only_run(tmp_path)
    rows = pd.read_parquet(run / "requests", dtype_backend="pyarrow").query("not warmup")
    truth = read_truth(run / "truth.jsonl")
    received = np.array([truth[f"{run.name}/{name}"].received_ns for name in rows.request_id])
    late = (received - rows.scheduled_ns.to_numpy(dtype=np.int64)) / 1e6
    assert len(rows) == 1500
    assert np.percentile(late, 95) < 5
    assert json.loads(done.stdout)["points"][0]["metrics"]["dispatch_delay_ms"]["p95"] < 5


def test_what_does_not_go_with_a_trace(oss_eval: Command) -> None:
    for arguments, message in {
        ("--trace", "demo", "--rate", "3"): "--trace and --rate exclude each other",
        ("--trace", "nowhere.csv"): "can't read the trace nowhere.csv",
        ("--limit", "3"): "--time-scale and --limit need --trace",
        ("--trace", "demo", "--warmup", "auto"): "all its requests are measured",
    }.items():
        done = oss_eval("perf", "--url", "sim://instant", *arguments)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
