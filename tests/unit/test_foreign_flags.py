"""Command lines of other load tools: every flag of theirs is taken with its meaning, or refused by name."""

from __future__ import annotations

import argparse
import ast
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from oss_eval.cli.foreign_flags import foreign_flags
from oss_eval.cli.options import task_settings
from oss_eval.cli.parser import _flags, build_parser, parse
from oss_eval.config.perf_task import PerfTask
from oss_eval.config.task import validated
from oss_eval.errors import UsageError

LISTED = Path(__file__).parent / "vllm_bench_serve_flags.txt"
"""Flags of `vllm bench serve`, out of the wheel of vLLM 0.33.0; VLLM_WHEEL=FILE reads them out of another wheel."""


def of_evalscope() -> set[str]:
    """Out of EvalScope's own parser, as installed."""
    from evalscope.perf.arguments import add_argument

    parser = argparse.ArgumentParser(add_help=False)
    add_argument(parser)
    return {flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")}


def of_vllm() -> set[str]:
    """Out of the source of vLLM's own parsers."""
    if "VLLM_WHEEL" not in os.environ:
        return set(LISTED.read_text().split())
    found = set()
    with zipfile.ZipFile(os.environ["VLLM_WHEEL"]) as wheel:
        for name in ("vllm/benchmarks/serve.py", "vllm/benchmarks/datasets/datasets.py"):
            for function in ast.walk(ast.parse(wheel.read(name))):
                if isinstance(function, ast.FunctionDef) and function.name.startswith("add_"):
                    found |= {
                        one.args[0].value
                        for one in ast.walk(function)
                        if isinstance(one, ast.Call)
                        and isinstance(one.func, ast.Attribute)
                        and one.func.attr == "add_argument"
                        and isinstance(one.args[0], ast.Constant)
                    }
    return found


@pytest.mark.parametrize(("tool", "flags"), [("evalscope", of_evalscope), ("vllm", of_vllm)])
def test_every_flag_is_known(tool: str, flags: Any) -> None:
    known = set(foreign_flags()[tool]) - {"--no-self-timed"}
    assert flags() - {"--no-self-timed"} == known


def test_what_is_named_is_there() -> None:
    own = _flags(build_parser(["perf"]), "perf")
    for tool, flags in foreign_flags().items():
        for flag, entry in flags.items():
            assert len(set(entry) - {"instead"}) == 1, (tool, flag)
            if "same" in entry:
                assert flag in own, (tool, flag)
            if "as" in entry:
                assert entry["as"] in own, (tool, flag)
            if "refused" in entry and entry["instead"].startswith("--"):
                assert entry["instead"].split()[0] in own, (tool, flag)


def settings(command: str) -> PerfTask:
    import shlex

    given = task_settings(PerfTask, parse(["perf", *shlex.split(command)]))
    return validated(PerfTask, given, "oss-eval perf")


def test_a_command_of_vllm() -> None:
    task = settings(
        "--backend openai-chat --base-url http://gpu1:8000 --endpoint /v1/chat/completions --model m --dataset-name random "
        "--random-input-len 1024 --random-output-len 128 --random-range-ratio 0.25 --random-prefix-len 32 "
        "--num-prompts 200 --request-rate 4 --burstiness 0.5 --max-concurrency 64 --ignore-eos --save-result "
        "--goodput ttft:500 e2el:2000 --num-warmups 3 --top-k 5 --extra-body '{\"a\": 1}' --percentile-metrics ttft"
    )
    assert task.url == ("http://gpu1:8000/v1/chat/completions",)
    assert (task.api, task.model, task.rate, task.burstiness, task.max_in_flight) == ("chat", "m", (4.0,), 0.5, 64)
    assert (task.prompt_length, task.output_length, task.prefix_length) == ("768-1280", "96-160", 32)
    assert (task.number, task.warmup, task.slo) == ((200,), 3, ("ttft<500ms", "latency<2000ms"))
    assert task.extra_args == {"ignore_eos": True, "top_k": 5, "a": 1}


def test_without_a_rate_it_is_a_closed_loop() -> None:
    task = settings(
        "--host gpu1 --port 8000 --endpoint /v1/completions --backend vllm --request-rate inf --max-concurrency 8"
    )
    assert (task.url, task.api, task.rate, task.parallel) == (
        ("http://gpu1:8000/v1/completions",),
        "completions",
        None,
        (8,),
    )


def test_a_command_of_evalscope() -> None:
    task = settings(
        "--parallel 64 --rate 5 --number 100 --model m --url http://h/v1/chat/completions --api openai --warmup-num 4 "
        "--max-tokens 100 200 --top-k 3 --headers a=b --tokenize-prompt --tokenizer-path t --sleep-interval 3"
    )
    assert (task.rate, task.max_in_flight, task.number, task.warmup) == ((5.0,), 64, (100,), 4)
    assert (task.output_length, task.extra_args, task.token_ids) == ("100-200", {"top_k": 3}, True)
    closed = settings("--parallel 1 10 --rate -1 --number 5 20 --api openai")
    assert (closed.rate, closed.parallel, closed.number) == (None, (1, 10), (5, 20))
    opened = settings("--rate 5 --open-loop --parallel 3")
    assert (opened.rate, opened.max_in_flight) == ((5.0,), 4096)


def test_one_server_stays_one() -> None:
    assert settings("--base-url http://gpu:9000 --port 8000 --model m").url == ("http://gpu:9000",)


def test_a_task_behind_a_flag_without_a_value() -> None:
    parsed = parse(["perf", "--disable-tqdm", "stress", "--ignore-eos"])
    assert (parsed.task, parsed.extra_args) == ("stress", '{"ignore_eos": true}')


def test_own_flags_stay_as_they_are() -> None:
    command = ["--endpoint", "prod", "--rate", "1", "2", "--header", "k:v=w", "--extra-args", '{"a": 1}']
    parsed = parse(["perf", *command])
    assert (parsed.endpoint, parsed.rate, parsed.header) == ("prod", [1.0, 2.0], ["k:v=w"])


@pytest.mark.parametrize("tool", ["evalscope", "vllm"])
def test_what_is_refused_is_named_with_what_to_use(tool: str) -> None:
    own = _flags(build_parser(["perf"]), "perf")
    refused = {flag: one for flag, one in foreign_flags()[tool].items() if "refused" in one and flag not in own}
    assert len(refused) > 20
    for flag, entry in refused.items():
        with pytest.raises(UsageError) as caught:
            parse(["perf", flag, "1"])
        assert flag in caught.value.message
        assert str(entry["instead"]) in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--backend tgi", "--backend tgi is not taken"),
        ("--dataset-name sonnet", "--dataset-name sonnet is not taken"),
        ("--rate 3 --parallel 1 2", "exclude each other"),
        ("--request-rate inf", "starts all requests at once"),
        ("--random-input-len 10 --random-range-ratio {}", "is no number"),
        ("--nothing-like-it 3", "does not know --nothing-like-it"),
    ],
)
def test_values_that_are_refused(arguments: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(["perf", *arguments.split()])
