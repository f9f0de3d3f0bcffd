#!/usr/bin/env python
"""Write docs/reference/ from the code: command line, task files, Parquet columns. --check: fail if it differs."""

from __future__ import annotations

import argparse
import ast
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from oss_eval import records
from oss_eval.cli.foreign_flags import TOOLS, foreign_flags
from oss_eval.cli.parser import COMMANDS, build_parser
from oss_eval.config.bench_task import BenchTask
from oss_eval.config.perf_task import PerfTask
from oss_eval.results.schema import REQUESTS, SAMPLES, SUMMARY

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
SUMMARY_COLUMNS = {
    "kind": "`perf`, `bench` or `calibrate`", "task": "Name of the task.",
    "subset": "Subset of a benchmark; null for all.",
    "rate": "Requests per second of an open loop.", "number": "Requests or samples of the point.",
    "metric": "Name of the metric.", "stat": "Statistic: `value`, `mean`, `p50`, `p99`, `avg@4`, ...",
    "value": "Its value.", "ci_low": "Lower end of the 95% interval; null without one.",
    "ci_high": "Upper end of the 95% interval; null without one.", "n": "Values that it was computed from.",
    "unit": "Its unit.",
}  # fmt: skip


def command_line() -> str:
    """Every command with its arguments by group. Not argparse's own help: its format differs between Pythons."""
    parser = build_parser()
    commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices
    listed = _table(
        ("Command", "Purpose"), [(f"[{name}](#oss-eval-{name})", text) for name, text in COMMANDS.items()]
    )
    return "\n\n".join(["# Command line", listed, *(_command(name, commands[name]) for name in COMMANDS)])


def _command(name: str, parser: argparse.ArgumentParser) -> str:
    parts = [f"## oss-eval {name}", parser.description or f"{COMMANDS[name][0].upper()}{COMMANDS[name][1:]}."]
    for group in parser._action_groups:
        rows = [_argument(action) for action in group._group_actions if "--help" not in action.option_strings]
        if rows:
            title = {"positional arguments": "Arguments", "options": "Options"}.get(str(group.title), group.title)
            parts += [f"**{title}**", _table(("Argument", "Meaning"), rows)]
    if parser.epilog:
        parts.append(f"```text\n{parser.epilog.rstrip()}\n```")
    return "\n\n".join(parts)


def _argument(action: argparse.Action) -> tuple[str, str]:
    names = ", ".join(action.option_strings) or str(action.metavar or action.dest)
    value = ""
    if action.option_strings and action.nargs != 0:
        value = " " + str(
            action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else "VALUE")
        )
        value += " ..." if action.nargs == "+" else ""
    return f"`{names}{value}`", (action.help or "").replace("%%", "%")


def task_files() -> str:
    """The keys of task files."""
    parts = ["# Task files", "Keys of a YAML task file. A flag of the same name overrides a key."]
    for title, model in (("Load sweeps (`kind: perf`)", PerfTask), ("Benchmarks (`kind: bench`)", BenchTask)):
        rows = [
            (f"`{name}`", _default(field), " ".join((field.description or "").split()))
            for name, field in model.model_fields.items()
        ]
        parts += [f"## {title}", _table(("Key", "Default", "Meaning"), rows)]
    return "\n\n".join(parts)


def _default(field: Any) -> str:
    default = field.default_factory() if field.default_factory else field.default
    return "" if default in (None, (), {}, "") else f"`{list(default) if isinstance(default, tuple) else default}`"


def columns() -> str:
    """The columns of the stored tables."""
    requests, samples = _docstrings("RequestRecord"), _docstrings("SampleRecord")
    tables = (
        ("requests", "One row a request: `requests/part-*.parquet`.", REQUESTS, requests),
        ("samples", "One row a sample, epoch and effort: `samples/part-*.parquet`.", SAMPLES, samples),
        ("summary", "One row a point, metric and statistic: `summary.parquet`.", SUMMARY, SUMMARY_COLUMNS),
    )
    parts = ["# Parquet columns", "Timestamps are UTC nanoseconds since the epoch. Absent is null, never 0."]
    for name, text, schema, meanings in tables:
        shared = requests | samples | meanings
        rows = [(f"`{field.name}`", _type(field.type), shared.get(field.name, "")) for field in schema]
        parts += [f"## {name}", text, _table(("Column", "Type", "Meaning"), rows)]
    return "\n\n".join(parts)


def _type(kind: Any) -> str:
    return (
        "string"
        if str(kind).startswith("dictionary")
        else str(kind).replace("element: ", "").replace("item: ", "")
    )


def _docstrings(name: str) -> dict[str, str]:
    """The docstring under each field of a class in records.py."""
    tree = ast.parse(Path(records.__file__).read_text(encoding="utf-8"))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def other_tools() -> str:
    """What becomes of other load tools' flags."""
    parts = [
        "# Flags of other load tools",
        "`oss-eval perf` takes the command line of EvalScope 1.14's `perf` and of `vllm bench serve` (0.33). "
        "Flags that it can't take are refused by name, with what to use instead. A test reads the tools' own "
        "parsers (`tests/unit/test_foreign_flags.py`).",
    ]
    for tool, flags in foreign_flags().items():
        rows = []
        for flag, entry in flags.items():
            if "same" in entry:
                text = "the same" + (f": {entry['same']}" if entry["same"] else "")
            elif "as" in entry:
                text = f"`{entry['as']}`"
            elif "extra" in entry:
                text = f"`{entry['extra']}` in `--extra-args`"
            elif "refused" in entry:
                text = f"**refused**: {entry['refused']}; use `{entry['instead']}`"
            else:
                text = f"nothing to do: {entry['ignored']}" if "ignored" in entry else str(entry["by"])
            rows.append((f"`{flag}`", text))
        parts += [f"## {TOOLS[tool]}", _table(("Flag", "Here"), rows)]
    return "\n\n".join(parts)


def main() -> int:
    """Write the pages, or compare them; the exit code."""
    pages = {
        "cli.md": command_line(),
        "tasks.md": task_files(),
        "columns.md": columns(),
        "other_tools.md": other_tools(),
    }
    note = "<!-- Written by scripts/reference.py from the code. -->\n\n"
    differing = []
    for name, text in pages.items():
        path, content = FOLDER / name, note + text + "\n"
        if "--check" not in sys.argv:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(content, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != content:
            differing.append(f"docs/reference/{name}")
    if differing:
        sys.stderr.write(f"{' '.join(differing)} differ from the code: run scripts/reference.py\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
