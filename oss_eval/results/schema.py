"""The columns of stored tables. Every file carries `oss_eval.schema_version`; columns are added, not changed."""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 1

_word = pa.dictionary(pa.int32(), pa.string())

REQUESTS = pa.schema(
    [
        ("run_id", _word), ("point_id", _word), ("request_id", pa.string()), ("worker", pa.int16()),
        ("warmup", pa.bool_()), ("attempt", pa.int16()),
        ("model", _word), ("reasoning_effort", _word), ("parallel", pa.int32()), ("rate", pa.float64()),
        ("scheduled_ns", pa.int64()), ("start_ns", pa.int64()), ("headers_ns", pa.int64()),
        ("first_token_ns", pa.int64()), ("first_token_low_ns", pa.int64()), ("first_answer_ns", pa.int64()),
        ("last_token_ns", pa.int64()), ("end_ns", pa.int64()),
        ("event_ns", pa.list_(pa.int64())), ("event_tokens", pa.list_(pa.int32())),
        ("first_event_tokens", pa.int32()), ("tokens_to_answer", pa.int32()),
        ("prompt_tokens", pa.int32()), ("completion_tokens", pa.int32()), ("reasoning_tokens", pa.int32()),
        ("cached_tokens", pa.int32()), ("token_source", _word), ("n_events", pa.int32()), ("n_shared", pa.int32()),
        ("status", _word), ("error_kind", _word), ("http_status", pa.int16()), ("error_message", pa.string()),
        ("finish_reason", _word),
        ("clock_source", _word), ("client_lag_p50_ns", pa.int64()), ("client_lag_max_ns", pa.int64()),
        ("sample_id", _word), ("epoch", pa.int32()), ("conversation", pa.int32()), ("turn", pa.int16()),
        ("leaked", pa.bool_()), ("server_timings", pa.string()), ("url", _word), ("session", pa.int16()),
    ],
    metadata={"oss_eval.schema_version": str(SCHEMA_VERSION)},
)  # fmt: skip

SAMPLES = pa.schema(
    [
        ("run_id", _word), ("point_id", _word), ("request_id", pa.string()), ("task", _word), ("subset", _word),
        ("sample_id", _word), ("epoch", pa.int32()), ("reasoning_effort", _word), ("model", _word),
        ("prompt", pa.string()), ("response", pa.string()), ("reasoning", pa.string()), ("target", pa.string()),
        ("answer", pa.string()), ("score", pa.float64()), ("correct", pa.bool_()),
        ("unscored_reason", pa.string()), ("route", _word), ("second_score", pa.float64()),
        ("leaked", pa.bool_()), ("metrics", pa.string()),
        ("finish_reason", _word), ("truncated", pa.bool_()), ("attempts", pa.int16()), ("turns", pa.int16()),
        ("waited_ms", pa.float64()),
        ("prompt_tokens", pa.int32()), ("completion_tokens", pa.int32()), ("reasoning_tokens", pa.int32()),
        ("ttft_ms", pa.float64()), ("ttfa_ms", pa.float64()), ("tpot_ms", pa.float64()),
        ("latency_ms", pa.float64()), ("start_ns", pa.int64()), ("end_ns", pa.int64()),
        ("status", _word), ("error_kind", _word), ("http_status", pa.int16()), ("error_message", pa.string()),
        ("token_source", _word),
    ],
    metadata={"oss_eval.schema_version": str(SCHEMA_VERSION)},
)  # fmt: skip

SERVER_METRICS = pa.schema(
    [
        ("run_id", _word), ("point_id", _word), ("session", pa.int16()), ("server", pa.int16()),
        ("time_ns", pa.int64()), ("moment", _word), ("metric", _word), ("value", pa.float64()),
    ],
    metadata={"oss_eval.schema_version": str(SCHEMA_VERSION)},
)  # fmt: skip
"""The server's own metrics by standard name: one row a metric and reading. `moment`: begin or end of the point,
null in between."""

GPU_TELEMETRY = pa.schema(
    [
        ("run_id", _word), ("point_id", _word), ("session", pa.int16()), ("gpu", pa.int16()),
        ("time_ns", pa.int64()), ("power_w", pa.float64()), ("energy_j", pa.float64()),
        ("utilization", pa.float64()), ("memory_mb", pa.float64()), ("clock_mhz", pa.float64()),
        ("temperature_c", pa.float64()), ("throttle_reasons", pa.int64()),
    ],
    metadata={"oss_eval.schema_version": str(SCHEMA_VERSION)},
)  # fmt: skip
"""The server's GPUs: one row a GPU and reading. `energy_j`: the GPU's counter."""

SUMMARY = pa.schema(
    [
        ("run_id", _word), ("point_id", _word), ("kind", _word), ("task", _word), ("model", _word),
        ("subset", _word),
        ("reasoning_effort", _word), ("parallel", pa.int32()), ("rate", pa.float64()), ("number", pa.int32()),
        ("metric", _word), ("stat", _word), ("value", pa.float64()), ("ci_low", pa.float64()),
        ("ci_high", pa.float64()), ("n", pa.int64()), ("unit", _word),
    ],
    metadata={"oss_eval.schema_version": str(SCHEMA_VERSION)},
)  # fmt: skip
