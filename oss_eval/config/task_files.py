"""Task files: YAML with the keys of the command's flags.

A name is looked for in the user's ./tasks first and then among the files that ship with oss-eval; a path to
a .yaml file is taken as it is.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from oss_eval.config.yaml_file import read_yaml
from oss_eval.errors import TaskError

DEFAULT = "sweep"
"""The task of a bare `oss-eval perf`."""


def shipped_dir() -> Path:
    """The folder of shipped tasks: inside an installed wheel, or the top of a source checkout."""
    package = Path(__file__).parent.parent
    installed = package / "_tasks"
    return installed if installed.is_dir() else package.parent / "tasks"


def task_files(local: Path | None = None) -> dict[str, Path]:
    """Name -> file of every known task; `local` is the user's own folder (default ./tasks)."""
    found: dict[str, Path] = {}
    for folder in (shipped_dir(), Path("tasks") if local is None else local):
        if folder.is_dir():
            found.update({path.stem: path for path in sorted(folder.glob("*.yaml"))})
    return dict(sorted(found.items()))


def find_task(name: str, local: Path | None = None) -> Path:
    """The file of a task, by name or by path. Raises TaskError that lists similar names."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(name)
        if not path.is_file():
            raise TaskError(f"there is no task file {name!r}", "oss-eval tasks lists the tasks known by name")
        return path
    files = task_files(local)
    if name not in files:
        near = get_close_matches(name, files, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise TaskError(f"unknown task {name!r}", f"{hint}oss-eval tasks lists them all")
    return files[name]


def read_task(path: Path, kind: str | None = None) -> dict[str, Any]:
    """Keys and values of a task file, `name` added.

    Raises TaskError when it can't be read, is not a mapping, or is not of the given `kind`.
    """
    values = read_yaml(path, TaskError, "the task file")
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise TaskError(f"the task file {path} must hold `key: value` lines", "tasks/sweep.yaml is an example")
    values = {key.replace("-", "_"): value for key, value in values.items()}
    other = values.get("kind", kind)
    if kind is not None and other != kind and other in ("perf", "bench"):
        raise TaskError(f"the task {path.stem} is for oss-eval {other}", f"oss-eval {other} {path.stem}")
    return {"name": path.stem, **values}


_PROMPTS = ("prompt", "dataset", "dataset_path", "data")
_LENGTHS = (
    "min_prompt_length", "max_prompt_length", "prompt_length", "output_length", "prefix_length", "prefix_count",
)  # fmt: skip
REPLACED = {
    "parallel": ("number", "rate"),
    "rate": ("number", "parallel"),
    "duration": ("number",),
    "number": ("duration",),
    "find": ("number", "duration", "rate", "repeat"),
    "prompt": (*_PROMPTS, *_LENGTHS),
    "dataset": _PROMPTS,
    "data": (*_PROMPTS, *_LENGTHS),
    "turns": ("prompt",),
    "trace": (*_PROMPTS, *_LENGTHS, "number", "duration", "rate", "parallel", "warmup", "ramp", "think_time"),
}
"""What a setting that is typed takes the place of in a task file."""


def overridden(task: str, typed: dict[str, Any]) -> dict[str, Any]:
    """The task file of a load sweep, overridden by the given settings. Raises TaskError.

    `number` of the file belongs to its levels, and a prompt and a dataset, and a number and a duration, exclude
    each other.
    """
    values = read_task(find_task(task), "perf")
    for key, replaced in REPLACED.items():
        if key in typed:
            values = {name: value for name, value in values.items() if name not in replaced}
    return {**values, **typed}
