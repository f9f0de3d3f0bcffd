"""What a benchmark run was asked to do, what was in force, where and with what."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from oss_eval.bench.plan import Course, Point, samples_hash
from oss_eval.endpoint.server import Server
from oss_eval.run.manifest import endpoint_entry, public_task
from oss_eval.run.options import Order
from oss_eval.system import environment
from oss_eval.system.redact import command_line


def described(
    courses: list[Course],
    points: list[Point],
    server: Server,
    order: Order,
    before: dict[str, Any],
    number: int,
) -> dict[str, Any]:
    """Changes to the manifest `before`; `number` is the session's.

    A resumed run keeps its name and its first command.
    """
    session = {"started": datetime.now(UTC).isoformat(), "command": command_line()}
    new: dict[str, Any] = {
        "model": server.model,
        "task": {"name": " ".join(dict.fromkeys(point.task for point in points))},
        "tasks": {
            course.plan.task.name: {
                **public_task(course.plan.task),
                "folder": course.plan.folder and str(course.plan.folder),
                "source": course.benchmark.source,
                "samples": len(course.questions),
                "samples_hash": samples_hash(course.questions),
            }
            for course in courses
        },
        "endpoint": endpoint_entry(server, order, before.get("endpoint")),
        "points": [{**asdict(point), "number": point.number} for point in points],
        "environment": environment.environment(),
        "sessions": [*before.get("sessions", [])[: number - 1], session],
    }  # fmt: skip
    if "endpoint" not in before:
        new |= {"name": order.name, "labels": order.labels, "created": session["started"],
                "command": session["command"]}  # fmt: skip
    return new
