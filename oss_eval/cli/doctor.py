"""`oss-eval doctor`: what a server is and supports."""

from __future__ import annotations

import argparse

from oss_eval.cli.options import EndpointSettings, add_flags, task_settings
from oss_eval.config.task import Task, validated


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A server, and the settings of the requests."""
    parser.description = (
        "Examine a server with at most 20 short requests. One line a check: pass, warn or fail. Unless other "
        "timeouts are given, it waits 30 s for a first token and between two tokens, and 60 s for a response."
    )
    parser.argument_default = argparse.SUPPRESS
    add_flags(parser, Task, EndpointSettings, without=("reasoning_effort",))
    parser.add_argument("--gpu", metavar="GPU[xN]", help="the server's machine (default: this machine's GPUs)")
    parser.add_argument("--json", action="store_true", help="print one JSON document on standard output")


def run(arguments: argparse.Namespace) -> int:
    """Examine the server and print each check; exit code 1 if one fails."""
    from rich.text import Text

    from oss_eval.cli.output import print_json
    from oss_eval.cli.shared import run_options
    from oss_eval.diagnose.check import FAIL, PASS, WARN, Check
    from oss_eval.diagnose.doctor import PATIENCE, as_json, examine
    from oss_eval.models.machine import get_machine
    from oss_eval.system.terminal import open_console

    options, named = run_options(arguments)
    settings = {**PATIENCE, **named, **task_settings(Task, arguments)}
    task = validated(Task, settings, "oss-eval doctor")
    console = open_console(stderr="json" in vars(arguments), highlight=False)
    styles = {PASS: "green", WARN: "yellow", FAIL: "red"}

    def print_check(check: Check) -> None:
        line = Text(f"{check.verdict:<5}", styles[check.verdict]).append(f"{check.name}: {check.seen}", "default")
        console.print(line.append(f"\n     → {check.advice}" if check.advice else "", "bright_black"))

    gpu = vars(arguments).get("gpu")
    if gpu is not None:
        get_machine(gpu)  # an unknown one is told before anything is sent
    checks = examine(task, options.auth, print_check, gpu)
    if "json" in vars(arguments):
        print_json(as_json(checks))
    return 1 if any(check.verdict == FAIL for check in checks) else 0
