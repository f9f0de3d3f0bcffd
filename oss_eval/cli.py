"""The command line: what can be typed, and the only place that prints errors and exits."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from oss_eval import __version__
from oss_eval.errors import OssEvalError, UsageError

INTERRUPTED = 130
EXIT_CODES = {"finished": 0, "failed": 1, "interrupted": INTERRUPTED}

PERF_EPILOG = """examples:
  oss-eval perf --parallel 1 10 50 100                          what answers on this machine, else the simulator
  oss-eval perf --url http://gpu1:8000/v1 --parallel 1 64 256   a server
  oss-eval perf --url sim://gpt-oss-20b-h20                     the simulator
  oss-eval perf stress --url http://gpu1:8000                   a task file, see `oss-eval tasks`
  oss-eval perf --parallel 16 --reasoning-effort low medium high
"""


class Parser(argparse.ArgumentParser):
    """Errors in one line with the next step, instead of the whole usage. No abbreviated flags: a key given as
    `--api-k` would not be recognised as one when the command is stored."""

    def __init__(self, *words: Any, **settings: Any) -> None:
        super().__init__(*words, **{"allow_abbrev": False, **settings})

    def error(self, message: str) -> NoReturn:
        """argparse: the arguments can't be understood."""
        raise UsageError(message, f"{self.prog} --help lists the flags")


def build_parser() -> argparse.ArgumentParser:
    """The whole surface. Imports nothing heavy: `--help` has to answer at once."""
    parser = Parser(prog="oss-eval", description="Evaluate language models behind any OpenAI-compatible endpoint.")
    parser.add_argument("--version", action="version", version=f"oss-eval {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_perf(commands)
    tasks = commands.add_parser("tasks", help="list the task files, one line each")
    tasks.set_defaults(run=tasks_command, parser=tasks)
    show = commands.add_parser("show", help="print a stored run's table again")
    show.add_argument("RUN", help="a run id, a unique part of one, a run's folder, or `last`")
    show.add_argument(
        "--out", type=Path, default=Path("results"), metavar="DIR", help="results folder (default results/)"
    )
    show.add_argument("--json", action="store_true", help="one JSON document instead of tables")
    show.set_defaults(run=show_command, parser=show)
    _add_calibrate(commands)
    _add_simulate(commands)
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Arguments of a command line. Raises UsageError; for an unknown flag it names a near one."""
    arguments, unknown = build_parser().parse_known_args(argv)
    if unknown:
        from difflib import get_close_matches

        flags = [flag for action in arguments.parser._actions for flag in action.option_strings]
        near = get_close_matches(unknown[0].partition("=")[0], flags, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(
            f"oss-eval {arguments.command} does not know {' '.join(unknown)}",
            f"{hint}oss-eval {arguments.command} --help lists the flags",
        )
    return arguments


def _add_perf(commands: Any) -> None:
    perf = commands.add_parser(
        "perf",
        help="load sweep: TTFT, TPOT, latency, throughput",
        description="Measure TTFT, TPOT, latency and throughput at one or several concurrencies.",
        epilog=PERF_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,  # what is not typed must not override the task file
    )
    perf.add_argument(
        "task",
        nargs="?",
        metavar="TASK",
        help="a task by name or a YAML file (default: sweep); flags override it",
    )
    who = perf.add_argument_group("who is asked")
    who.add_argument(
        "--url",
        help="server: host root, .../v1, or a full path to an API; sim://PROFILE for the simulator "
        "(default: OPENAI_BASE_URL, else the usual local ports)",
    )
    who.add_argument("--model", help="model name (default: the only one the server lists)")
    who.add_argument(
        "--api",
        choices=["openai", "chat", "completions"],
        help="API to use (openai: as the URL's path says, else chat)",
    )
    who.add_argument(
        "--api-key", help="better given as OPENAI_API_KEY: a flag can be seen by other users of the machine"
    )
    load = perf.add_argument_group("how much")
    load.add_argument(
        "--parallel",
        nargs="+",
        type=int,
        metavar="N",
        help="requests in flight, one point each (default 1 10 50 100)",
    )
    load.add_argument(
        "-n",
        "--number",
        nargs="+",
        type=int,
        metavar="N",
        help="requests a point: one for each --parallel, or one for all",
    )
    load.add_argument(
        "--reasoning-effort",
        nargs="+",
        metavar="EFFORT",
        help="efforts to sweep: low medium high, or what the server takes",
    )
    load.add_argument(
        "--workers",
        type=lambda text: text if text == "auto" else int(text),
        metavar="auto|N",
        help="processes that hold the connections (default auto: by level and cores)",
    )
    load.add_argument(
        "--warmup",
        "--warmup-num",
        type=int,
        metavar="N",
        help="requests before the first point, stored but not counted (default 0)",
    )
    what = perf.add_argument_group("what is sent")
    what.add_argument("--prompt", metavar="TEXT|@FILE", help="one prompt for all requests")
    what.add_argument(
        "--dataset", metavar="NAME", help="random (default), or one of EvalScope's: openqa, line_by_line, ..."
    )
    what.add_argument("--dataset-path", metavar="PATH", help="local file or folder of an EvalScope dataset")
    what.add_argument("--min-prompt-length", type=int, metavar="TOKENS", help="random prompts: shortest")
    what.add_argument("--max-prompt-length", type=int, metavar="TOKENS", help="random prompts: longest")
    what.add_argument(
        "--prefix-length",
        type=int,
        metavar="TOKENS",
        help="random prompts: common beginning, on top of the length",
    )
    what.add_argument(
        "--tokenizer-path",
        metavar="PATH|ID",
        help="tokenizer for prompt lengths and for counting replies without usage",
    )
    what.add_argument("--max-tokens", type=int, metavar="TOKENS", help="longest reply")
    what.add_argument("--min-tokens", type=int, metavar="TOKENS", help="shortest reply (vLLM, SGLang)")
    what.add_argument("--temperature", type=float)
    what.add_argument("--top-p", type=float)
    what.add_argument(
        "--seed", type=int, help="makes prompts repeatable and is sent along (default: new ones each run)"
    )
    what.add_argument(
        "--stream",
        action=argparse.BooleanOptionalAction,
        help="stream replies (default), needed for TTFT and TPOT",
    )
    what.add_argument(
        "--extra-args", metavar="JSON", help="more fields of the request, e.g. '{\"ignore_eos\": true}'"
    )
    patience = perf.add_argument_group("patience, in seconds")
    patience.add_argument("--connect-timeout", type=float, metavar="S", help="for a connection (default 5)")
    patience.add_argument(
        "--read-timeout", type=float, metavar="S", help="without a byte of a reply (default 600)"
    )
    patience.add_argument("--total-timeout", type=float, metavar="S", help="for a whole reply (default 3600)")
    result = perf.add_argument_group("results")
    result.add_argument(
        "--out", "--outputs-dir", type=Path, metavar="DIR", help="results folder (default results/)"
    )
    result.add_argument("--name", help="a name for the run")
    result.add_argument(
        "--label", action="append", metavar="KEY=VALUE", help="noted with the run; may be repeated"
    )
    result.add_argument(
        "--json", action="store_true", help="one JSON document on standard output, all else on standard error"
    )
    result.add_argument("--log-every-n-query", type=int, metavar="N", help="a progress line every N requests")
    perf.set_defaults(run=perf_command, parser=perf)


def _add_calibrate(commands: Any) -> None:
    calibrate = commands.add_parser(
        "calibrate",
        help="how far this machine's numbers can be trusted",
        description="Measure a server that logs when it really writes each token, and compare. About 1.5 minutes.",
    )
    calibrate.add_argument(
        "--parallel",
        nargs="+",
        type=int,
        metavar="N",
        default=[1, 64, 256, 1024],
        help="streams (default 1 64 256 1024)",
    )
    calibrate.add_argument(
        "--token-rate", type=float, metavar="R", default=66.0, help="tokens/s a stream (default 66)"
    )
    calibrate.add_argument("--out", type=Path, metavar="DIR", default=Path("results"), help="default results/")
    calibrate.add_argument("--name", help="a name for the run")
    calibrate.add_argument("--label", action="append", metavar="KEY=VALUE", help="noted with the run")
    calibrate.add_argument("--json", action="store_true", help="one JSON document on standard output")
    calibrate.set_defaults(run=calibrate_command, parser=calibrate)


def _add_simulate(commands: Any) -> None:
    simulate = commands.add_parser(
        "simulate",
        help="run the simulator as a server",
        description="An OpenAI-compatible server whose timing follows a stated model of a real deployment. "
        "No model is run.",
    )
    simulate.add_argument(
        "--profile", default="gpt-oss-20b-h20", help="which deployment (default gpt-oss-20b-h20)"
    )
    simulate.add_argument("--port", type=int, default=8801, help="default 8801; 0 for any free one")
    simulate.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1")
    simulate.add_argument("--speed", type=float, default=1.0, help="times faster than the deployment (default 1)")
    simulate.add_argument(
        "--truth-log",
        type=Path,
        metavar="FILE",
        help="append when each request came and each token was written",
    )
    simulate.set_defaults(run=simulate_command, parser=simulate)


# -- commands ---------------------------------------------------------------------------------------------------

ORDER_KEYS = ("out", "name", "api_key", "log_every_n_query")
COMMAND_KEYS = (*ORDER_KEYS, "command", "run", "parser", "task", "json", "label")


def perf_command(arguments: argparse.Namespace) -> int:
    """`oss-eval perf`."""
    from oss_eval.config import perf_task
    from oss_eval.perf import Order, run
    from oss_eval.tasks import DEFAULT, find_task, read_task

    given = vars(arguments)
    values = read_task(find_task(given.get("task", DEFAULT)))
    typed = {key: value for key, value in given.items() if key not in COMMAND_KEYS}
    if "parallel" in typed and "number" not in typed:
        values.pop("number", None)  # the file's numbers belong to the file's levels
    if "prompt" in typed:
        values.pop("dataset", None)
    elif "dataset" in typed:
        values.pop("prompt", None)
    task = perf_task({**values, **typed}, "oss-eval perf")
    every = given.get("log_every_n_query")
    if every is not None and every < 1:
        raise UsageError(f"--log-every-n-query {every}: must be at least 1")
    order = Order(
        out=given.get("out", Path("results")),
        name=given.get("name"),
        labels=_labels(given.get("label", [])),
        api_key=given.get("api_key"),
        log_every=every,
    )
    made = run(task, order)
    _show(made.path, given.get("json", False))
    if made.status == "failed":
        sys.stderr.write("oss-eval: every request failed\n")
    elif made.status == "interrupted":
        sys.stderr.write("oss-eval: interrupted; what was finished is stored\n")
    return EXIT_CODES[made.status]


def _labels(pairs: list[str]) -> dict[str, str]:
    labels = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise UsageError(f"--label {pair!r} is not KEY=VALUE", "for example: --label gpu=H100")
        labels[key] = value
    return labels


def show_command(arguments: argparse.Namespace) -> int:
    """`oss-eval show`."""
    from oss_eval.store import find_run

    _show(find_run(arguments.RUN, arguments.out), arguments.json)
    return 0


def _show(path: Path, as_document: bool) -> None:
    """A stored run: tables on standard output, or one JSON document there and the tables on standard error."""
    from rich.console import Console

    from oss_eval.report import print_report
    from oss_eval.runs import as_json, load_run

    report = load_run(path)
    calibration = report.manifest["kind"] == "calibrate" and report.manifest["status"] == "finished"
    console = Console(stderr=as_document)
    if as_document:
        import orjson

        document = as_json(report)
        if calibration:
            from oss_eval.calibrate import as_rows, compare

            document["calibration"] = as_rows(compare(path))
        sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")
    if calibration:
        from oss_eval.calibrate import print_calibration

        show = partial(print_calibration, path)
    else:
        show = partial(print_report, report)
    with contextlib.suppress(SystemExit):  # how rich ends when the reader of a pipe has seen enough
        show(console)
    sys.stderr.write(f"stored in {path}\n")


def calibrate_command(arguments: argparse.Namespace) -> int:
    """`oss-eval calibrate`."""
    from oss_eval.calibrate import calibrate
    from oss_eval.perf import Order

    if min(arguments.parallel) < 1:
        raise UsageError(f"--parallel {min(arguments.parallel)}: must be at least 1")
    if not 0 < arguments.token_rate <= 1000:
        raise UsageError(f"--token-rate {arguments.token_rate:g}: must be above 0 and at most 1000")
    order = Order(out=arguments.out, name=arguments.name, labels=_labels(arguments.label or []))
    made = calibrate(tuple(arguments.parallel), arguments.token_rate, order)
    _show(made.path, arguments.json)
    return EXIT_CODES[made.status]


def tasks_command(arguments: argparse.Namespace) -> int:
    """`oss-eval tasks`."""
    from oss_eval.errors import TaskError
    from oss_eval.tasks import read_task, task_files

    files = task_files()
    width = max(map(len, files), default=0)
    for name, path in files.items():
        try:
            task = read_task(path)
            line = f"{task.get('kind', '?'):<6} {task.get('description', '')}"
        except TaskError as error:
            line = f"can't be used: {error.message}"
        sys.stdout.write(f"{name:<{width}}  {line}\n")
    return 0


def simulate_command(arguments: argparse.Namespace) -> int:
    """`oss-eval simulate`."""
    from oss_eval.simulate.process import serve
    from oss_eval.simulate.profiles import get_profile

    profile = get_profile(arguments.profile)
    if not 0 < arguments.speed < float("inf"):
        raise UsageError(f"--speed {arguments.speed} is no positive number", "for example: --speed 20")

    if arguments.truth_log is not None:
        try:
            arguments.truth_log.open("ab").close()
        except OSError as error:
            raise UsageError(f"can't write the truth log {arguments.truth_log}: {error.strerror}") from None

    def announce(port: int) -> None:
        host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        sys.stderr.write(
            f"simulating {profile.name} ({profile.description}) at speed {arguments.speed:g}\n"
            f"  http://{host}:{port}/v1  model {profile.model}   Ctrl-C ends it\n"
        )

    try:
        serve(profile, arguments.speed, arguments.truth_log, arguments.host, arguments.port, announce)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"can't serve on {arguments.host}:{arguments.port}: {reason}",
            "choose another --port, or 0 for any",
        ) from None
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point; the exit code. 0 done, 1 measured and failed, 2 can't be done as asked, 130 interrupted."""
    # A job manager's polite stop keeps what was finished, like Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        arguments = parse(argv)
        return int(arguments.run(arguments))
    except OssEvalError as error:
        sys.stderr.write(f"oss-eval: {error.message}\n")
        if error.hint:
            sys.stderr.write(f"  → {error.hint}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("oss-eval: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        # `oss-eval show last | head`: the reader has what it wanted.
        sys.stderr.close()
        return 0
