"""The servers' own metrics: names of each engine, and what is computed from them.

The texts have the shape of the engines' documentation: vLLM https://docs.vllm.ai/en/v0.32.0/usage/metrics/ and
https://docs.vllm.ai/en/v0.8.5/serving/metrics.html, SGLang
https://docs.sglang.io/references/production_metrics.html, llama.cpp's server README, TGI's metrics page.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from oss_eval.analysis.server_view import server_figures
from oss_eval.endpoint.server_metrics import read_metrics
from oss_eval.results.schema import SERVER_METRICS

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 7.0
vllm:num_requests_running{engine="1",model_name="m"} 5.0
vllm:num_requests_running{engine="0",model_name="other"} 99.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.5
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.25
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="m"} 1.2e+06
vllm:generation_tokens_created{engine="0",model_name="m"} 1.7e+09
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="m"} 0.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="m"} 40.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="m"} 40.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="m"} 2.5
vllm:spec_decode_num_drafts_total{engine="0",model_name="m"} 10.0
process_resident_memory_bytes 6.1e+09
"""


def test_vllm() -> None:
    assert read_metrics(VLLM, "m") == {
        "running": 12, "kv_usage": 0.375, "output_tokens": 1.2e6, "ttft_s_sum": 2.5, "ttft_s_count": 40, "drafts": 10,
    }  # fmt: skip
    assert read_metrics(VLLM, "other")["running"] == 99
    assert read_metrics(VLLM, "an alias")["running"] == 111


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('vllm:gpu_cache_usage_perc{model_name="m"} 0.4\nvllm:gpu_prefix_cache_hits_total{model_name="m"} 3\n',
         {"kv_usage": 0.4, "prefix_hits": 3}),
        # During a change of names a server has both: the newer one counts, not their sum.
        ('vllm:gpu_cache_usage_perc{model_name="m"} 0.4\nvllm:kv_cache_usage_perc{model_name="m"} 0.3\n',
         {"kv_usage": 0.3}),
        ('sglang:num_running_reqs{model_name="m"} 4\nsglang:num_queue_reqs{model_name="m"} 2\n'
         'sglang:token_usage{model_name="m"} 0.28\nsglang:time_to_first_token_seconds_sum{model_name="m"} 2.35e+06\n'
         'sglang:time_to_first_token_seconds_count{model_name="m"} 11008.0\nsglang:spec_accept_length{model_name="m"} 2.9\n',
         {"running": 4, "waiting": 2, "kv_usage": 0.28, "ttft_s_sum": 2.35e6, "ttft_s_count": 11008,
          "accepted_length": 2.9}),
        ("llamacpp:prompt_tokens_total 120\nllamacpp:tokens_predicted_total 512\nllamacpp:requests_processing 1\n"
         "llamacpp:requests_deferred 0\nllamacpp:tokens_predicted_seconds_total 4.5\n",
         {"prompt_tokens": 120, "output_tokens": 512, "running": 1, "waiting": 0, "output_busy_s": 4.5}),
        ("tgi_queue_size 3\ntgi_request_duration_sum 12.5\ntgi_request_duration_count 5\n",
         {"waiting": 3, "latency_s_sum": 12.5, "latency_s_count": 5}),
        ('vllm:num_requests_running{model_name="m"} NaN\nvllm:num_requests_waiting{model_name="m"} 1\n', {"waiting": 1}),
        ("", {}), ("<html>no metrics</html>", {}), ('{"data": []}', {}), ("vllm:num_requests_running{ 7\n", {}),
        ("vllm:num_requests_running{model_name=\"m\"} seven\n", {}), ("vllm:renamed_running 7\n", {}),
    ],
)  # fmt: skip
def test_other_engines_and_shapes(text: str, expected: dict[str, float]) -> None:
    assert read_metrics(text, "m") == expected


def rows(**moments: list[dict[str, float]]) -> pa.Table:
    """Readings by moment; those of `during` are a second apart."""
    data: list[dict[str, Any]] = []
    for moment, readings in moments.items():
        for time_ns, values in enumerate(readings):
            data += [
                {"run_id": "r", "point_id": "p", "session": 1, "server": 0, "time_ns": time_ns, "metric": metric,
                 "moment": None if moment == "during" else moment, "value": value}
                for metric, value in values.items()
            ]  # fmt: skip
    return pa.Table.from_pylist(data, schema=SERVER_METRICS)


HISTOGRAMS = {"ttft_s_sum": 1.0, "ttft_s_count": 10, "latency_s_sum": 20.0, "latency_s_count": 10}
LATER = {"ttft_s_sum": 3.0, "ttft_s_count": 30, "latency_s_sum": 60.0, "latency_s_count": 30}


def test_means_and_differences_are_those_of_the_point() -> None:
    found = server_figures(rows(begin=[HISTOGRAMS], end=[LATER]), 20, {"ttft": 101.5, "latency": 2004.0})
    assert found["server_ttft_ms", "mean"] == (pytest.approx(100), 20, "ms")
    assert found["server_ttft_difference_ms", "mean"] == (pytest.approx(1.5), 20, "ms")
    assert found["server_latency_difference_ms", "mean"] == (pytest.approx(4.0), 20, "ms")
    others = server_figures(rows(begin=[HISTOGRAMS], end=[LATER]), 19, {"ttft": 101.5, "latency": 2004.0})
    assert others["server_requests", "value"][0] == 20
    assert ("server_ttft_difference_ms", "mean") not in others


def test_speculation_caches_and_load() -> None:
    begin = {"drafts": 100, "draft_tokens": 300, "accepted_tokens": 150, "prefix_queries": 10, "prefix_hits": 0}
    end = {"drafts": 200, "draft_tokens": 600, "accepted_tokens": 390, "prefix_queries": 110, "prefix_hits": 25}
    found = server_figures(
        rows(begin=[begin], end=[end], during=[{"running": 2, "kv_usage": 0.1}, {"running": 6, "kv_usage": 0.3}]),
        1, {},
    )  # fmt: skip
    assert found["acceptance_rate", "value"][0] == pytest.approx(0.8)
    assert found["accepted_length", "mean"][0] == pytest.approx(3.4)
    assert found["server_prefix_hits", "value"][0] == 0.25
    assert found["server_running", "mean"][0] == 4
    assert found["server_running", "max"][0] == 6
    assert found["server_kv_usage", "mean"][0] == pytest.approx(0.2)


def test_a_server_that_was_restarted_has_no_means() -> None:
    found = server_figures(rows(begin=[LATER], end=[HISTOGRAMS]), 20, {"ttft": 101.5, "latency": 2004.0})
    assert not found
    assert not server_figures(rows(begin=[LATER]), 20, {"ttft": 101.5})
