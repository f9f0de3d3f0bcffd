"""Sweeps with the server's own metrics beside them, and with metrics that fail."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from oss_eval.results.reader import find_run
from oss_eval.simulator.process import running
from oss_eval.simulator.truth_log import read_truth
from tests.helpers.commands import Command
from tests.helpers.scripted_server import (
    GOOD,
    MODELS,
    ScriptedServer,
    Step,
    text_reply,
)

pytestmark = pytest.mark.alone


def test_the_server_and_the_client_agree(oss_eval: Command, tmp_path: Path) -> None:
    log = tmp_path / "truth.jsonl"
    with running("sim://gpt-oss-20b-h20", truth=log) as url:
        done = oss_eval(
            "perf", "--url", url, "--parallel", "4", "8", "--number", "8", "16", "--prompt", "Hi",
            "--max-tokens", "200", "--json",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = find_run("last", tmp_path / "results")
    truth = read_truth(log)
    for point in json.loads(done.stdout)["points"]:
        name, figures = point["point_id"], point["metrics"]
        own = [row for key, row in truth.items() if key.startswith(f"{run.name}/{name}/")]
        assert len(own) == point["number"] == figures["server_requests"]["value"]
        ttft = sum(row.token_ns[0] - row.received_ns for row in own) / len(own) / 1e6
        assert figures["server_ttft_ms"]["mean"] == pytest.approx(ttft, rel=1e-6)
        assert figures["server_output_tokens"]["total"] == figures["completion_tokens"]["total"]
        for metric in ("ttft", "latency"):
            difference = figures[f"server_{metric}_difference_ms"]["mean"]
            assert difference == pytest.approx(
                figures[f"{metric}_ms"]["mean"] - figures[f"server_{metric}_ms"]["mean"]
            )
            assert -1 < difference < 5
        assert figures["server_running"]["max"] == point["parallel"]
    assert "Server metrics" in done.stderr
    stored = pd.read_parquet(run / "server_metrics")
    assert set(stored.moment.dropna()) == {"begin", "end"}
    assert stored[stored.moment.isna()].time_ns.nunique() >= 2
    assert oss_eval("fsck", "last").returncode == 0
    assert "Server metrics" in oss_eval("show", "last").stdout
    damaged = sorted((run / "server_metrics").iterdir())[0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    checked = oss_eval("fsck", "last")
    assert checked.returncode != 0
    assert f"server_metrics/{damaged.name}" in checked.stdout
    assert oss_eval("show", "last").returncode == 0


@pytest.mark.parametrize("kind", ["stalls", "500", "other names", "html", "none", "stops after the first"])
def test_metrics_that_fail_change_nothing(oss_eval: Command, tmp_path: Path, kind: str) -> None:
    asked: list[int] = []

    def script(number: int, request: bytes) -> Sequence[Step]:
        if request.startswith(b"GET /metrics"):
            asked.append(number)
            if kind == "stalls":
                time.sleep(30)
            if kind == "500" or (kind == "stops after the first" and len(asked) > 1):
                return [text_reply(b"oops", b"500 Internal Server Error")]
            if kind == "none":
                return [text_reply(b"", b"404 Not Found")]
            body = {"html": b"<html>", "other names": b"vllm:running_requests_v2 3\n"}
            return [text_reply(body.get(kind, b"vllm:num_requests_running 3\nvllm:num_requests_waiting 0\n"))]
        return [MODELS] if request.startswith(b"GET") else [GOOD]

    with ScriptedServer(script) as server:
        begun = time.monotonic()
        words = ("perf", "--url", server.url, "--parallel", "2", "--number", "6", "--prompt", "Hi")
        done = oss_eval(*words, "--json")
        seconds = time.monotonic() - begun
        assert asked
        asked.clear()
        told = oss_eval(*words, "--server-metrics", f"{server.url.removesuffix('/v1')}/metrics")
    assert (done.returncode, told.returncode) == (0, 0), done.stderr + told.stderr
    assert seconds < 15
    figures = json.loads(done.stdout)["points"][0]["metrics"]
    assert figures["success_rate"]["value"] == 1
    assert "server_ttft_ms" not in figures
    assert ("no server metrics" in told.stderr) == (kind != "stops after the first")
    assert oss_eval("fsck", "last").returncode == 0


def test_off_asks_for_nothing_and_a_key_stays_with_its_host(oss_eval: Command) -> None:
    def script(number: int, request: bytes) -> Sequence[Step]:
        if request.startswith(b"GET /metrics"):
            return [text_reply(b"vllm:num_requests_running 3\n")]
        return [MODELS] if request.startswith(b"GET") else [GOOD]

    with ScriptedServer(script) as server, ScriptedServer(script) as other:
        words = ("perf", "--url", server.url, "--api-key", "sk-hidden-key", "--parallel", "1", "--prompt", "Hi")
        assert oss_eval(*words, "--number", "2", "--server-metrics", "off").returncode == 0
        assert not [r for r in server.requests if b"/metrics" in r]
        away = f"{other.url.removesuffix('/v1')}/metrics"
        assert oss_eval(*words, "--number", "2", "--server-metrics", away).returncode == 0
        assert other.requests
        assert not [r for r in other.requests if b"sk-hidden" in r]
        refused = oss_eval(*words, "--server-metrics", "localhost/metrics")
    assert refused.returncode == 2
    assert "--server-metrics localhost/metrics is not auto, off or an http(s) URL" in refused.stderr
