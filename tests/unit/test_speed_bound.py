"""Shares of the bound of the speed: of a run on a real H100, and what is said to limit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oss_eval.analysis.figures import Metric, PointMetrics
from oss_eval.analysis.perf_summary import RunReport, load_run
from oss_eval.analysis.speed_bound import (
    bound_advice,
    bounds,
    deployment,
    gpu_label,
    point_bound,
    recommendations,
    seen_machine,
)
from tests.helpers.commands import ROOT

H100 = ROOT / "results" / "examples" / "h100"


@pytest.fixture(scope="module")
def warm() -> RunReport:
    """gpt-oss-20b's architecture on one H100 with vLLM 0.24: 32 and 64 users, 512 tokens in, 128 out."""
    [path] = H100.glob("*-warm-*")
    return load_run(path)


def metrics(**values: float) -> PointMetrics:
    """Figures by name: `latency_ms__mean`, or `rps`."""
    found = {}
    for name, value in values.items():
        metric, _, stat = name.partition("__")
        found[metric, stat or "value"] = Metric(metric, stat or "value", value, None, None, 100, "")
    return PointMetrics(found)


def test_the_share_of_a_real_run_by_hand(warm: RunReport) -> None:
    found = deployment(warm.manifest)
    assert found is not None
    assert (found.card.name, found.doubt, found.machine.name) == ("gpt-oss-20b", None, "H100-80GB")
    point = next(p for p in warm.points if p.parallel == 64)
    experts = 32 * (1 - (1 - 4 / 32) ** 64)
    context = 512 + 128 / 2
    weights = 2 * (24 * (2880 * 5120 + 4096 * 2880 + 2880 * 32) + 201088 * 2880)
    weights += 24 * experts * 3 * 2880**2 * 4.25 / 8
    cache = 64 * 2 * 8 * 64 * 2 * 12 * (context + 128)
    bound = 64 / ((weights + cache) / 3350e9)
    rate = point.metrics.shown.get("output_tps")
    assert rate is not None
    got = bounds(found, warm.points)[point.point_id]
    assert got.output_tps == pytest.approx(bound, rel=1e-3)
    assert got.share == pytest.approx(rate / bound, rel=1e-3)
    assert (got.work, got.limit) == ("memory", "engine")
    assert 0.8 < (got.gpu_busy or 0) < 1


def test_the_machine_is_the_flag_then_the_label_then_telemetry(warm: RunReport) -> None:
    manifest = {**warm.manifest, "labels": {}}
    points = [p.metrics for p in warm.points]

    def machine(labels: dict[str, str], gpu: str | None) -> str:
        found = deployment({**manifest, "labels": labels, "task": {"gpu": gpu}}, points)
        assert found is not None
        return found.machine.name

    assert machine({"gpu": "A10"}, "L40S-48GBx2") == "L40S-48GBx2"
    assert machine({"gpu": "A10"}, None) == "A10-24GB"
    assert machine({"gpu": "the one in the corner"}, None) == "H100-80GB"
    assert gpu_label(manifest, points) == "H100-80GB"
    assert deployment({**manifest, "model": "gpt-4o"}) is None
    assert deployment({"model": "gpt-oss-20b"}) is None


def test_only_gpus_that_had_work_count(warm: RunReport) -> None:
    eight = {"gpu_telemetry": {"gpus": [{"name": "NVIDIA H100 80GB HBM3"}] * 8}}
    both = seen_machine(eight, [metrics(gpu_count=2.0)])
    assert both is not None
    assert both.name == "H100-80GBx2"
    assert seen_machine(eight, [metrics(gpu_count=0.0)]) is None  # the model ran elsewhere
    assert seen_machine({**eight, "endpoint": {"local": {"slots": 1}}}, []) is None
    assert gpu_label({"gpu_telemetry": {"gpus": [{"name": "A card of 2030"}] * 2}}, []) == "A card of 2030"


@pytest.mark.parametrize(
    ("share", "busy", "warning", "limit"),
    [
        (0.3, None, None, "engine"),
        (0.3, 0.97, None, "engine"),
        (0.3, 0.4, None, "host"),
        (0.7, 0.97, None, "memory"),
        (0.7, 0.97, "starved", "client"),
        (1.3, 0.97, None, "above bound"),
        (0.3, None, "leaked", "engine"),
    ],
)
def test_what_limits(warm: RunReport, share: float, busy: float | None, warning: str | None, limit: str) -> None:
    found = deployment(warm.manifest)
    assert found is not None
    given = {"prompt_tokens__mean": 512.0, "completion_tokens__mean": 128.0, "output_tps": 1.0}
    given |= {} if busy is None else {"gpu_utilization__mean": busy}
    checks = [{"kind": warning, "level": "warn", "message": ""}] if warning else []
    one = point_bound(found, metrics(**given), 32, [])
    assert one is not None
    got = point_bound(found, metrics(**{**given, "output_tps": share * one.output_tps}), 32, checks)
    assert got is not None
    assert got.share == pytest.approx(share)
    assert got.limit == limit


def test_an_open_loop_has_the_batch_of_littles_law_and_drafts_raise_the_bound(warm: RunReport) -> None:
    found = deployment(warm.manifest)
    assert found is not None
    given = {"prompt_tokens__mean": 512.0, "completion_tokens__mean": 128.0, "output_tps": 500.0}
    closed = point_bound(found, metrics(**given), 8, None)
    opened = point_bound(found, metrics(**given, rps=4.0, latency_ms__mean=2000.0), None, None)
    drafted = point_bound(found, metrics(**given, accepted_length__mean=2.5), 8, None)
    assert closed is not None
    assert opened is not None
    assert drafted is not None
    assert opened.output_tps == pytest.approx(closed.output_tps)
    assert closed.output_tps < drafted.output_tps <= 2.5 * closed.output_tps
    assert point_bound(found, metrics(**given), None, None) is None
    assert point_bound(found, metrics(output_tps=5.0), 8, None) is None


def test_the_recommendation_says_what_limits(warm: RunReport) -> None:
    lines = recommendations(warm.manifest, warm.points)
    [line] = [line for line in lines if "bound" in line]
    assert line.startswith("64 users: 40% of the memory bound")
    assert line.endswith("the engine, not the GPU, is the limit")
    found = deployment({**warm.manifest, "model": "gpt-oss-20b-Q4_K_M.gguf"})
    assert found is not None
    assert "weights in int4, as its name says" in " ".join(bound_advice(found, warm.points))
    slow = replace(found, machine=found.machine.model_copy(update={"card": found.machine.card.model_copy(
        update={"bandwidth_gb_s": 300.0})}))  # fmt: skip
    assert "above the bound" in " ".join(bound_advice(slow, warm.points))
