"""Prompts from the user's own file: JSON, JSON lines, CSV, Parquet, or a dataset on a hub.

A row may be a text, an object with a prompt or messages, a whole request body, or a conversation as ShareGPT has
(`conversations` with `from` and `value`). CSV and Parquet have one prompt a row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from oss_eval.errors import UsageError
from oss_eval.load.prompts.prompts import Prompt
from oss_eval.system.files import read_file

MOST_BYTES = 1 << 30
TEXT_FIELDS = ("prompt", "question", "instruction", "text", "input", "query", "content")
"""Columns that hold a prompt, the first one that is there."""
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
         "system": "system"}  # fmt: skip


def read_data(name: str) -> list[Prompt]:
    """The prompts of a file, or of a dataset by its hub id (`hub:OWNER/NAME`, its `train` or first split). Raises
    UsageError."""
    if name.startswith("hub:"):
        rows: Iterable[Any] = _hub_rows(name.removeprefix("hub:"))
    else:
        rows = _file_rows(Path(name))
    found = []
    for number, row in enumerate(rows, 1):
        prompt = _prompt(row)
        if prompt is None:
            raise UsageError(
                f"--data {name}, row {number}: there is no prompt in it",
                f"a text, messages, conversations, or one of the fields {', '.join(TEXT_FIELDS)}",
            )
        found.append(prompt)
    if not found:
        raise UsageError(f"--data {name} has no row")
    return found


def _prompt(row: Any) -> Prompt | None:
    if isinstance(row, str):
        return row or None
    if isinstance(row, list):
        return row if row and all(isinstance(one, dict) for one in row) else None
    if not isinstance(row, dict):
        return None
    if isinstance(row.get("conversations"), list):
        return _sharegpt(row["conversations"])
    if isinstance(row.get("messages"), list) and row["messages"]:
        rest = {key: value for key, value in row.items() if key not in ("messages", "id")}
        return {**rest, "messages": row["messages"]} if rest else row["messages"]
    for field in TEXT_FIELDS:
        if isinstance(row.get(field), str) and row[field]:
            body = {"model", "max_tokens", "temperature", "stream"} & row.keys()
            return {**row, "prompt": row[field]} if body and field == "prompt" else row[field]
    return None


def _sharegpt(turns: list[Any]) -> Prompt | None:
    messages = [
        {"role": ROLES[turn["from"]], "content": turn["value"]}
        for turn in turns
        if isinstance(turn, dict) and turn.get("from") in ROLES and isinstance(turn.get("value"), str)
    ]
    return messages or None


def _file_rows(path: Path) -> Iterable[Any]:
    kind = path.suffix.lower()
    try:
        if kind in (".parquet", ".csv"):
            return _table_rows(path, kind)
        text = read_file(path, MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"can't read --data {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"--data {path} is not UTF-8 text") from None
    if kind == ".json":
        try:
            rows = json.loads(text)
        except ValueError as error:
            raise UsageError(f"--data {path} is not JSON: {error}") from None
        return rows if isinstance(rows, list) else [rows]
    if kind in (".jsonl", ".ndjson"):
        return list(_lines(path, text))
    return [line for line in text.splitlines() if line.strip()]


def _lines(path: Path, text: str) -> Iterable[Any]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError:
                raise UsageError(f"--data {path}, line {number} is not JSON") from None


def _table_rows(path: Path, kind: str) -> list[Any]:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    path.open("rb").close()
    try:
        table = pyarrow.csv.read_csv(path) if kind == ".csv" else pyarrow.parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"--data {path} can't be read: {error}") from None
    rows: list[Any] = table.to_pylist()
    return rows


def _hub_rows(name: str) -> Iterable[Any]:
    from datasets import load_dataset

    try:
        found = load_dataset(name)
    except Exception as error:  # noqa: BLE001 (the library raises what it likes)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"--data hub:{name} can't be loaded: {reason}", "give a local file") from None
    return list(found["train"] if "train" in found else next(iter(found.values())))
