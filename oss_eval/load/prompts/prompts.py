"""Which prompts are sent: of a stated length, one given text, or an EvalScope dataset. Seeded.

The same seed, point and request number give the same prompt whatever the number of worker processes. Points
of one sweep never share random prompts, so a server's prefix cache can't flatter the later ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import count, cycle
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from oss_eval.config.perf_task import PerfTask
from oss_eval.errors import UsageError
from oss_eval.load.plan import Point
from oss_eval.load.prompts.length_law import length_law
from oss_eval.load.prompts.tokenizer import (
    Counter,
)
from oss_eval.probe.apis import DIALECTS, Generation
from oss_eval.system.files import read_file


class Sized(NamedTuple):
    """A prompt with the length of its answer."""

    text: str | list[dict[str, Any]]
    max_tokens: int | None
    token_ids: list[int] | None = None
    """The prompt as token ids, for completions: they are sent instead of the text."""


Prompt = str | list[dict[str, Any]] | dict[str, Any] | Sized
"""A text, chat messages, a whole request body from a dataset (what it sets wins over the flags), or a prompt
with its own --max-tokens."""

# Everyday words that are one token with their leading space in the usual BPE vocabularies (o200k, cl100k,
# Llama 3, Qwen). How many tokens the server really counts is measured, see `words_per_token`.
VOCABULARY = (
    "about above across after again against all almost along already also always among and another answer "
    "any are area around art asked away back base be became because become before began begin behind "
    "being below best better between big black body book both boy bring brought build business but by "
    "call called came can care carry case cause center certain change check child children city class "
    "clear close cold college color come common company complete could country course cut dark day days "
    "deep did different direct do does done door down draw drive during each early earth easy eat effect "
    "end enough even ever every example eye face fact family far fast father feel feet few field figure "
    "fine fire first five follow food for force form found four free friend from front full game gave "
    "general get girl give go gold good got government great green ground group grow had half hand happen "
    "hard has have he head hear heart heat help her here high him his hold home hot hour house how human "
    "hundred idea if important in include interest into is it just keep kind king knew know land language "
    "large last late later law lay lead learn least leave left less let letter life light like line list "
    "little live local long look lost love low machine made main make man many map mark matter may me "
    "mean measure men might mind minute miss money moon more morning most mother mountain move much music "
    "must my name near need never new next night no north nothing notice now number of off often oil old "
    "on once one only open or order other our out over own page paper part party pass past pay people "
    "perhaps person picture piece place plan plant play point political possible power present problem "
    "product program public pull put question quick rain ran reach read ready real reason record red "
    "remember rest right river road rock room round rule run said same saw say school science sea second "
    "see seem self sense sent serve set several shall she ship short should show side simple since sing "
    "sit six size sleep slow small so social some song soon sound south space special stand star start "
    "state stay step still stood stop story street strong study such sun sure system table take talk "
    "teach tell ten than that the their them then there these they thing think this those though thought "
    "thousand three through time to today together told too took top toward town travel tree true try "
    "turn two under unit until up upon us use usual very voice wait walk want war warm was watch water "
    "way we week well went were west what wheel when where which while white who whole why will wind with "
    "without woman wonder wood word work world would write year yes yet you young "
).split()


def body(api: str, prompt: Prompt, settings: Generation) -> bytes:
    """Request body for a prompt of any kind."""
    if isinstance(prompt, dict):
        text = prompt.get("messages") or prompt.get("prompt", "")
        own = {key: value for key, value in prompt.items() if key not in ("messages", "prompt")}
        settings = replace(settings, extra=(*settings.extra, *own.items()))
    elif isinstance(prompt, Sized):
        text = prompt.text
        if prompt.max_tokens is not None:
            settings = replace(settings, max_tokens=max(1, prompt.max_tokens))
        if prompt.token_ids is not None:
            settings = replace(settings, extra=(*settings.extra, ("prompt", prompt.token_ids)))
    else:
        text = prompt
    return orjson.dumps(DIALECTS[api].body(text, settings))


# -- sources of prompts -----------------------------------------------------------------------------------------

Source = Callable[[Point], Iterator[Prompt]]
"""Endless prompts for a point, the same ones each time."""


def source(task: PerfTask, model: str, seed: int, counter: Counter | None, ratio: float) -> Source:
    """Where a task's prompts come from.

    `counter` makes random prompts exact by a tokenizer; without one they have length times `ratio` words.
    Raises UsageError for files that can't be read and datasets that don't exist.
    """
    if task.prompt is not None:
        text = read_prompt(task.prompt)
        return lambda point: cycle([text])
    if task.dataset == "random":
        return lambda point: random_prompts(task, seed, point, counter, ratio)
    prompts = evalscope_prompts(task, model)
    return lambda point: cycle(prompts)


PREFIXES_KEPT = 1024
MAX_PROMPT_FILE = 64_000_000
"""Bytes; the longest context windows hold a tenth of it."""


def read_prompt(text: str) -> str:
    """`--prompt TEXT`, or `--prompt @FILE`."""
    if not text.startswith("@"):
        return text
    path = Path(text[1:])
    try:
        found = read_file(path, MAX_PROMPT_FILE).decode("utf-8").strip()
    except OSError as error:
        raise UsageError(
            f"can't read the prompt file {path}: {error.strerror}", "give --prompt TEXT or --prompt @FILE"
        ) from None
    except UnicodeDecodeError:
        raise UsageError(f"the prompt file {path} is not UTF-8 text") from None
    if not found:
        raise UsageError(f"the prompt file {path} is empty")
    return found


def random_prompts(
    task: PerfTask, seed: int, point: Point, counter: Counter | None, ratio: float
) -> Iterator[Prompt]:
    """Random words. `prefix_length` tokens before them are common to all prompts of the run, or of a pool of
    `prefix_count` that prompts have in turn."""
    prompt_law = length_law(task.prompt_length, "--prompt-length") if task.prompt_length else None
    output_law = length_law(task.output_length, "--output-length", 1) if task.output_length else None

    @lru_cache(PREFIXES_KEPT)
    def prefix(number: int) -> str:
        name = f"{seed}/prefix/{number}" if number else f"{seed}/prefix"
        return words(random.Random(name), task.prefix_length, counter, ratio)

    for index in count():
        rng = random.Random(f"{seed}/{point.point_id}/{index}")
        if prompt_law is None:
            length = rng.randint(task.min_prompt_length, task.max_prompt_length)
        else:
            length = prompt_law.draw(rng, index)
        text = " ".join(filter(None, (prefix(index % task.prefix_count), words(rng, length, counter, ratio))))
        yield text if output_law is None else Sized(text, output_law.draw(rng, index))


def words(rng: random.Random, tokens: int, counter: Counter | None, ratio: float) -> str:
    """Random words of a number of tokens: exact by the tokenizer of `counter`, else `ratio` words a token."""
    if tokens <= 0:
        return ""
    if counter is None:
        return " ".join(rng.choices(VOCABULARY, k=max(1, round(tokens * ratio))))
    return counter.fit(" ".join(rng.choices(VOCABULARY, k=tokens + 8)), tokens)


def evalscope_prompts(task: PerfTask, model: str) -> list[Prompt]:
    """All prompts of one of EvalScope's perf datasets: `openqa`, `line_by_line`, `custom`, `share_gpt_zh`, ..."""
    try:
        from evalscope.perf.arguments import Arguments
        from evalscope.perf.plugin.registry import DatasetRegistry
    except ImportError as error:
        raise UsageError(
            f"--dataset {task.dataset} needs evalscope: {error}", "pip install 'evalscope[perf]'"
        ) from None
    try:
        # A fresh Arguments each time: plugins change the one they are given.
        arguments = Arguments(
            model=model,
            dataset=task.dataset,
            dataset_path=task.dataset_path,
            tokenizer_path=task.tokenizer_path,
            min_prompt_length=0 if "min_prompt_length" not in task.model_fields_set else task.min_prompt_length,
            max_prompt_length=131072
            if "max_prompt_length" not in task.model_fields_set
            else task.max_prompt_length,
        )
        plugin = DatasetRegistry.get_class(task.dataset)(arguments)
        prompts: list[Prompt] = [
            prompt for prompt in plugin.build_messages() if isinstance(prompt, (str, list, dict))
        ]
    except Exception as error:  # noqa: BLE001 (another project's plugins raise what they like)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"EvalScope's dataset {task.dataset!r} can't be loaded: {reason}",
            "give a local copy with --dataset-path, or use --dataset random",
        ) from None
    if not prompts:
        raise UsageError(f"the dataset {task.dataset!r} has no prompt within the given lengths")
    return prompts
