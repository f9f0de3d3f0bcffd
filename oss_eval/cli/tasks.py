"""`oss-eval tasks`: the task files."""

from __future__ import annotations

import argparse
import sys

from oss_eval.errors import TaskError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to list."""
    parser.add_argument("--all", action="store_true", help="list EvalScope's benchmarks too")


def run(arguments: argparse.Namespace) -> int:
    """List the tasks, one line each."""
    from oss_eval.config.task_files import read_task, task_files

    lines: dict[str, str] = {}
    for name, path in task_files().items():
        try:
            task = read_task(path)
            lines[name] = f"{task.get('kind', '?'):<6} {task.get('description', '')}"
        except TaskError as error:
            lines[name] = f"can't be used: {error.message}"
    if arguments.all:
        from oss_eval.bench.sources.evalscope_names import described

        lines |= {name: f"bench  EvalScope: {text}" for name, text in described().items() if name not in lines}
    width = max(map(len, lines), default=0)
    for name, line in lines.items():
        sys.stdout.write(f"{name:<{width}}  {line}\n")
    return 0
