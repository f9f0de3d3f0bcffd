"""EvalScope's benchmarks: its data, prompts, conversations and scores. The only importer of evalscope, with the
model it is given (`model_api`); imported where it is used, because it takes seconds."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from oss_eval.bench.client import SampleClient
from oss_eval.bench.scoring.scorer_process import ScorerProcess
from oss_eval.bench.sources import evalscope_names, hubs
from oss_eval.bench.sources.custom import named_subset
from oss_eval.bench.types import Message, ModelOutput, Sample, Score
from oss_eval.config.bench_task import BenchTask
from oss_eval.endpoint.auth import Auth
from oss_eval.errors import TaskError, UsageError

OPENAI_PROMPT = "\n{question}\nPlease reason step by step, and put your final answer within \\boxed{{}}.\n"
"""As in OpenAI's gpt-oss evals (https://github.com/openai/gpt-oss, gpt_oss/evals/aime_eval.py)."""

BINARY = frozenset({"accuracy", "acc", "exact_match", "em", "prompt_level_strict", "prompt_level_loose"})
"""EvalScope's metrics that say right or wrong."""

LOAD_SECONDS = 5.0
"""For data that may be on this machine, when its hub can't be reached: the hub waits 15 s and more."""


def check_name(name: str) -> None:
    """Raise TaskError naming near ones for a benchmark that EvalScope doesn't have."""
    known = evalscope_names.names()
    if name not in known:
        near = get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise TaskError(f"EvalScope has no benchmark {name!r}", f"{hint}oss-eval tasks --all lists them")


class EvalScopeBenchmark:
    """One of EvalScope's benchmarks behind the vocabulary of `samples`."""

    def __init__(self, task: BenchTask, model: str, scorers: ScorerProcess, auth: Auth, work: Path) -> None:
        """`work` is a folder for whatever EvalScope writes. Raises TaskError, UsageError."""
        assert task.benchmark is not None
        check_name(task.benchmark)
        self.name = task.name
        self._task, self._scorers, self._model = task, scorers, model
        self._scratch = tempfile.TemporaryDirectory(prefix="oss-eval-data-")
        self._work = work
        self._batches = threading.Lock()
        self._access = auth
        self.source: dict[str, Any] = {}
        self._adapter = self._checked()

    # -- loading ---------------------------------------------------------------------------------------

    def _make(self, arguments: dict[str, Any], hub: str) -> Any:
        """The adapter, with the settings it gets from a TaskConfig."""
        from evalscope.api.registry import get_benchmark
        from evalscope.config import TaskConfig

        task = self._task
        logging.getLogger("evalscope").setLevel(logging.CRITICAL)
        settings = TaskConfig(
            model=self._model,
            eval_type="oss_eval",
            datasets=[task.benchmark],
            dataset_args={task.benchmark: arguments},
            dataset_hub=hub,
            limit=task.limit,
            work_dir=str(self._work),
            seed=42 if task.seed is None else task.seed,
            generation_config={"retries": 0},
            judge=_judge_config(task, self._access),
        )
        return get_benchmark(task.benchmark, settings)

    def _arguments(self) -> dict[str, Any]:
        task = self._task
        arguments = dict(task.dataset_args)
        if task.prompt == "openai":
            arguments["prompt_template"] = OPENAI_PROMPT
        elif task.prompt != "evalscope":
            escaped = task.prompt.replace("{", "{{").replace("}", "}}")
            arguments["prompt_template"] = escaped.replace("{{question}}", "{question}")
        if task.system_prompt:
            arguments["system_prompt"] = task.system_prompt
        return arguments

    def _checked(self) -> Any:
        """The adapter, and a UsageError for what it needs and does not have."""
        name = self._task.benchmark
        with quiet():
            try:
                adapter = self._make(self._arguments(), "modelscope")
            except (ValueError, ImportError) as error:
                raise TaskError(
                    f"{name}: {_first(error)}", "--dataset-args changes EvalScope's settings"
                ) from None
            try:
                adapter.validate_judge_strategy()
            except ValueError:
                raise UsageError(
                    f"{name} is graded by a model",
                    "name one: --judge-model NAME, with --judge-url URL if it is served elsewhere",
                ) from None
        if getattr(adapter, "sandbox_config", None) and hasattr(adapter, "execute_code_in_sandbox"):
            raise UsageError(
                f"{name} runs what the model writes in a sandbox (docker, through EvalScope's ms-enclave)",
                f"oss-eval evalscope eval --datasets {name} --use-sandbox runs it there, timed by the same probe",
            )
        return adapter

    def samples(self) -> list[Sample]:
        """Samples of every subset, asked for from the local copy or the hub. Raises TaskError."""
        task = self._task
        name = str(task.benchmark)
        if task.data is not None:
            adapter, folder = self._adapter, Path(self._scratch.name)
            splits = [split for split in (adapter.eval_split, adapter.train_split) if split]
            wanted = [adapter.default_subset] if adapter.reformat_subset else list(adapter.subset_list)
            found = hubs.local_folder(Path(task.data), name, folder, splits, wanted)
            arguments = {**self._arguments(), "local_path": str(folder)}
            if not adapter.reformat_subset:
                arguments["subset_list"] = found
            loaded = self._load(arguments, "modelscope", None)
            self.source.update(dataset=str(hubs.source_of(Path(task.data), name)), hub="local")
        else:
            loaded = self._from_hub()
        meta = self._adapter.benchmark_meta
        self.source["evaluation_version"] = getattr(meta, "evaluation_version", None)
        self.source["own_aggregation"] = task.scorer is None and self._aggregates_itself()
        samples = [
            self._sample(subset, place, raw_sample)
            for subset, samples in loaded.items()
            for place, raw_sample in enumerate(samples, 1)
        ]
        if not samples:
            raise TaskError(f"{name} has no samples", "check --data and --limit")
        if len({(sample.subset, sample.sample_id) for sample in samples}) < len(samples):
            raise TaskError(f"{name}: `subsets` names ranges, but the benchmark has subsets of its own")
        return samples

    def prepare(self) -> None:
        """Load the data too where the adapter has its own way of loading, which may leave something behind that it
        needs. Others get all that they need from the sample."""
        from evalscope.api.benchmark import DefaultDataAdapter

        own = ("load", "load_subset", "load_subsets", "load_from_disk", "load_dataset")
        if any(getattr(type(self._adapter), name) is not getattr(DefaultDataAdapter, name) for name in own):
            self.samples()

    def _aggregates_itself(self) -> bool:
        """Whether EvalScope's own score of this benchmark is something else than the mean over its samples."""
        from evalscope.api.benchmark import DefaultDataAdapter

        kind = type(self._adapter)
        own = kind.aggregate_scores is not DefaultDataAdapter.aggregate_scores
        return own or self._adapter.aggregation not in ("mean", None)

    def _from_hub(self) -> Any:
        task = self._task
        failures: list[str] = []
        for hub in hubs.order(task.hub):
            away = hubs.unreachable(hub)
            if away is not None and not self._kept(hub):
                failures.append(f"{hubs.NAMES[hub]}: {away}")
                continue
            try:
                loaded = self._load(self._arguments(), hub, None if away is None else LOAD_SECONDS)
            except TaskError as error:
                failures.append(f"{hubs.NAMES[hub]}: {away or error.message}")
                continue
            self.source.update(dataset=self._adapter.dataset_id, revision=self._adapter.dataset_revision, hub=hub)
            return loaded
        raise TaskError(
            f"can't get the data of {task.benchmark}:\n" + "\n".join(f"  {line}" for line in failures),
            "give a local copy: --data DIR_OR_FILE (the benchmark's test split as .jsonl, .csv or .parquet)",
        )

    def _kept(self, hub: str) -> bool:
        """Whether an earlier run may have left the data on this machine: EvalScope's cache, or the hub's own."""
        from evalscope.constants import DEFAULT_EVALSCOPE_CACHE_DIR
        from evalscope.utils.io_utils import safe_filename

        if hub == "huggingface" and os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
            return True
        dataset_id = self._make(self._arguments(), hub).dataset_id
        return any((Path(DEFAULT_EVALSCOPE_CACHE_DIR) / "datasets").glob(f"{safe_filename(dataset_id)}-*"))

    def _load(self, arguments: dict[str, Any], hub: str, patience: float | None) -> Any:
        """The adapter's own loading; with `patience`, what it can do within so many seconds."""
        outcome: dict[str, Any] = {}

        def load() -> None:
            try:
                adapter = self._make(arguments, hub)
                outcome["loaded"], outcome["adapter"] = adapter.load_dataset(), adapter
            except Exception as error:  # noqa: BLE001 (hubs, datasets and adapters have an error each)
                outcome["error"] = error

        with quiet():
            thread = threading.Thread(target=load, daemon=True)
            thread.start()
            thread.join(patience)
        if "loaded" in outcome:
            self._adapter = outcome["adapter"]
            return outcome["loaded"]
        error = outcome.get("error")
        if isinstance(error, KeyError):
            reason = f"its rows have no column {error}"
        elif isinstance(error, NotImplementedError | AttributeError | AssertionError | TypeError):
            reason = f"{type(error).__name__}: {_first(error)}"
        else:
            reason = _first(error) if error else "no answer in time"
        hint = f"--data must hold {self._task.benchmark}'s own data, as its hub has it" if self._task.data else ""
        raise TaskError(f"can't load {self._task.benchmark}: {reason}", hint)

    def _sample(self, subset: str, place: int, raw_sample: Any) -> Sample:
        if isinstance(raw_sample.input, str):
            messages: list[Message] = [{"role": "user", "content": raw_sample.input}]
        else:
            messages = _messages(raw_sample.input)
        target = (
            raw_sample.target if isinstance(raw_sample.target, str) else "\n".join(map(str, raw_sample.target))
        )
        prompt = json.dumps(messages)
        form = "choice" if raw_sample.choices else "box" if "boxed" in prompt else "plain"
        return Sample(
            named_subset(self._task.subsets, place) or subset,
            str(place),
            messages,
            target,
            raw_sample,
            form,
            len(raw_sample.choices or ()),
        )

    # -- asking and grading ----------------------------------------------------------------------------

    def answer(self, sample: Sample, client: SampleClient) -> ModelOutput:
        """The adapter's own inference: one request, or a conversation."""
        from evalscope.api.model import GenerateConfig, Model

        from oss_eval.bench.sources.evalscope_model import ProbeModel

        model = Model(ProbeModel(self._model, client.ask), GenerateConfig())
        # Adapters note things in a sample's metadata while they talk: each epoch and effort has its own.
        state = self._adapter.run_inference(model, sample.raw.model_copy(deep=True), str(self._work))
        if client.failure is not None:
            raise client.failure  # some benchmarks catch every exception and continue without an answer
        if not client.answers:
            raise RuntimeError("the benchmark asked nothing")
        last = client.answers[-1]
        messages = _messages(state.messages)
        if messages and messages[-1].get("role") == "assistant":
            messages.pop()
        reply = last.reply
        text = state.output.completion if len(client.answers) > 1 and state.output else reply.text
        return ModelOutput(text, reply.reasoning, messages or sample.messages, last.record.finish_reason, state)

    def grade(self, sample: Sample, output: ModelOutput) -> Score:
        """By the task's own scorer if it names one, else by the benchmark's."""
        if self._task.scorer is not None:
            settings = {"pattern": self._task.pattern}
            return self._scorers.grade(
                self._task.scorer, output.response, sample.target, output.truncated, settings
            )
        state = output.raw
        if state.output is not None and state.output.choices and output.response != state.output.completion:
            state.output.completion = output.response
        if getattr(self._adapter, "use_batch_scoring", False):
            with self._batches:
                scored = self._adapter.calculate_metrics(state)
                scored = self._adapter.batch_calculate_metrics([state], [scored])[0]
        else:
            scored = self._adapter.calculate_metrics(state)
        score = scored.score
        if not getattr(score.status, "is_usable", True) or not score.value:
            reason = score.explanation or "; ".join(f"{k}: {v}" for k, v in (score.metadata or {}).items())
            return Score(None, score.extracted_prediction, unscored=reason[:500] or "the benchmark gave no score")
        main = score.main_value
        values = {key: float(value) for key, value in score.value.items() if isinstance(value, (int, float))}
        if main is None:
            main = next(iter(values.values()), None)
        answer = score.extracted_prediction
        return Score(
            None if main is None else float(main),
            None if answer is None else str(answer)[:500],
            "evalscope",
            None if main is not None else "the benchmark gave no main score",
            metrics=values if len(values) > 1 else None,
            binary=(score.main_score_name or next(iter(values), "")) in BINARY,
        )

    def close(self) -> None:
        """Remove temporary files."""
        with contextlib.suppress(Exception), quiet():
            self._adapter.finalize()
        self._scratch.cleanup()


def _messages(chat: list[Any]) -> list[Message]:
    """EvalScope's messages as they are sent."""
    from evalscope.models.utils.openai import openai_chat_messages

    return [dict(message) for message in openai_chat_messages(chat, reasoning_format="none")]


def _judge_config(task: BenchTask, auth: Auth) -> dict[str, Any]:
    if not task.judge_model:
        return {}
    from oss_eval.bench.scoring.judge import judge_endpoint

    endpoint = judge_endpoint(task, auth)
    key = endpoint.api_key or "EMPTY"
    return {"models": [{"model_id": task.judge_model, "api_url": endpoint.base_url, "api_key": key}]}


def _first(error: BaseException) -> str:
    """The first line of an error, without pages of advice."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """EvalScope, datasets and the hubs say nothing; log handlers are as they were afterwards."""
    root = logging.getLogger()
    handlers, level, disabled = root.handlers[:], root.level, logging.root.manager.disable
    before = {key: os.environ.get(key) for key in ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS")}
    os.environ.update({"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"})
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)
        root.handlers[:], root.level = handlers, level
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
