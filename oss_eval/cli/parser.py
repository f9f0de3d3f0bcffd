"""The command line as a whole: finds the command and parses its flags. Only that command's module is imported."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Any, NoReturn, Protocol, cast

from oss_eval import __version__
from oss_eval.errors import UsageError

COMMANDS = {
    "perf": "load sweep: TTFT, TPOT, latency, throughput",
    "bench": "benchmarks: scored answers with effort, epochs and error bars",
    "effort": "which reasoning effort to use: quality, tokens, time and money side by side",
    "resume": "resume a stored run that ended too early",
    "ask": "one question, its answer as it streams, and what it took",
    "doctor": "what a server is and supports, and what that means for a measurement",
    "models": "facts of models and GPUs: what fits, for how many users, how fast it can be",
    "tasks": "list the task files, one line each",
    "show": "print a stored run's tables again",
    "fsck": "check whether a stored run is complete",
    "view": "show results in a browser",
    "plan": "how many answers it takes to find a difference, or to know a score",
    "compare": "is B better than A: differences with intervals, and conditions for CI",
    "report": "a run as one HTML file",
    "calibrate": "how far this machine's numbers can be trusted",
    "simulate": "run the simulator as a server",
    "evalscope": "EvalScope's own command, its requests timed by the probe",
}
"""Name and help of each command. Its module is oss_eval.cli.NAME."""


RUN_HELP = "a run id, a unique part of one, a run's folder, or `last`"


class Command(Protocol):
    """The module of a command."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments, description and epilog to its parser."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Run the command; returns the exit code. Raises OssEvalError."""


class Parser(argparse.ArgumentParser):
    """Errors in one line with the next step, instead of the complete usage. No abbreviated flags: a key given as
    `--api-k` would not be recognised as one when the command is stored."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        """argparse: the arguments can't be understood."""
        raise UsageError(message, f"{self.prog} --help lists the flags")


def command(name: str) -> Command:
    """The module of a command."""
    return cast(Command, import_module(f"oss_eval.cli.{name}"))


def build_parser(commands: Iterable[str] = COMMANDS) -> argparse.ArgumentParser:
    """The parser of the program, with the arguments of the `commands` named."""
    parser = Parser(prog="oss-eval", description="Evaluate language models behind any OpenAI-compatible endpoint.")
    parser.add_argument("--version", action="version", version=f"oss-eval {__version__}")
    parsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    wanted = set(commands)
    for name, text in COMMANDS.items():
        one = parsers.add_parser(name, help=text)
        one.set_defaults(parser=one)
        if name in wanted:
            command(name).add_arguments(one)
    return parser


def _flags(parser: argparse.ArgumentParser, name: str) -> set[str]:
    """The flags of a command."""
    [commands] = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return {flag for action in commands.choices[name]._actions for flag in action.option_strings}


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Arguments of a command line. Raises UsageError; for an unknown flag it names a similar one."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["evalscope"]:  # EvalScope parses its own flags
        return argparse.Namespace(command="evalscope", arguments=arguments[1:])
    parser = build_parser(arguments[:1])
    if arguments[:1] == ["perf"]:
        from oss_eval.cli.foreign_flags import translated

        arguments = ["perf", *translated(arguments[1:], _flags(parser, "perf"))]
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:
        from difflib import get_close_matches

        flags = [flag for action in parsed.parser._actions for flag in action.option_strings]
        near = get_close_matches(unknown[0].partition("=")[0], flags, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(
            f"oss-eval {parsed.command} does not know {' '.join(unknown)}",
            f"{hint}oss-eval {parsed.command} --help lists the flags",
        )
    return parsed
