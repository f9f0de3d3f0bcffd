"""`oss-eval ask`: one question."""

from __future__ import annotations

import argparse
import sys

from oss_eval.cli.options import EndpointSettings, add_flags, task_settings
from oss_eval.config.task import Task, validated
from oss_eval.system.text import as_utf8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A question, and the settings of the request."""
    parser.description = "Ask one question. Standard output gets the answer and nothing else."
    parser.argument_default = argparse.SUPPRESS
    parser.add_argument("prompt", metavar="PROMPT", help="the question; @FILE to read it, - for standard input")
    add_flags(parser, Task, EndpointSettings)
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="print the complete request and response as JSON instead"
    )


def run(arguments: argparse.Namespace) -> int:
    """Ask, and print the answer as it streams."""
    from oss_eval.cli.shared import run_options
    from oss_eval.diagnose.ask import ask
    from oss_eval.load.prompts.prompts import read_prompt

    options, named = run_options(arguments)
    task = validated(Task, {**named, **task_settings(Task, arguments)}, "oss-eval ask")
    prompt = sys.stdin.read() if arguments.prompt == "-" else read_prompt(arguments.prompt)
    prompt = as_utf8(prompt)  # an argument can hold bytes that are not UTF-8
    ask(prompt, task, options.auth, vars(arguments).get("verbose", False))
    return 0
