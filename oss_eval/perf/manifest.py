"""The manifest of a sweep: task, settings, server, environment."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from oss_eval.config.perf_task import PerfTask
from oss_eval.endpoint.gpu_telemetry import GpuReader
from oss_eval.endpoint.server import Server
from oss_eval.load.prompts.lengths import Lengths
from oss_eval.perf.remaining import RemainingWork
from oss_eval.run.manifest import endpoint_entry, environment_entry, labels_entry, public_task
from oss_eval.run.options import RunOptions
from oss_eval.run.resume import prompt_hash
from oss_eval.system.redact import command_line

if TYPE_CHECKING:  # a mistake of the user's should not wait for what writes Parquet
    from oss_eval.analysis.perf_summary import RunReport
    from oss_eval.results.writer import RunWriter


def described(
    task: PerfTask,
    options: RunOptions,
    server: Server,
    todo: RemainingWork,
    lengths: Lengths,
    seed: int,
    writer: RunWriter,
) -> dict[str, Any]:
    """Changes to the writer's manifest.

    A resumed run keeps the name, the command and the task of its first session.
    """
    before = writer.manifest
    begun = before.get("sessions", [])[writer.session - 1 : writer.session]  # as the writer noted it
    session = {
        "started": begun[0]["started"] if begun else datetime.now(UTC).isoformat(),
        "command": command_line(),
        "points": list(todo.todo),
    }
    found: dict[str, Any] = {
        "status": "running",
        "endpoint": endpoint_entry(server, options, before.get("endpoint")),
        "points": [point.model_dump(mode="json") for point in todo.points],
        "environment": environment_entry(),
        "sessions": [*before.get("sessions", [])[: writer.session - 1], session],
        "broke_off": None,
    }
    if writer.session > 1:
        aside = {"set_aside": todo.quarantined, "damaged": writer.quarantined}
        return found | {key: value for key, value in aside.items() if value}
    return found | {
        "name": options.name,
        "labels": options.labels,
        "created": session["started"],
        "command": session["command"],
        "model": server.model,
        "task": public_task(task),
        "asked": sorted(task.model_fields_set),
        "workload": workload(task),
        "prompt_hash": prompt_hash(task),
        "prompt_lengths_by": lengths.by,
        "words_per_token": lengths.words_per_token,
        "seed": seed,
    }


def ended(report: RunReport, server: Server, gpus: GpuReader, status: str) -> dict[str, Any]:
    """Entries of a sweep that has ended, beside its checks."""
    from oss_eval.analysis.speed_bound import gpu_label

    telemetry = {"gpu_telemetry": gpus.as_manifest()} if gpus.gpus else {}
    found = {
        "finished": datetime.now(UTC).isoformat(),
        "clock_source": sorted({source for point in report.points for source in point.clock_sources}),
        **telemetry,
    }
    if status == "finished":
        gpu = gpu_label({**report.manifest, **telemetry}, [point.metrics for point in report.points])
        found["labels"] = labels_entry(report.manifest, server, gpu)
    return found


def workload(task: PerfTask) -> str:
    """The workload in a few words."""
    low, high = task.min_prompt_length, task.max_prompt_length
    if task.prompt is not None:
        text = task.prompt if len(task.prompt) <= 60 else task.prompt[:57] + "..."
        sent = f"the prompt {text!r}"
    elif task.trace is not None:
        sent = f"the requests of the trace {task.trace}"
    elif task.data is not None:
        sent = f"prompts from {task.data}"
    elif task.dataset == "random":
        sent = f"random prompts of {low if low == high else f'{low}-{high}'} tokens"
        if task.prefix_length:
            sent += f" after a common prefix of {task.prefix_length}"
    else:
        sent = f"prompts from {task.dataset}"
    if task.turns is not None:
        low, high = task.turns
        sent += f" in conversations of {low if low == high else f'{low}-{high}'} turns"
    out = f", at most {task.max_tokens} tokens out" if task.max_tokens else ""
    return sent + out + ("" if task.stream else ", not streamed")
