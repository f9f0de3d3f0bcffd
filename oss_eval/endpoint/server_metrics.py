"""The server's own metrics (Prometheus text), read once a second and at the begin and the end of each point.

Names and meanings: vLLM https://docs.vllm.ai/en/latest/usage/metrics/ (older names:
https://docs.vllm.ai/en/v0.8.5/serving/metrics.html), SGLang https://docs.sglang.io/references/production_metrics.html,
TGI https://huggingface.co/docs/text-generation-inference/reference/metrics, llama.cpp
https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md (--metrics).
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from oss_eval.endpoint.auth import Auth
from oss_eval.endpoint.background_reader import TIMEOUT_SECONDS, BackgroundReader
from oss_eval.endpoint.endpoint import Endpoint
from oss_eval.endpoint.http import get
from oss_eval.records import SERVER_SHARES
from oss_eval.system.redact import public_url

INTERVAL_SECONDS = 1.0
RETRIES, RETRY_SECONDS = 3, 0.2
"""At the end of a point, while the server has not noted all answers."""

HISTOGRAMS = {
    "ttft_s": ("vllm:time_to_first_token_seconds", "sglang:time_to_first_token_seconds"),
    "latency_s": (
        "vllm:e2e_request_latency_seconds", "sglang:e2e_request_latency_seconds", "tgi_request_duration",
    ),
    "queue_s": ("vllm:request_queue_time_seconds", "sglang:queue_time_seconds", "tgi_request_queue_duration"),
    "prefill_s": ("vllm:request_prefill_time_seconds",),
    "decode_s": ("vllm:request_decode_time_seconds",),
}  # fmt: skip
"""Standard name of a duration in seconds: the servers' histograms. Stored as its `_sum` and `_count`."""
COUNTERS = {
    "prompt_tokens": ("vllm:prompt_tokens_total", "sglang:prompt_tokens_total", "llamacpp:prompt_tokens_total"),
    "output_tokens": (
        "vllm:generation_tokens_total", "sglang:generation_tokens_total", "llamacpp:tokens_predicted_total",
        "tgi_request_generated_tokens_sum",
    ),
    "prefix_queries": ("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"),
    "prefix_hits": (
        "vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total", "sglang:cached_tokens_total",
    ),
    "preemptions": ("vllm:num_preemptions_total",),
    "drafts": ("vllm:spec_decode_num_drafts_total",),
    "draft_tokens": ("vllm:spec_decode_num_draft_tokens_total",),
    "accepted_tokens": ("vllm:spec_decode_num_accepted_tokens_total",),
    "prompt_busy_s": ("llamacpp:prompt_seconds_total",),
    "output_busy_s": ("llamacpp:tokens_predicted_seconds_total",),
}  # fmt: skip
GAUGES = {
    "running": (
        "vllm:num_requests_running", "sglang:num_running_reqs", "llamacpp:requests_processing",
        "tgi_batch_current_size",
    ),
    "waiting": (
        "vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred", "tgi_queue_size",
    ),
    "kv_usage": (
        "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage",
        "llamacpp:kv_cache_usage_ratio",
    ),
    "accepted_length": ("sglang:spec_accept_length",),
}  # fmt: skip

_STANDARD = {name: standard for table in (COUNTERS, GAUGES) for standard, names in table.items() for name in names}
_STANDARD |= {
    f"{name}_{end}": f"{standard}_{end}"
    for standard, names in HISTOGRAMS.items()
    for name in names
    for end in ("sum", "count")
}
_LINES = re.compile(r"(?m)^(?:" + "|".join(map(re.escape, _STANDARD)) + r")[ {].*$")


def read_metrics(text: str, model: str) -> dict[str, float]:
    """The metrics in Prometheus text, by standard name. Unknown ones, and those that are no numbers, are left out.

    Several engines are added up. Where the metrics of several models are there, those of `model` count.
    """
    from prometheus_client.parser import text_string_to_metric_families

    # A server's text is large because of its histograms' buckets; the parser gets only what is used.
    lines = "\n".join(_LINES.findall(text)) + "\n"
    found: dict[str, list[tuple[str, dict[str, str], float]]] = {}
    try:
        for family in text_string_to_metric_families(lines):
            for sample in family.samples:
                if sample.value == sample.value:  # not NaN
                    standard = _STANDARD[sample.name]
                    found.setdefault(standard, []).append((sample.name, sample.labels, float(sample.value)))
    except (ValueError, KeyError, IndexError, TypeError):
        return {}
    values: dict[str, float] = {}
    for standard, samples in found.items():
        own = [sample for sample in samples if sample[1].get("model_name") == model] or samples
        newest = min((name for name, _, _ in own), key=list(_STANDARD).index)  # a server may have both names
        numbers = [value for name, _, value in own if name == newest]
        values[standard] = sum(numbers) / (len(numbers) if standard in SERVER_SHARES else 1)
    return values


@dataclass(frozen=True, slots=True)
class Reading:
    """One metric at one time. `moment`: `begin` or `end` of the point, or None in between."""

    point_id: str
    server: int
    time_ns: int
    moment: str | None
    metric: str
    value: float


def metrics_endpoints(endpoints: Sequence[Endpoint], setting: str) -> list[Endpoint]:
    """Where the metrics are: /metrics beside each API, or the URL given. Keys go to the API's own host only."""
    if setting == "off":
        return []
    if setting == "auto":
        return [replace(endpoint, base=urlsplit(f"{endpoint.root}/metrics")) for endpoint in endpoints]
    place, first = urlsplit(setting), endpoints[0]
    own = (place.scheme, place.netloc) == (first.base.scheme, first.base.netloc)
    return [replace(first, base=place) if own else replace(first, base=place, auth=Auth(), headers=())]


class MetricsReader(BackgroundReader):
    """Reads the metrics in a thread of its own. A server without them, or whose metrics fail, changes nothing."""

    name = "server-metrics"

    def __init__(self, endpoints: Sequence[Endpoint], model: str) -> None:
        super().__init__()
        self._endpoints, self._model = endpoints, model
        self._readings: list[Reading] = []
        self._answers_before: float | None = None

    def start(self) -> bool:
        """Read once; whether there are any metrics. If so, they are read every second from now on."""
        if not self._endpoints or not self._read_all():
            return False
        self._start(INTERVAL_SECONDS)
        return True

    def begin(self, point_id: str) -> None:
        """A point begins."""
        values = self._read_now()
        self._answers_before = _answers(values)
        self._note(point_id, "begin", values)
        self._point = point_id

    def end(self, point_id: str, requests: int) -> list[Reading]:
        """A point has ended, after this many answers; its readings.

        A server may note an answer a moment after its last byte, so it is asked again until it has noted all.
        """
        self._point = None
        values = self._read_now()
        for _ in range(RETRIES):
            noted = _answers(values)
            if noted is None or self._answers_before is None or noted - self._answers_before >= requests:
                break
            time.sleep(RETRY_SECONDS)
            values = self._read_now() or values
        self._note(point_id, "end", values)
        with self._lock:
            readings, self._readings = self._readings, []
        return readings

    def _read_now(self) -> dict[int, dict[str, float]]:
        """The metrics at a boundary; none where they are not read, or no more."""
        return self._read_all() if self._reading else {}

    def _read_next(self) -> None:
        point_id = self._point
        if point_id is not None:
            values = self._read_all()
            if point_id == self._point:  # it may have ended meanwhile
                self._note(point_id, None, values)

    def _note(self, point_id: str, moment: str | None, values: dict[int, dict[str, float]]) -> None:
        now = time.time_ns()
        with self._lock:
            self._readings += [
                Reading(point_id, server, now, moment, metric, value)
                for server, metrics in values.items()
                for metric, value in metrics.items()
            ]

    def _read_all(self) -> dict[int, dict[str, float]]:
        """The metrics of all servers; none if one of them does not answer, as sums would be wrong."""
        found: dict[int, dict[str, float]] = {}
        for number, endpoint in enumerate(self._endpoints):
            metrics = self._read(endpoint)
            if not metrics:
                return {}
            found[number] = metrics
        return found

    def _read(self, endpoint: Endpoint) -> dict[str, float]:
        url = endpoint.redact(public_url(endpoint.base.geturl()))
        try:
            reply = get(endpoint, endpoint.base.geturl(), TIMEOUT_SECONDS)
            metrics = read_metrics(reply.body.decode("utf-8", "replace"), self._model)
            problem = None if metrics else f"{url} has no metric that oss-eval knows"
        except Exception as error:  # noqa: BLE001 (whatever happens to the metrics, the run goes on)
            metrics, problem = {}, endpoint.redact(f"{url}: {type(error).__name__}: {error}"[:300])
        if problem is None:
            self._note_success()
        else:
            self._note_failure(problem)
        return metrics


def _answers(values: dict[int, dict[str, float]]) -> float | None:
    """The answers that the servers have noted, if they say."""
    counts = [metrics["latency_s_count"] for metrics in values.values() if "latency_s_count" in metrics]
    return sum(counts) if counts else None


def as_columns(readings: list[Reading], run_id: str, session: int) -> dict[str, list[Any]]:
    """Readings as columns of the stored table."""
    names = ("point_id", "server", "time_ns", "moment", "metric", "value")
    columns: dict[str, list[Any]] = {name: [getattr(r, name) for r in readings] for name in names}
    return {"run_id": [run_id] * len(readings), "session": [session] * len(readings), **columns}
