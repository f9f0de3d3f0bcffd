"""Reading a manifest: the one place where its types are checked, for every command and page that shows a run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal, Required

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from oss_eval.errors import StoreError
from oss_eval.results.schema import SCHEMA_VERSION
from oss_eval.system.files import read_file
from oss_eval.system.text import as_utf8

MAX_BYTES = 32_000_000
_CONFIG = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


@with_config(_CONFIG)
class _Point(TypedDict, total=False):
    point_id: Required[str]
    index: int | None
    task: str | None
    reasoning_effort: str | None
    parallel: int | None
    rate: float | None
    number: int | None
    duration: float | None
    workers: int | None
    requests: int | None
    samples: int | None
    repeats: int | None
    repeat: int | None
    until: dict[str, Any] | None
    warmup: bool | None


@with_config(_CONFIG)
class _Task(TypedDict, total=False):
    name: str | None
    description: str | None
    scorer: str | None
    samples: int | None
    repeats: int | None
    max_failures: float | None
    source: dict[str, Any] | None
    samples_hash: str | None


@with_config(_CONFIG)
class _Endpoint(TypedDict, total=False):
    url: str | None
    urls: list[str] | None
    name: str | None
    prices: dict[str, float | None] | None
    api: str | None
    simulated: bool | None
    simulator: str | None
    server: str | None
    found: Any


@with_config(_CONFIG)
class _Check(TypedDict, total=False):
    kind: str | None
    level: Required[str]
    message: Required[str]


@with_config(_CONFIG)
class _Client(TypedDict, total=False):
    workers: int | None
    cores: int | None
    slots: int | None
    connections: int | None
    reconnects: int | None
    wall_seconds: float | None
    cpu_seconds: float | None
    main_cpu_seconds: float | None
    waited_share: float | None
    longest_stall_seconds: float | None
    longest_flush_seconds: float | None
    held_back_seconds: float | None


@with_config(_CONFIG)
class _Parallel(TypedDict, total=False):
    asked: int | str | None
    most_in_flight: int | None


@with_config(_CONFIG)
class _Session(TypedDict, total=False):
    started: str | None
    command: list[str] | None
    points: list[str] | None


@with_config(_CONFIG)
class _Gpu(TypedDict, total=False):
    gpu: Required[int]
    name: str | None
    uuid: str | None
    memory_mb: float | None
    power_limit_w: float | None


@with_config(_CONFIG)
class _GpuTelemetry(TypedDict, total=False):
    source: str | None
    gpus: Required[list[_Gpu]]
    problem: str | None


@with_config(_CONFIG)
class _Manifest(TypedDict, total=False):
    schema_version: Required[int]
    run_id: Required[str]
    status: Required[str]
    kind: Required[Literal["perf", "bench", "calibrate"]]
    name: str | None
    labels: dict[str, str] | None
    created: str | None
    finished: str | None
    command: list[str] | None
    model: str | None
    task: _Task | None
    tasks: dict[str, _Task] | None
    asked: list[str] | None
    workload: str | None
    prompt_hash: str | None
    prompt_lengths_by: str | None
    words_per_token: float | None
    seed: int | None
    request: dict[str, Any] | None
    endpoint: _Endpoint | None
    points: list[_Point] | None
    set_aside: list[_Point] | None
    damaged: list[str] | None
    begun: list[str] | None
    environment: dict[str, Any] | None
    sessions: list[_Session] | None
    broke_off: dict[str, Any] | None
    client: dict[str, _Client] | None
    checks: dict[str, list[_Check] | None] | None
    run_checks: list[_Check] | None
    gpu_telemetry: _GpuTelemetry | None
    parallel: _Parallel | None


_MANIFEST = TypeAdapter(_Manifest)
CONTAINERS = (
    "labels", "command", "model", "task", "tasks", "asked", "request", "endpoint", "points", "set_aside",
    "damaged", "begun", "environment", "sessions", "client", "checks", "run_checks", "parallel", "created",
)  # fmt: skip
"""In these, null means absent."""


def answered_by(manifest: dict[str, Any]) -> str:
    """What answered instead of a server of its own, for the titles of tables: `simulated`, or the CPU and engine
    of a local model; empty for a server."""
    endpoint = manifest.get("endpoint") or {}
    if endpoint.get("simulated"):
        return "simulated"
    local = endpoint.get("local")
    return str(local.get("description") or "") if isinstance(local, dict) else ""


def title_mark(manifest: dict[str, Any]) -> str:
    """The same in brackets, after a space."""
    mark = answered_by(manifest)
    return f" ({mark})" if mark else ""


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the run in `path`, with checked types; a null in one of CONTAINERS is left out.

    Raises StoreError when it is missing, damaged, or of a newer schema.
    """
    file = path / "manifest.json"
    try:
        values = _readable(json.loads(read_file(file, MAX_BYTES).decode("utf-8")))
    except OSError as error:
        raise StoreError(f"can't read {file}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise StoreError(f"{file} is damaged: it is no manifest of oss-eval") from None
    version = values.get("schema_version") if isinstance(values, dict) else None
    if type(version) is int and version > SCHEMA_VERSION:
        raise StoreError(f"{path.name} was written by a newer oss-eval (schema {version})", "upgrade oss-eval")
    try:
        manifest: dict[str, Any] = dict(_MANIFEST.validate_python(values))
    except ValidationError as error:
        wrong = dict.fromkeys(".".join(map(str, problem["loc"][:3])) or "all of it" for problem in error.errors())
        raise StoreError(f"{file} is damaged: {', '.join(list(wrong)[:5])}") from None
    found = {name: value for name, value in manifest.items() if value is not None or name not in CONTAINERS}
    return found


def read_begun_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a run that can be shown: one with points also says model, endpoint and tasks.

    Raises StoreError.
    """
    manifest = read_manifest(path)
    missing = _missing(manifest) if manifest.get("points") else []
    if missing:
        raise StoreError(f"{path / 'manifest.json'} is damaged: {', '.join(missing)}")
    return manifest


def adaptive_points(manifest: dict[str, Any]) -> set[str]:
    """Points of a benchmark that were asked until their score was known (`bench --until` with an error)."""
    return {p["point_id"] for p in manifest.get("points") or () if (p.get("until") or {}).get("error")}


def has_older_intervals(manifest: dict[str, Any]) -> bool:
    """Whether the run's stored intervals have the formulas of 0.2 and before."""
    return re.match(r"0\.[012]\b", made_by(manifest) or "") is not None


def made_by(manifest: dict[str, Any]) -> str | None:
    """The version of oss-eval that made the run."""
    packages = (manifest.get("environment") or {}).get("packages")  # a manifest may be anybody's
    version = packages.get("oss-eval") if isinstance(packages, dict) else None
    return None if version is None else str(version)


def _missing(manifest: dict[str, Any]) -> list[str]:
    """What a run with points lacks."""
    bench = manifest["kind"] == "bench"
    missing = [name for name in ("model", "endpoint", "tasks" if bench else "task") if name not in manifest]
    missing += ["endpoint.url"] if not manifest.get("endpoint", {}).get("url") else []
    missing += ["task.name"] if not bench and not manifest.get("task", {}).get("name") else []
    needed: tuple[tuple[str, ...], ...]
    needed = (("number",), ("repeats",)) if bench else (("number", "duration", "search"), ("parallel", "rate"))
    for either in needed:
        if any(all(point.get(name) is None for name in either) for point in manifest["points"]):
            missing.append(f"points.{either[0]}")
    names = [point["point_id"] for point in manifest["points"]]
    if len(set(names)) < len(names):
        missing.append("points (one of them twice)")
    tasks = manifest.get("tasks")
    if tasks is not None:
        missing += [f"tasks.{p['task']}" for p in manifest["points"] if p.get("task") not in (None, *tasks)]
    return list(dict.fromkeys(missing))


def _readable(value: Any) -> Any:
    """JSON without what no other program accepts: infinite numbers become null, lone surrogates question marks."""
    if isinstance(value, str):
        return as_utf8(value) if not value.isascii() else value
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, list):
        return [_readable(item) for item in value]
    if isinstance(value, dict):
        return {_readable(key): _readable(item) for key, item in value.items()}
    return value
