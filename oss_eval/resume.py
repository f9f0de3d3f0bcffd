"""Going on with a stored run: what it was asked to do, who may be asked now, what a sweep still lacks."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from oss_eval.config import PerfTask, Point, Task, validated
from oss_eval.endpoints import Endpoint, models
from oss_eval.errors import EndpointError, StoreError, UsageError
from oss_eval.load.workload import read_prompt
from oss_eval.simulate.process import parse_sim_url
from oss_eval.store import iter_requests, read_manifest

T = TypeVar("T", bound=Task)

MASKED = ("url", "judge_url", "extra_args", "dataset_args")
"""What is stored without its secret part."""
PATIENCE = frozenset(
    "url connect_timeout first_token_timeout read_timeout total_timeout max_response_bytes description".split()
)
"""Settings that leave the answers alike: who carries them, how long they are waited for."""


def was_and_is(
    kind: type[T], manifest: dict[str, Any], stored: dict[str, Any], typed: dict[str, Any], where: str
) -> tuple[T, T]:
    """A task as it is stored, and the same with what was typed now. Raises UsageError."""
    values = {key: stored[key] for key in kind.model_fields if key in stored}
    if not values.get("url"):  # it was found; looking again might find another one
        endpoint = manifest["endpoint"]
        started = endpoint.get("simulator") if endpoint.get("started", "started" not in endpoint) else None
        values["url"] = [started] if started else endpoint.get("urls") or [endpoint["url"]]
    values["model"] = manifest["model"]
    hidden = [key for key in MASKED if "***" in str({**values, **typed}.get(key))]
    if hidden:
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in hidden)
        raise UsageError(
            f"{manifest['run_id']} holds {flags} without its secret part", f"give {flags} again to go on with it"
        )
    return validated(kind, values, where), validated(kind, {**values, **typed}, where)


def differences(before: Task, now: Task, may_change: Iterable[str]) -> list[str]:
    """Lines that say which settings differ, apart from those that may."""
    return [
        f"  {now.name}: --{key.replace('_', '-')} was {getattr(before, key)!r}, now {getattr(now, key)!r}"
        for key in type(now).model_fields
        if key not in may_change and getattr(before, key) != getattr(now, key)
    ]


def unlike(manifest: dict[str, Any], lines: list[str]) -> UsageError:
    """What was typed would mix unlike answers."""
    return UsageError(
        f"{manifest['run_id']} can't go on with other settings, its answers would not be alike:\n"
        + "\n".join(lines),
        "leave the flag out, or begin a run of its own",
    )


def check_simulated(manifest: dict[str, Any], simulated: bool) -> None:
    """Raise UsageError rather than mix a model's answers with a simulator's."""
    before = bool(manifest["endpoint"].get("simulated"))
    if before != simulated:
        raise UsageError(
            f"the answers of {manifest['run_id']} are {'simulated' if before else 'from a real server'}, and "
            f"{'a real server' if before else 'a simulator'} would be asked now",
            "say who is to be asked with --url, or begin a run of its own",
        )


def check_model(model: str, simulator: str | None, endpoints: tuple[Endpoint, ...], timeout: float) -> None:
    """Raise UsageError when the server lists its models and the run's is not among them."""
    served: list[str] = []
    if simulator is not None:
        served = [parse_sim_url(simulator).profile.model]
    elif endpoints[0].deployment is None:
        with contextlib.suppress(EndpointError):
            served = models(endpoints[0], timeout)
    # gpt-oss-20b, openai/gpt-oss-20b and gpt-oss-20b:latest: a server may take names that it does not list.
    if served and not any(model in name or name in model for name in served):
        raise UsageError(
            f"the run's answers are from {model!r}, and the server has {', '.join(map(repr, served[:5]))}",
            "say where that model is served with --url, or begin a run of its own",
        )


def check_api(manifest: dict[str, Any], task: Task, endpoints: tuple[Endpoint, ...]) -> None:
    """Raise UsageError for another API, or a prompt file that says something else now."""
    before = manifest["endpoint"].get("api")
    if endpoints and before and endpoints[0].api != before:
        raise unlike(manifest, [f"  the {before} API was asked, now the {endpoints[0].api} API (--url)"])
    if isinstance(task, PerfTask) and manifest.get("prompt_hash") not in (None, prompt_hash(task)):
        raise unlike(manifest, [f"  the prompt {task.prompt} is another one now"])


def prompt_hash(task: PerfTask) -> str | None:
    """What tells whether a prompt file is still the same one."""
    return None if task.prompt is None else hashlib.sha256(read_prompt(task.prompt).encode()).hexdigest()[:16]


# -- sweeps -----------------------------------------------------------------------------------------------------


def sweep(path: Path, typed: dict[str, Any]) -> PerfTask:
    """The task of a stored sweep with what was typed now.

    Raises UsageError for a change that would mix unlike figures, and StoreError for a run that is no sweep or
    never began to measure.
    """
    manifest = read_manifest(path)
    kind = manifest.get("kind")
    if kind == "calibrate":
        raise StoreError(f"{path.name} is a calibration: it takes a minute", "run oss-eval calibrate again")
    if kind != "perf" or "points" not in manifest:
        raise StoreError(f"{path.name} has measured nothing that could be gone on with", "run oss-eval perf again")
    before, now = was_and_is(PerfTask, manifest, manifest["task"], typed, "oss-eval resume")
    lines = differences(before, now, PATIENCE)
    if lines:
        raise unlike(manifest, lines)
    return now


@dataclass(frozen=True, slots=True)
class Rest:
    """What a stored sweep still lacks."""

    points: list[Point]
    """All that are planned."""
    todo: dict[str, Sequence[int]]
    """Request numbers that are missing, by point; points that are whole are not in it."""
    set_aside: list[dict[str, Any]] = field(default_factory=list)
    """Points of which some requests are stored, and which are measured again as a whole under another name."""


def rest(path: Path, missing: bool) -> Rest:
    """What the sweep in `path` lacks. `missing`: only the requests that an unfinished point lacks, instead of the
    point as a whole. Raises StoreError.

    A point is unfinished when requests are missing, or when the run broke off because of its server at it; then
    what could not even be sent is missing too.
    """
    manifest = read_manifest(path)
    broke_off = (manifest.get("broke_off") or {}).get("point_id")
    found = Rest([], {}, list(manifest.get("set_aside") or []))
    taken = {point["point_id"] for point in [*manifest["points"], *found.set_aside]}
    finished = _finished(path, broke_off)
    begun = {*manifest.get("begun", []), *finished}
    for planned in manifest["points"]:
        point = Point(**{key: planned[key] for key in Point.model_fields if key in planned})
        numbers = finished[point.point_id]
        lacking: Sequence[int] = [number for number in range(point.number) if number not in numbers]
        if (lacking or point.point_id == broke_off) and point.point_id in begun and not missing:
            found.set_aside.append(
                {
                    "point_id": point.point_id,
                    "parallel": point.parallel,
                    "reasoning_effort": point.reasoning_effort,
                    "requests": len(numbers),
                    "number": point.number,
                }
            )
            # Another name gives it other random prompts: a server that has seen the first ones in this sweep would
            # answer them out of its prefix cache.
            point = point.model_copy(update={"point_id": _again(point.point_id, taken)})
            taken.add(point.point_id)
            lacking = range(point.number)
        found.points.append(point)
        if lacking:
            found.todo[point.point_id] = lacking
    return found


def _finished(path: Path, broke_off: str | None) -> dict[str, set[int]]:
    """Numbers of the requests that came to an end of their own, well or badly, by point.

    Of the point at which the server went away, what could not be sent is none.
    """
    found: dict[str, set[int]] = defaultdict(set)
    names = ["point_id", "request_id", "status", "warmup", "start_ns"]
    for table in iter_requests(path, columns=names):
        for point, name, status, warmup, start in zip(*(table[key].to_pylist() for key in names), strict=True):
            if status != "cancelled" and not warmup and (start is not None or point != broke_off):
                found[point].add(int(name.rpartition("/")[2]))
    return found


def _again(point_id: str, taken: set[str]) -> str:
    """`02-c50`, then `02-c50-r2`, `02-c50-r3`: the point's next repetition."""
    base = re.sub(r"-r\d+$", "", point_id)
    return next(name for n in range(2, 1 << 20) if (name := f"{base}-r{n}") not in taken)
