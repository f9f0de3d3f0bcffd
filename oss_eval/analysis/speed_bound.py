"""Each point's share of the bound that the machine's bandwidth and arithmetic set, and what binds instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from oss_eval.analysis.advice import NO_ADVICE, advise
from oss_eval.analysis.figures import PointMetrics
from oss_eval.analysis.perf_summary import PointReport
from oss_eval.errors import UsageError
from oss_eval.models import roofline
from oss_eval.models.card import ModelCard, find_card
from oss_eval.models.machine import Machine, get_machine, machine_of

NEAR = 0.6
"""From this share of the bound on, the bound itself is what limits: kernels rarely reach more than 60-80% of the
memory bandwidth of the data sheet."""
BUSY = 0.8
"""A GPU that works for a smaller share of the time waits for the host."""
ENGINE, HOST, CLIENT, ABOVE = "engine", "host", "client", "above bound"
CLIENT_CHECKS = ("client_lag", "shared_reads", "starved", "stall", "held_back")
"""Kinds of warnings that say that this client held the load up."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A model on a machine, as far as a run tells."""

    card: ModelCard
    doubt: str | None
    """Why the card may not be the model's."""
    machine: Machine


@dataclass(frozen=True, slots=True)
class SpeedBound:
    """The bound of a point's output rate."""

    output_tps: float
    """The most tokens per second of all users, see `roofline.request`."""
    share: float
    """Measured rate over the bound."""
    work: str
    """Whether the bound is that of memory or of compute."""
    limit: str
    """What binds: memory, compute, engine, host or client; ABOVE where the bound can't be the right one."""
    gpu_busy: float | None
    """Share of the time in which the GPU worked."""


def deployment(manifest: dict[str, Any], points: Sequence[PointMetrics] = ()) -> Deployment | None:
    """The model and machine of a run; None where one of them is not known. `points`: their figures.

    The machine is the one of `--gpu`, else that of the label `gpu`, else the GPUs that had work by telemetry.
    """
    found = find_card(str(manifest.get("model") or ""))
    if found is None:
        return None
    machine = _stated((manifest.get("task") or {}).get("gpu")) or _stated(
        (manifest.get("labels") or {}).get("gpu")
    )
    machine = machine or seen_machine(manifest, points)
    return None if machine is None else Deployment(found[0], found[1], machine)


def _stated(name: str | None) -> Machine | None:
    try:
        return None if not name else get_machine(name)
    except UsageError:
        return None  # a label may be any text


def seen_machine(manifest: dict[str, Any], points: Sequence[PointMetrics]) -> Machine | None:
    """The machine that telemetry has seen: only GPUs that had work count. None where it has no card or none had
    work."""
    names = [gpu.get("name") for gpu in (manifest.get("gpu_telemetry") or {}).get("gpus", [])]
    machine = machine_of(names)
    if machine is None:
        return None
    counts = [int(count) for metrics in points if (count := metrics.get("gpu_count")) is not None]
    busy = max(counts, default=machine.count)
    if not busy or (manifest.get("endpoint") or {}).get("local"):
        return None  # the model ran elsewhere
    return machine.model_copy(update={"count": busy}) if busy < machine.count else machine


def gpu_label(manifest: dict[str, Any], points: Sequence[PointMetrics]) -> str | None:
    """The label `gpu` of a run: the machine of `--gpu` or of telemetry; a GPU without a card by its own name."""
    machine = _stated((manifest.get("task") or {}).get("gpu")) or seen_machine(manifest, points)
    if machine is not None:
        return machine.name
    names = {gpu.get("name") for gpu in (manifest.get("gpu_telemetry") or {}).get("gpus", [])}
    return names.pop() if len(names) == 1 else None


def point_bound(
    found: Deployment, metrics: PointMetrics, parallel: int | None, checks: Sequence[dict[str, str]] | None
) -> SpeedBound | None:
    """The bound of a point; None where its tokens are not known or the machine has no figures for it.

    The batch is `parallel`, or in an open loop requests per second times their mean latency (Little 1961,
    https://doi.org/10.1287/opre.9.3.383). Tokens from the prefix cache need no reading. With speculative decoding
    a step gives as many tokens as were accepted on average; the draft's own work is left out.
    """
    shown = metrics.shown
    rate, rps, latency = shown.get("output_tps"), shown.get("rps"), shown.get("latency_ms", "mean")
    output = shown.get("completion_tokens", "mean") or metrics.get("completion_tokens", "mean")
    prompt = metrics.get("prompt_tokens", "mean")
    if not rate or not output or prompt is None or not roofline.known(found.machine, found.card):
        return None
    if parallel is None:
        if not rps or not latency:
            return None
        parallel_mean = max(1.0, rps * latency / 1e3)
    else:
        parallel_mean = float(parallel)
    accepted = metrics.get("accepted_length", "mean") or 1.0
    cached = metrics.get("cached_tokens", "mean") or 0.0
    work = roofline.request(found.card, found.machine, parallel_mean, prompt, output, cached, accepted)
    bound = output / work.seconds
    busy, share = metrics.get("gpu_utilization", "mean"), rate / bound
    warned = {check["kind"] for check in checks or () if check["level"] == "warn"}
    if share > 1:
        limit = ABOVE
    elif warned.intersection(CLIENT_CHECKS):
        limit = CLIENT
    elif share >= NEAR:
        limit = work.limit
    else:
        limit = HOST if busy is not None and busy < BUSY else ENGINE
    return SpeedBound(bound, share, work.limit, limit, busy)


def bounds(found: Deployment, points: Sequence[PointReport]) -> dict[str, SpeedBound]:
    """The bounds of points that have one, by id."""
    each = {p.point_id: point_bound(found, p.metrics, p.parallel, p.checks) for p in points}
    return {point_id: bound for point_id, bound in each.items() if bound is not None}


def view_bound(
    manifest: dict[str, Any], point_id: str, metrics: PointMetrics, parallel: int | None
) -> SpeedBound | None:
    """The bound of a point of a stored run, from its manifest; None where model or machine is not known."""
    found = deployment(manifest, [metrics])
    if found is None:
        return None
    return point_bound(found, metrics, parallel, (manifest.get("checks") or {}).get(point_id))


def bound_advice(found: Deployment, points: Sequence[PointReport]) -> list[str]:
    """A line for each effort: how far the fastest point is from its bound, and what that says."""
    known, lines = bounds(found, points), []
    for effort, group in groupby(points, key=lambda point: point.reasoning_effort):
        some = [point for point in group if point.point_id in known]
        if not some:
            continue
        point = max(some, key=lambda p: p.metrics.shown.get("output_tps") or 0.0)
        bound = known[point.point_id]
        prefix = f"Effort {effort}, " if effort else ""
        where = f"{point.parallel} users" if point.parallel is not None else f"{point.rate:g} requests/s"
        rate = bound.share * bound.output_tps
        of = f"{rate:,.0f} of at most {bound.output_tps:,.0f} tok/s on {found.machine.name}"
        lines.append(f"{prefix}{where}: {bound.share:.0%} of the {bound.work} bound ({of}): {_meaning(bound)}")
        if found.doubt:
            lines.append(f"that bound holds if {found.doubt.replace(' is taken for ', ' is like ')}")
    return lines


def recommendations(manifest: dict[str, Any], points: Sequence[PointReport]) -> list[str]:
    """All recommendations of a sweep, with those that follow from the bounds where model and machine are known."""
    found = deployment(manifest, [point.metrics for point in points])
    more = [] if found is None else bound_advice(found, points)
    lines = advise(points)
    return more if more and lines == [NO_ADVICE] else lines + more


def _meaning(bound: SpeedBound) -> str:
    if bound.limit == ABOVE:
        return "above the bound, so the model, its number format or the machine is not what was taken for it"
    if bound.limit == CLIENT:
        return "this client is a limit, see the checks"
    if bound.limit == HOST:
        return f"the GPU works {bound.gpu_busy:.0%} of the time, so the host (API server, scheduler) is the limit"
    if bound.limit == ENGINE:
        return "the engine, not the GPU, is the limit"
    means = {
        roofline.MEMORY: "the GPU's bandwidth is the limit: fewer bytes (quantization, shorter contexts) help",
        roofline.COMPUTE: "the GPU's arithmetic is the limit: a prefix cache or shorter prompts help",
    }
    return means[bound.limit]


def as_json(bound: SpeedBound) -> dict[str, Any]:
    """The bound of a point in the document of a run."""
    return {
        "output_tps": bound.output_tps, "share": bound.share, "bound": bound.work, "limit": bound.limit,
        "gpu_busy": bound.gpu_busy,
    }  # fmt: skip
