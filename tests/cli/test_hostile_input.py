"""Bad input: nothing but OssEvalError, nothing that hangs, nothing that runs what it should read."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from tests.helpers.commands import Command


def test_a_long_value_is_not_repeated_at_length(oss_eval: Command, tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text(
        "kind: perf\nparallel: 0x" + "f" * 5000 + "\nnumber: '" + "x" * 5000 + "'\n"
    )
    done = oss_eval("perf", "task.yaml", "--url", "sim://instant")
    assert done.returncode == 2
    assert len(done.stderr) < 1500


def test_data_and_prompts_are_only_read(oss_eval: Command, tmp_path: Path) -> None:
    """A folder of data, a prompt file and a task file are the same after a run as before it."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "mine.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n')
    (data / "mine.yaml").write_text(
        "kind: bench\ndataset: mine.jsonl\nprompt: '{question}'\ntarget: answer\nscorer: integer\n"
    )
    (data / "prompt.txt").write_text("Count.")

    def state() -> list[tuple[str, str, float]]:
        return [
            (str(path), hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime)
            for path in sorted(data.rglob("*"))
            if path.is_file()
        ]

    before = state()
    os.utime(data, (1, 1))
    assert oss_eval("bench", "data/mine.yaml", "--url", "sim://instant").returncode == 0
    assert oss_eval("perf", "--prompt", "@data/prompt.txt", "--url", "sim://instant", "--parallel", "1",
                    "--number", "2").returncode == 0  # fmt: skip
    assert state() == before
    assert data.stat().st_mtime == 1, "nothing was created or removed in it"


def test_a_task_file_reads_nothing_but_what_it_names(oss_eval: Command, tmp_path: Path) -> None:
    """A template is filled with the dataset's columns alone: no attributes, no items, no formats that compute."""
    (tmp_path / "d.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n')
    for prompt in (
        "{question.__class__.__mro__}",
        "{question.__init__.__globals__}",
        "{os}",
        "{question!r:>99999999999}",
    ):
        (tmp_path / "t.yaml").write_text(
            f"kind: bench\ndataset: d.jsonl\nprompt: '{prompt}'\ntarget: answer\nscorer: exact\n"
        )
        begun = time.monotonic()
        done = oss_eval("bench", "t.yaml", "--url", "sim://instant")
        assert time.monotonic() - begun < 30
        if done.returncode == 0:
            from oss_eval.results.reader import find_run, read_samples

            prompts = read_samples(find_run("last", tmp_path / "results"))["prompt"].to_pylist()
            assert "mro" not in prompts[0] or prompt in prompts[0], "left as it is, not looked up"
            assert "<class" not in prompts[0]
        else:
            assert done.returncode == 2
