"""A user's own benchmark: rows of a dataset, a prompt template and a scorer by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from oss_eval.bench.grader import Grader
from oss_eval.bench.judge import Judge
from oss_eval.bench.questions import Message, Question, Said
from oss_eval.bench.scorers import Grade
from oss_eval.bench.voice import Voice
from oss_eval.config import BenchTask
from oss_eval.errors import OssEvalError, TaskError

FORMATS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FORMS = {"integer": "box", "math": "box", "choice": "choice"}

_COLUMN = re.compile(r"\{(\w+)\}")


class CustomBenchmark:
    """Questions out of a file or a dataset of the hub."""

    def __init__(self, task: BenchTask, folder: Path | None, grader: Grader, api_key: str | None) -> None:
        """`folder` is where the task file lies: a relative `dataset` is looked for there first."""
        self.name = task.name
        self._task, self._grader = task, grader
        self._judge = Judge(task, api_key) if task.scorer == "judge" else None
        self._path = _local(task, folder)
        self.source: dict[str, Any] = {"dataset": task.dataset, "subset": task.subset, "split": task.split}
        if self._path is None:
            self.source["hub"] = "huggingface" if task.hub == "auto" else task.hub

    def questions(self) -> list[Question]:
        """One a row. Raises TaskError naming a column that is missing, or why the data can't be read."""
        task = self._task
        rows = self._rows()
        needed = {task.target, *_COLUMN.findall(task.prompt), *([task.choices] if task.choices else [])} - {
            "choices"
        }
        questions: list[Question] = []
        for number, row in enumerate(rows, 1):
            missing = sorted(name for name in needed if row.get(name) is None)
            if missing:
                columns = ", ".join(row)
                raise TaskError(
                    f"row {number} of {task.dataset} has no {' and no '.join(repr(m) for m in missing)}",
                    f"its columns are {columns}; name them in `prompt`, `target` and `choices`",
                )
            options = [str(option) for option in row[task.choices]] if task.choices else []
            texts = {name: str(value) for name, value in row.items()}
            texts["choices"] = "\n".join(
                f"{letter}) {text}" for letter, text in zip(LETTERS, options, strict=False)
            )
            prompt = _filled(task.prompt, texts)
            messages: list[Message] = [{"role": "user", "content": prompt}]
            if task.system_prompt:
                messages.insert(0, {"role": "system", "content": task.system_prompt})
            target = _letter(row[task.target], options) if task.scorer == "choice" else str(row[task.target])
            form = FORMS.get(task.scorer or "", "plain")
            questions.append(Question("default", str(number), messages, target, None, form, len(options)))
        return questions

    def _rows(self) -> list[dict[str, Any]]:
        task = self._task
        import datasets

        datasets.disable_progress_bars()
        try:
            if self._path is not None:
                settings = {"delimiter": "\t"} if self._path.suffix == ".tsv" else {}
                loaded = datasets.load_dataset(
                    FORMATS[self._path.suffix], data_files=str(self._path), split="train", **settings
                )
            elif task.hub == "modelscope":
                from modelscope import MsDataset

                loaded = MsDataset.load(task.dataset, subset_name=task.subset, split=task.split)
            else:
                loaded = datasets.load_dataset(task.dataset, task.subset, split=task.split)
            limit = task.limit or len(loaded)
            rows = [dict(row) for row in loaded.select(range(min(limit, len(loaded))))]
            if self._path is None:
                self.source["fingerprint"] = getattr(loaded, "_fingerprint", None)
        except OssEvalError:
            raise
        except Exception as error:  # noqa: BLE001 (every format and hub has its own errors)
            lines = str(getattr(error, "__cause__", None) or error).strip().splitlines() or [type(error).__name__]
            raise TaskError(
                f"can't read the dataset {task.dataset}: {lines[0][:300]}",
                "give a JSONL, CSV or Parquet file, or the id of a dataset on the hub",
            ) from None
        if not rows:
            raise TaskError(f"the dataset {task.dataset} has no rows")
        return rows

    def answer(self, question: Question, voice: Voice) -> Said:
        """One request."""
        return Said.single(question.messages, voice.ask({"messages": question.messages}))

    def grade(self, question: Question, said: Said) -> Grade:
        """By the task's scorer."""
        if self._judge is not None:
            return self._judge.grade(question, said)
        settings = {"pattern": self._task.pattern}
        return self._grader.grade(str(self._task.scorer), said.response, question.target, said.truncated, settings)

    def close(self) -> None:
        """Let go of the judge."""
        if self._judge is not None:
            self._judge.close()


def _local(task: BenchTask, folder: Path | None) -> Path | None:
    """The dataset's file, None for an id of the hub. Raises TaskError for a file that isn't there."""
    name = str(task.data or task.dataset)
    for path in ([folder / name] if folder and not task.data else []) + [Path(name).expanduser()]:
        if path.is_file():
            if path.suffix not in FORMATS:
                raise TaskError(f"{path}: a dataset is a .jsonl, .json, .csv, .tsv or .parquet file")
            return path
    if task.data or Path(name).suffix in FORMATS or name.startswith((".", "/", "~")) or name.count("/") != 1:
        looked = f" (looked beside the task file in {folder} and in the current folder)" if folder else ""
        raise TaskError(f"there is no dataset file {name!r}{looked}")
    return None


def _filled(template: str, texts: dict[str, str]) -> str:
    """A template with its columns. Not str.format: prompts are full of LaTeX, whose braces mean something else."""
    return _COLUMN.sub(lambda match: texts.get(match.group(1), match.group()), template)


def _letter(target: Any, options: list[str]) -> str:
    """The letter of the right option: given as a letter, as its text, or as its place from 0."""
    if isinstance(target, int) and 0 <= target < max(len(options), 1):
        return LETTERS[target]
    text = str(target).strip()
    return LETTERS[options.index(text)] if text in options else text.upper()
