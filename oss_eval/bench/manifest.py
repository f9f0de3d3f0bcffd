"""The manifest of a benchmark run: tasks, settings, server, environment."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from oss_eval.bench.plan import BenchPoint, LoadedTask, samples_hash
from oss_eval.endpoint.server import Server
from oss_eval.run.manifest import endpoint_entry, environment_entry, public_task
from oss_eval.run.options import RunOptions
from oss_eval.system.redact import command_line


def described(
    loaded_tasks: list[LoadedTask],
    points: list[BenchPoint],
    server: Server,
    options: RunOptions,
    before: dict[str, Any],
    number: int,
) -> dict[str, Any]:
    """Changes to the manifest `before`; `number` is the session's.

    A resumed run keeps its name and its first command.
    """
    begun = before.get("sessions", [])[number - 1 : number]  # as the writer noted it
    started = begun[0]["started"] if begun else datetime.now(UTC).isoformat()
    session = {"started": started, "command": command_line()}
    new: dict[str, Any] = {
        "model": server.model,
        "task": {"name": " ".join(dict.fromkeys(point.task for point in points))},
        "tasks": {
            loaded.plan.task.name: {
                **public_task(loaded.plan.task),
                "folder": loaded.plan.folder and str(loaded.plan.folder),
                "source": loaded.benchmark.source,
                "samples": len(loaded.samples),
                "samples_hash": samples_hash(loaded.samples),
            }
            for loaded in loaded_tasks
        },
        "endpoint": endpoint_entry(server, options, before.get("endpoint")),
        "points": [{**asdict(point), "number": point.number} for point in points],
        "environment": environment_entry(),
        "sessions": [*before.get("sessions", [])[: number - 1], session],
    }  # fmt: skip
    if "endpoint" not in before:
        new |= {"name": options.name, "labels": options.labels, "created": session["started"],
                "command": session["command"]}  # fmt: skip
    return new
