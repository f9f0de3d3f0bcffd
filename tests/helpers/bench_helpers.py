"""What the tests of bench share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.scripted_server import (
    saying,
)


def question_of(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    """A benchmark of one's own in a few lines of YAML: 20 sums."""
    lines = [json.dumps({"question": f"What is {n} + {n}?", "answer": 2 * n}) for n in range(1, 21)]
    (tmp_path / "sums.jsonl").write_text("\n".join(lines))
    task = tmp_path / "sums.yaml"
    task.write_text(
        'kind: bench\ndescription: sums\ndataset: sums.jsonl\nprompt: "{question} Box it: \\\\boxed{}."\n'
        "scorer: integer\nparallel: 4\n"
    )
    return task


def add(body: dict[str, Any]) -> int:
    """The right answer to one of the sums."""
    return 2 * int(question_of(body).split()[2])


def right(body: dict[str, Any]) -> bytes:
    return saying(f"It is \\boxed{{{add(body)}}}.")
