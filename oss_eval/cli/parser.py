"""What can be typed: every command's flags and their help. Imports nothing heavy: `--help` answers at once."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

from oss_eval import __version__
from oss_eval.cli.options import (
    APIS,
    add_effort,
    add_generation,
    add_patience,
    add_results,
    add_server,
    number_or_auto,
)
from oss_eval.errors import UsageError

PERF_EPILOG = """examples:
  oss-eval perf --parallel 1 10 50 100                          what answers on this machine, else the simulator
  oss-eval perf --url http://gpu1:8000/v1 --parallel 1 64 256   a server
  oss-eval perf --url sim://gpt-oss-20b-h20                     the simulator
  oss-eval perf stress --url http://gpu1:8000                   a task file, see `oss-eval tasks`
  oss-eval perf --parallel 16 --reasoning-effort low medium high
"""


BENCH_EPILOG = """examples:
  oss-eval bench demo --url sim://gpt-oss-20b-h20 --reasoning-effort low medium high    no GPU, no network
  oss-eval bench aime25 --url http://gpu1:8000/v1                                       the task file's settings
  oss-eval bench aime25 gsm8k --repeats 8 --parallel 64 --limit 10 --data ./data
  oss-eval bench mine.yaml                                                              your own questions
  oss-eval bench mmlu_pro --limit 20                                                    any of EvalScope's
  oss-eval resume last                                                                  what is still missing
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
    """The whole surface."""
    parser = Parser(prog="oss-eval", description="Evaluate language models behind any OpenAI-compatible endpoint.")
    parser.add_argument("--version", action="version", version=f"oss-eval {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_perf(commands)
    _add_bench(commands)
    _add_resume(commands)
    _add_ask(commands)
    _add_doctor(commands)
    tasks = commands.add_parser("tasks", help="list the task files, one line each")
    tasks.add_argument("--all", action="store_true", help="EvalScope's benchmarks too")
    tasks.set_defaults(run="tasks", parser=tasks)
    show = commands.add_parser("show", help="print a stored run's table again")
    show.add_argument("RUN", help="a run id, a unique part of one, a run's folder, or `last`")
    show.add_argument(
        "--out", type=Path, default=Path("results"), metavar="DIR", help="results folder (default results/)"
    )
    show.add_argument("--json", action="store_true", help="one JSON document instead of tables")
    show.add_argument("--grid", action="store_true", help="of a benchmark, the grid of problems and epochs too")
    show.set_defaults(run="show", parser=show)
    _add_fsck(commands)
    _add_view(commands)
    _add_report(commands)
    _add_calibrate(commands)
    _add_simulate(commands)
    commands.add_parser("evalscope", help="EvalScope's own command, its requests timed by the probe")
    return parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Arguments of a command line. Raises UsageError; for an unknown flag it names a near one."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["evalscope"]:  # its flags are not ours to read
        return argparse.Namespace(command="evalscope", run="evalscope", words=words[1:])
    arguments, unknown = build_parser().parse_known_args(words)
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
    add_server(perf, APIS)
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
    add_effort(load)
    load.add_argument(
        "--workers",
        type=number_or_auto,
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
    what.add_argument("--min-tokens", type=int, metavar="TOKENS", help="shortest reply (vLLM, SGLang)")
    add_generation(what)
    add_patience(perf)
    add_results(perf, "every N requests")
    perf.set_defaults(run="perf", parser=perf)


def _add_bench(commands: Any) -> None:
    bench = commands.add_parser(
        "bench",
        help="benchmarks: graded answers with effort, epochs and error bars",
        description="Ask a benchmark's questions, grade the answers, and say how sure the score is.",
        epilog=BENCH_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    bench.add_argument(
        "tasks",
        nargs="*",
        metavar="TASK",
        help="tasks by name, YAML files, or any of EvalScope's benchmarks; flags override them",
    )
    add_server(bench, ("openai", "chat", "responses", "ollama"))
    load = bench.add_argument_group("how much")
    add_effort(load)
    load.add_argument("--repeats", type=int, metavar="K", help="answers to each sample (epochs)")
    load.add_argument("--limit", type=int, metavar="N", help="only the first N samples of each subset")
    load.add_argument(
        "--parallel",
        type=number_or_auto,
        metavar="N|auto",
        help="requests in flight (default 16); auto grows while the server gains from it and shrinks on HTTP 429 "
        "and 503",
    )
    load.add_argument(
        "--retries", type=int, metavar="N", help="repetitions of a request that failed in passing (default 5)"
    )
    load.add_argument(
        "--max-failures",
        type=float,
        metavar="PERCENT",
        help="failed samples above which the run failed (default 5)",
    )
    what = bench.add_argument_group("what is sent")
    add_generation(what)
    what.add_argument(
        "--prompt", metavar="NAME|TEXT", help="evalscope (default), openai, or a text with {question} in it"
    )
    what.add_argument("--system-prompt", metavar="TEXT", help="a system message before the question")
    data = bench.add_argument_group("data and grading")
    data.add_argument(
        "--data", metavar="PATH", help="a local copy: a file, a folder, or one with a folder for each task"
    )
    data.add_argument(
        "--hub",
        choices=["auto", "modelscope", "huggingface"],
        help="where data comes from without --data (default auto)",
    )
    data.add_argument(
        "--dataset-args", metavar="JSON", help="settings of EvalScope's benchmark, e.g. '{\"few_shot_num\": 0}'"
    )
    data.add_argument(
        "--scorer", choices=["integer", "math", "exact", "choice", "contains", "regex", "judge"],
        help="instead of the task's own",
    )  # fmt: skip
    data.add_argument("--pattern", metavar="REGEX", help="for --scorer regex: its last group is the answer")
    data.add_argument("--judge-model", metavar="NAME", help="the model that grades, where a model does")
    data.add_argument("--judge-url", metavar="URL", help="where it answers (key from OSS_EVAL_JUDGE_KEY)")
    add_patience(bench)
    add_results(bench, "every N samples")
    bench.add_argument("--grid", action="store_true", help="print the grid of problems and epochs")
    bench.add_argument(
        "--resume", metavar="RUN", help="go on with a stored run: ask what it lacks, or more (--repeats, --limit, "
        "--reasoning-effort)",
    )  # fmt: skip
    bench.set_defaults(run="bench", parser=bench)


def _add_resume(commands: Any) -> None:
    resume = commands.add_parser(
        "resume",
        help="go on with a stored run that ended too early",
        description="Go on with a run after Ctrl-C, kill -9, a crash, a full disk or a server that went away. A "
        "load sweep measures its unfinished points again, each as a whole; a benchmark asks the samples that it "
        "lacks. Finished work is not asked again. What is not given is as it was in that run, whatever default "
        "stands below.",
        argument_default=argparse.SUPPRESS,
    )
    resume.add_argument("RUN", help="a run id, a unique part of one, a run's folder, or `last`")
    resume.add_argument(
        "--missing",
        action="store_true",
        default=False,
        help="load sweeps: of an unfinished point only the requests that it lacks, with the same prompts, instead "
        "of the whole point with fresh ones",
    )
    add_server(resume, APIS)
    resume.add_argument(
        "--extra-args", metavar="JSON", help="those of the run again, where a secret part of them is not stored"
    )
    add_patience(resume)
    result = resume.add_argument_group("results")
    result.add_argument("--out", type=Path, metavar="DIR", help="where the run is (default results/)")
    result.add_argument("--private", action="store_true", help="new files that nobody else can read (0600)")
    result.add_argument("--json", action="store_true", help="one JSON document on standard output")
    result.add_argument(
        "--log-every-n-query", type=int, metavar="N", help="a progress line every N requests or samples"
    )
    resume.set_defaults(run="resume", parser=resume)


def _add_ask(commands: Any) -> None:
    ask = commands.add_parser(
        "ask",
        help="one question, its answer as it streams, and what it took",
        description="Ask one question. The answer alone goes to standard output.",
        argument_default=argparse.SUPPRESS,
    )
    ask.add_argument("prompt", metavar="PROMPT", help="the question; @FILE to read it, - for standard input")
    add_server(ask, APIS)
    what = ask.add_argument_group("what is sent")
    add_effort(what)
    add_generation(what)
    add_patience(ask, grace=False)
    ask.add_argument("-v", "--verbose", action="store_true", help="the whole request and response as JSON instead")
    ask.set_defaults(run="ask", parser=ask)


def _add_doctor(commands: Any) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="what a server is and takes, and what that means for a measurement",
        description="Look at a server with at most 20 short requests. One line a check: pass, warn or fail. It "
        "waits no longer than 30 s for a first token and between two, and 60 s for a reply, if nothing else is "
        "given.",
        argument_default=argparse.SUPPRESS,
    )
    add_server(doctor, APIS)
    what = doctor.add_argument_group("what is sent")
    add_generation(what)
    add_patience(doctor, grace=False)
    doctor.add_argument("--json", action="store_true", help="one JSON document on standard output")
    doctor.set_defaults(run="doctor", parser=doctor)


def _add_fsck(commands: Any) -> None:
    fsck = commands.add_parser(
        "fsck",
        help="whether a stored run is whole",
        description="Check a run's files, rows and counts, compute its summary again and say what differs. "
        "Changes nothing. Exit code 0: clean, 1: something is wrong.",
    )
    fsck.add_argument("RUN", help="a run id, a unique part of one, a run's folder, or `last`")
    fsck.add_argument("--out", type=Path, metavar="DIR", default=Path("results"), help="default results/")
    fsck.add_argument("--json", action="store_true", help="one JSON document on standard output")
    fsck.set_defaults(run="fsck", parser=fsck)


def _add_view(commands: Any) -> None:
    view = commands.add_parser(
        "view",
        help="the results in a browser",
        description="Show stored runs in a browser: scores, effort frontiers, samples, load curves, time lines, "
        "comparisons. Runs that are still going show their progress. Ctrl-C ends it.",
    )
    view.add_argument(
        "folders", nargs="*", metavar="FOLDER", type=Path, default=[Path("results")],
        help="folders of results, or single runs (default results/)",
    )  # fmt: skip
    view.add_argument("--port", type=int, metavar="N", help="default: the first free one from 7860")
    view.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="default 127.0.0.1: this machine only"
    )
    view.add_argument("--lang", choices=["en", "zh"], default="en", help="language of the first page")
    view.add_argument("--auth", metavar="USER:PASS", help="ask for these; needed for another host than loopback")
    view.add_argument("--allow-anonymous", action="store_true", help="let anybody who reaches the address read")
    view.add_argument("--share", action="store_true", help="a public address through Gradio's servers")
    view.set_defaults(run="view", parser=view)


def _add_report(commands: Any) -> None:
    report = commands.add_parser(
        "report",
        help="a run as one HTML file",
        description="Write a run's tables and figures into one HTML file that needs nothing else.",
    )
    report.add_argument("RUN", help="a run id, a unique part of one, a run's folder, or `last`")
    report.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), metavar="FILE", help="default report.html"
    )
    report.add_argument(
        "--out", type=Path, metavar="DIR", default=Path("results"), help="where runs are (default results/)"
    )
    report.add_argument("--lang", choices=["en", "zh"], default="en", help="language")
    report.set_defaults(run="report", parser=report)


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
    calibrate.set_defaults(run="calibrate", parser=calibrate)


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
    simulate.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME[:P]",
        help="be faulty, with probability P a request (default 1); docs/reliability.md lists the faults, "
        "`all:0.02` is every one but tls with this probability; may be repeated",
    )
    simulate.add_argument(
        "--answers",
        type=Path,
        metavar="FILE",
        help="an answer key, as sim:// benchmark runs leave one: its questions are answered as the profile states",
    )
    simulate.set_defaults(run="simulate", parser=simulate)
