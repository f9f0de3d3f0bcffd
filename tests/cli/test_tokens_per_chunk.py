"""Servers that send several tokens in a chunk: TPOT, token gaps and rates against the server's own log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from oss_eval.results.manifest import read_manifest
from oss_eval.results.reader import find_run
from oss_eval.simulator.process import running
from oss_eval.simulator.truth_log import read_truth
from tests.helpers.commands import Command
from tests.helpers.scripted_server import (
    GOOD,
    ScriptedServer,
    body_of,
    json_reply,
    talking,
)

pytestmark = pytest.mark.alone

SWEEP = ("--parallel", "8", "--number", "24", "--max-tokens", "64", "--prompt", "Hi")
PLAIN_USAGE = ("--extra-args", '{"ignore_eos": true, "stream_options": {"include_usage": true}}')


def measured(
    oss_eval: Command, folder: Path, per_chunk: str, *more: str
) -> tuple[pd.DataFrame, dict[str, Any], dict[str, Any]]:
    """Rows with the true `token_ns` and `chunk_tokens`, the point's figures, and its JSON."""
    log = folder / "truth.jsonl"
    with running(f"sim://paced?rate=100&ttft=50&tokens-per-chunk={per_chunk}", truth=log) as url:
        done = oss_eval("perf", "--url", url, *SWEEP, *more, "--json")
    assert done.returncode == 0, done.stderr
    [point] = json.loads(done.stdout)["points"]
    run = find_run("last", folder / "results")
    rows = pd.read_parquet(run / "requests")
    rows = rows[~rows.warmup].sort_values("request_id")
    truth = {name.removeprefix(run.name + "/"): row for name, row in read_truth(log).items()}
    rows["token_ns"] = [np.array(truth[name].token_ns) for name in rows.request_id]
    rows["chunk_tokens"] = [truth[name].chunk_tokens for name in rows.request_id]
    return rows, point["metrics"], point


@pytest.mark.parametrize("per_chunk", ["1", "2", "4", "8", "1-8"])
def test_tpot_and_gaps_with_counted_chunks(oss_eval: Command, tmp_path: Path, per_chunk: str) -> None:
    rows, figures, point = measured(oss_eval, tmp_path, per_chunk, "--extra-args", '{"ignore_eos": true}')
    first = [tokens[0] for tokens in rows.chunk_tokens]
    if per_chunk == "1":  # a server should not have to count what is one
        assert rows.event_tokens.isna().all()
    else:
        assert [list(tokens) for tokens in rows.event_tokens] == list(rows.chunk_tokens)
        assert list(rows.first_event_tokens) == first
    # The true time between tokens, from the first one to the last, whichever chunk they came in.
    step = np.mean([(t[-1] - t[0]) / (len(t) - 1) for t in rows.token_ns]) / 1e6
    tpot = np.mean([(t[-1] - t[k - 1]) / (len(t) - k) for t, k in zip(rows.token_ns, first, strict=True)]) / 1e6
    assert figures["tpot_ms"]["mean"] == pytest.approx(tpot, rel=0.01)
    assert figures["tpot_ms"]["mean"] == pytest.approx(step, rel=0.01)
    assert figures["itl_ms"]["mean"] == pytest.approx(step, rel=0.01)
    assert figures["itl_ms"]["n"] == sum(len(t) - k for t, k in zip(rows.token_ns, first, strict=True))
    span = (max(t[-1] for t in rows.token_ns) - rows.start_ns.min()) / 1e9
    assert figures["output_tps"]["value"] == pytest.approx(64 * 24 / span, rel=0.01)
    assert "chunks" not in [check["kind"] for check in point["checks"]]
    if per_chunk != "1":
        sizes = np.concatenate(list(rows.chunk_tokens))
        assert figures["tokens_per_chunk"]["max"] == sizes.max()
        assert figures["tokens_per_chunk"]["p50"] == np.percentile(sizes, 50)
        assert figures["chunk_gap_ms"]["mean"] == pytest.approx(step * sizes.mean(), rel=0.1)
    run = find_run("last", tmp_path / "results")
    assert read_manifest(run)["request"]["continuous_usage"] is (per_chunk != "1")


@pytest.mark.parametrize("per_chunk", ["1", "8"])
def test_uncounted_chunks_are_named_with_the_error(oss_eval: Command, tmp_path: Path, per_chunk: str) -> None:
    """stream_options of the user's own stay as they are."""
    rows, figures, point = measured(oss_eval, tmp_path, per_chunk, *PLAIN_USAGE)
    assert rows.event_tokens.isna().all()
    assert rows.first_event_tokens.isna().all()
    found = [check["message"] for check in point["checks"] if check["kind"] == "chunks"]
    if per_chunk == "1":
        assert not found
        return
    assert "8.00 tokens a chunk" in found[0]
    assert "11.1% too low" in found[0]  # 7 / 63
    step = np.mean([(t[-1] - t[0]) / (len(t) - 1) for t in rows.token_ns]) / 1e6
    assert figures["tpot_ms"]["mean"] == pytest.approx(step * 56 / 63, rel=0.01)


def test_reasoning_and_answer_in_one_chunk(oss_eval: Command, tmp_path: Path) -> None:
    """The chunk in which the answer begins holds the end of the reasoning too."""
    log = tmp_path / "truth.jsonl"
    with running("sim://gpt-oss-20b-h20?speed=20&tokens-per-chunk=5", truth=log) as url:
        done = oss_eval(
            "perf", "--url", url, "--parallel", "4", "--number", "12", "--reasoning-effort", "low",
            "--prompt", "Hi", "--max-tokens", "2000", "--json",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["points"][0]["metrics"]
    rows = pd.read_parquet(find_run("last", tmp_path / "results") / "requests")
    rows = rows[~rows.warmup & rows.first_answer_ns.notna() & (rows.reasoning_tokens > 5)]
    assert len(rows) >= 6
    assert list(rows.tokens_to_answer) == [5 * (n // 5 + 1) for n in rows.reasoning_tokens]
    rates = (rows.tokens_to_answer - rows.first_event_tokens) / (rows.first_answer_ns - rows.first_token_ns) * 1e9
    assert figures["reasoning_tps"]["mean"] == pytest.approx(rates.mean(), rel=1e-4)
    assert figures["reasoning_ms"]["n"] == len(rows)


REFUSALS = {
    "named": ("400 Bad Request", "Unknown parameter: 'stream_options.continuous_usage_stats'."),
    "another field": ("422 Unprocessable Entity", "Extra inputs are not permitted: stream_options"),
    "no reason": ("400 Bad Request", "invalid request"),
    "crash": ("500 Internal Server Error", "oops"),
}


@pytest.mark.parametrize("kind", [*REFUSALS, "ignored"])
def test_a_server_that_does_not_count_chunks_is_measured(oss_eval: Command, tmp_path: Path, kind: str) -> None:
    def answer(body: dict[str, Any]) -> bytes:
        options = body.get("stream_options", {})
        if kind in REFUSALS and ("continuous_usage_stats" in options or (kind == "another field" and options)):
            status, words = REFUSALS[kind]
            return json_reply(json.dumps({"error": {"message": words}}).encode(), status)
        return GOOD

    with ScriptedServer(talking(answer)) as server:
        done = oss_eval("perf", "--url", server.url, "--parallel", "2", "--number", "4", "--prompt", "Hi")
        sent = [body_of(r) for r in server.requests if r.startswith(b"POST")]
    assert done.returncode == 0, done.stderr
    assert sent[0]["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    left = None if kind == "another field" else {"include_usage": True}
    assert [body.get("stream_options") for body in sent[-4:]] == [left] * 4
    rows = pd.read_parquet(find_run("last", tmp_path / "results") / "requests")
    assert list(rows[~rows.warmup].status) == ["ok"] * 4


def test_a_refusal_for_another_reason_is_told(oss_eval: Command) -> None:
    refusal = json_reply(b'{"error":{"message":"the prompt is against the rules"}}', "400 Bad Request")
    with ScriptedServer(talking(lambda body: refusal)) as server:
        done = oss_eval("perf", "--url", server.url, "--parallel", "1", "--prompt", "Hi")
    assert done.returncode == 2
    assert "the prompt is against the rules" in done.stderr
