"""A user's own benchmark: rows of a dataset, a prompt template and a scorer by name."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from oss_eval.bench.client import SampleClient
from oss_eval.bench.scoring.integers import as_integer
from oss_eval.bench.scoring.judge import Judge
from oss_eval.bench.scoring.scorer_process import ScorerProcess
from oss_eval.bench.types import LETTERS, Message, ModelOutput, Sample, Score
from oss_eval.config.bench_task import BenchTask
from oss_eval.endpoint.auth import Auth
from oss_eval.errors import TaskError
from oss_eval.results.parquet import ParquetFile
from oss_eval.system.files import open_regular, read_file

MAX_LINE = 256_000_000
"""Characters of a line, and bytes of a file that is one JSON list."""
FORMATS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
FORMS = {"integer": "box", "math": "box", "choice": "choice"}

_COLUMN = re.compile(r"\{(\w+)\}")


class CustomBenchmark:
    """Samples from a file or from a dataset of the hub."""

    def __init__(self, task: BenchTask, folder: Path | None, scorers: ScorerProcess, auth: Auth) -> None:
        """`folder` is that of the task file: a relative `dataset` is looked up there first."""
        self.name = task.name
        self._task, self._scorers = task, scorers
        self._judge = Judge(task, auth) if task.scorer == "judge" else None
        self._folder = folder
        self._path: Path | None = None
        self.source: dict[str, Any] = {"dataset": task.dataset, "subset": task.subset, "split": task.split}

    def samples(self) -> list[Sample]:
        """One sample for each row. Raises TaskError that names a missing column, or why the data can't be read."""
        task = self._task
        self._path = _local(task, self._folder)
        if self._path is None:
            self.source["hub"] = "huggingface" if task.hub == "auto" else task.hub
        rows = self._rows()
        columns = list(rows[0])
        used = [name for name in _COLUMN.findall(task.prompt) if name in columns]
        if not used:
            listed = ", ".join(f"{{{name}}}" for name in columns)
            raise TaskError(f"the prompt names no column of {self._path or task.dataset}", f"there are {listed}")
        if task.target in used:
            raise TaskError(f"the prompt would tell the answer: it holds {{{task.target}}}, the target")
        if task.choices and "choices" not in _COLUMN.findall(task.prompt) and task.choices not in used:
            raise TaskError("the model would not see the options: the prompt holds no {choices}", "add it")
        for name in _COLUMN.findall(task.prompt):
            near = get_close_matches(name, columns, n=1, cutoff=0.7)
            if name not in columns and near and name != "choices":
                raise TaskError(f"the prompt holds {{{name}}}, which is no column", f"did you mean {{{near[0]}}}?")
        if task.choices is None and "choices" in _COLUMN.findall(task.prompt) and "choices" not in columns:
            raise TaskError(
                "the prompt holds {choices}, and `choices` names no column",
                f"choices: NAME, one of {', '.join(columns)}",
            )
        samples: list[Sample] = []
        for number, row in enumerate(rows, 1):
            where = f"row {number} of {self._path or task.dataset}"
            missing = [name for name in dict.fromkeys([task.target, *used]) if row.get(name) is None]
            if missing:
                raise TaskError(
                    f"{where} has no {' and no '.join(map(repr, missing))}",
                    f"its columns are {', '.join(columns)}; name them in `prompt`, `target` and `choices`",
                )
            options = _options(row.get(task.choices), task.choices, where) if task.choices else []
            texts = {name: str(row[name]) for name in used}
            if options:
                texts["choices"] = "\n".join(f"{a}) {text}" for a, text in zip(LETTERS, options, strict=False))
            messages: list[Message] = [{"role": "user", "content": _filled(task.prompt, texts)}]
            if task.system_prompt:
                messages.insert(0, {"role": "system", "content": task.system_prompt})
            target = (
                _letter(row[task.target], options, where) if task.scorer == "choice" else str(row[task.target])
            )
            if task.scorer == "integer" and as_integer(target) is None:
                raise TaskError(
                    f"{where}: the target {target!r} is no integer", "exact or math compare other answers"
                )
            form = FORMS.get(task.scorer or "", "plain")
            subset = named_subset(task.subsets, number) or "default"
            samples.append(Sample(subset, str(number), messages, target, None, form, len(options)))
        return samples

    def _rows(self) -> list[dict[str, Any]]:
        task = self._task
        try:
            rows = _from_file(self._path, task.limit) if self._path is not None else self._from_hub()
        except Exception as error:  # noqa: BLE001 (every format and hub has its own errors)
            lines = str(getattr(error, "__cause__", None) or error).strip().splitlines() or [type(error).__name__]
            raise TaskError(
                f"can't read the dataset {self._path or task.dataset}: {lines[0][:300]}",
                "give a JSONL, CSV or Parquet file, or the id of a dataset on the hub",
            ) from None
        if not rows:
            raise TaskError(f"the dataset {self._path or task.dataset} has no rows", "give one that has")
        return rows[: task.limit]

    def _from_hub(self) -> list[dict[str, Any]]:
        task = self._task
        if task.hub == "modelscope":
            from modelscope import MsDataset

            loaded = MsDataset.load(task.dataset, subset_name=task.subset, split=task.split)
        else:
            import datasets

            datasets.disable_progress_bars()
            loaded = datasets.load_dataset(task.dataset, task.subset, split=task.split)
        self.source["fingerprint"] = getattr(loaded, "_fingerprint", None)
        return [dict(row) for row in loaded.select(range(min(task.limit or len(loaded), len(loaded))))]

    def prepare(self) -> None:
        """Nothing: a sample holds all that is needed."""

    def answer(self, sample: Sample, client: SampleClient) -> ModelOutput:
        """Ask with one request."""
        return ModelOutput.single(sample.messages, client.ask({"messages": sample.messages}))

    def grade(self, sample: Sample, output: ModelOutput) -> Score:
        """Score with the task's scorer."""
        if self._judge is not None:
            return self._judge.grade(sample, output)
        settings = {"pattern": self._task.pattern}
        return self._scorers.grade(
            str(self._task.scorer), output.response, sample.target, output.truncated, settings
        )

    def close(self) -> None:
        """Close the judge."""
        if self._judge is not None:
            self._judge.close()


def _local(task: BenchTask, folder: Path | None) -> Path | None:
    """The dataset's file; None for an id of the hub. Raises TaskError for a missing file."""
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


def _from_file(path: Path, limit: int | None) -> list[dict[str, Any]]:
    """The first `limit` rows as text: nothing is converted to a date, a number or a missing value.

    No more of the file is read than they need, except of a JSON list. Raises what the formats raise.
    """
    if path.suffix == ".parquet":
        return _from_parquet(path, limit)
    with open_regular(path) as binary, io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as file:
        if path.suffix in (".csv", ".tsv"):
            return list(islice(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","), limit))
        begin = file.read(1)
        while begin.isspace():
            begin = file.read(1)
        file.seek(0)
        if begin == "[":
            rows = json.loads(read_file(path, MAX_LINE).decode("utf-8-sig"))
        else:
            rows = list(islice(_json_lines(file), limit))
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("its rows are no JSON objects")
    return list(rows)


def _from_parquet(path: Path, limit: int | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    with ParquetFile(path) as file:
        for group in range(file.metadata.num_row_groups):
            found += file.read_group(group).slice(0, None if limit is None else limit - len(found)).to_pylist()
            if limit is not None and len(found) >= limit:
                break
    return found


def _json_lines(file: TextIO) -> Iterator[Any]:
    """Raises ValueError that names the line."""
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        if len(line) >= MAX_LINE:
            raise ValueError(f"line {number} has more than {MAX_LINE:,} characters")
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number} is no JSON ({error})") from None


def _filled(template: str, texts: dict[str, str]) -> str:
    """Fill a template with columns. Not str.format: prompts contain LaTeX, whose braces mean something else."""
    return _COLUMN.sub(lambda match: texts.get(match.group(1), match.group()), template)


def _options(value: Any, column: str, where: str) -> list[str]:
    """The options of a question: a list, ARC's {text, label}, or a JSON list as text. Raises TaskError."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        value = value["text"]
    if not isinstance(value, list) or len(value) < 2 or len(value) > len(LETTERS):
        raise TaskError(f"{where}: {column!r} holds no list of options", 'such as ["Lima", "Paris"]')
    return [str(option) for option in value]


def _letter(target: Any, options: list[str], where: str) -> str:
    """The letter of the right option: given as a letter, as its text, or as its place from 0.

    Raises TaskError when it is none of these, or when they disagree.
    """
    text = str(target).strip()
    letters = LETTERS[: len(options)] if options else LETTERS
    bare = text.strip("().: ").upper()
    readings = {}
    if text in options:
        readings["an option's text"] = LETTERS[options.index(text)]
    if len(bare) == 1 and bare in letters:
        readings["a letter"] = bare
    if text.isdigit() and int(text) < len(letters):
        readings["a place from 0"] = LETTERS[int(text)]
    if not readings:
        raise TaskError(
            f"{where}: the target {text!r} is none of the options",
            "give a letter, an option's text, or its place from 0",
        )
    if len(set(readings.values())) > 1:
        output = ", ".join(f"as {how} it is {letter}" for how, letter in readings.items())
        raise TaskError(f"{where}: the target {text!r} can be read in several ways: {output}", "give letters")
    return next(iter(readings.values()))


def named_subset(subsets: dict[str, str], place: int) -> str | None:
    """The name of the range that a sample is in, counted from 1."""
    for name, span in subsets.items():
        first, last = map(int, span.split("-"))
        if first <= place <= last:
            return name
    return None
