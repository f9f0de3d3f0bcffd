"""The command line: one function a command, and the only place that prints errors and exits."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oss_eval.cli.parser import parse
from oss_eval.errors import OssEvalError, TaskError, UsageError
from oss_eval.system.pipes import ignore_broken_pipe, print_error
from oss_eval.system.signals import Interrupts, clear_unhandled_flag, reraise_lost_interrupts

if TYPE_CHECKING:
    from oss_eval.run.lifecycle import RunResult
    from oss_eval.run.options import RunOptions

INTERRUPTED = 130
EXIT_CODES = {"finished": 0, "failed": 1, "interrupted": INTERRUPTED}


# -- commands ---------------------------------------------------------------------------------------------------

ORDER_KEYS = (
    "out", "name", "label", "log_every_n_query", "grace", "private",
    "endpoint", "api_key", "api_key_header", "header", "entra", "ca_bundle", "insecure",
)  # fmt: skip
COMMAND_KEYS = (*ORDER_KEYS, "command", "run", "parser", "task", "tasks", "json", "grid", "resume", "RUN",
                "missing")  # fmt: skip


def _typed(arguments: argparse.Namespace) -> dict[str, Any]:
    """The task's keys among what was typed."""
    return {key: value for key, value in vars(arguments).items() if key not in COMMAND_KEYS}


def _order(arguments: argparse.Namespace) -> tuple[RunOptions, dict[str, Any]]:
    """What the command adds to a task, and the task's keys that a named endpoint sets."""
    from oss_eval.endpoint import auth, profiles
    from oss_eval.run.options import GRACE, RunOptions

    given = vars(arguments)
    every = given.get("log_every_n_query")
    if every is not None and every < 1:
        raise UsageError(f"--log-every-n-query {every}: must be at least 1")
    if not 0 <= given.get("grace", GRACE) < float("inf"):
        raise UsageError(f"--grace {given['grace']:g}: must be seconds, at least 0")
    if given.get("private"):
        os.umask(0o077)  # the simulator's and the workers' files too
    name, values, base = given.get("endpoint"), {}, auth.Auth()
    if name is not None:
        values = profiles.profile(name)
        base = profiles.profile_access(name, values)
    if "api_key" in given:
        sys.stderr.write("oss-eval: --api-key can be seen by others on this machine; OPENAI_API_KEY can't\n")
    own = auth.Auth(
        key=given.get("api_key", base.key),
        key_header=given.get("api_key_header", base.key_header),
        headers=(*base.headers, *map(auth.header, given.get("header", []))),
        entra=given.get("entra", base.entra),
        ca_bundle=given.get("ca_bundle", base.ca_bundle),
        insecure=given.get("insecure", base.insecure),
    )
    order = RunOptions(
        out=given.get("out", Path("results")),
        name=given.get("name"),
        labels={
            **{str(k): str(v) for k, v in (values.get("labels") or {}).items()},
            **_labels(given.get("label", [])),
        },
        auth=own,
        profile=name,
        prices=values.get("prices"),
        log_every=every,
        grace=given.get("grace", GRACE),
    )
    return order, {key: values[key] for key in profiles.TASK_KEYS if key in values}


def perf_command(arguments: argparse.Namespace) -> int:
    """`oss-eval perf`."""
    from oss_eval.config.task import PerfTask, validated
    from oss_eval.config.task_files import DEFAULT, overridden
    from oss_eval.perf.sweep import run

    order, named = _order(arguments)
    values = overridden(vars(arguments).get("task", DEFAULT), {**named, **_typed(arguments)})
    return _ended(run(validated(PerfTask, values, "oss-eval perf"), order), arguments)


def _ended(made: RunResult, arguments: argparse.Namespace) -> int:
    """Show a run that has just been made; its exit code, whoever reads it."""
    from oss_eval.run.lifecycle import resume_hint

    _shown(made, arguments)
    if made.status != "finished":
        # A sweep without a success has nothing left to ask: resuming it would change nothing.
        reason = made.reason or "every request failed"
        with Interrupts() as interrupts, interrupts.counted():
            print_error(reason, resume_hint(made.path) if made.reason else "")
    return EXIT_CODES[made.status]


def _shown(made: RunResult, arguments: argparse.Namespace) -> None:
    """The tables of a run that has just been made, unless somebody is in a hurry."""
    given = vars(arguments)
    if made.aborted:
        return
    try:
        _show(made.path, given.get("json", False), given.get("grid", False))
        sys.stdout.flush()
    except BrokenPipeError:
        ignore_broken_pipe()
    except KeyboardInterrupt:
        if made.status == "finished":
            raise
        # Stopped once more: how to go on is said all the same.


def resume_command(arguments: argparse.Namespace) -> int:
    """`oss-eval resume`."""
    from oss_eval.bench import remaining as bench_resume
    from oss_eval.bench.run import run as run_bench
    from oss_eval.perf import remaining as perf_resume
    from oss_eval.perf.sweep import run as run_perf
    from oss_eval.results.reader import find_run, read_manifest

    stored = find_run(arguments.RUN, vars(arguments).get("out", Path("results")))
    profile = (read_manifest(stored).get("endpoint") or {}).get("name")
    if profile and "url" not in vars(arguments):
        vars(arguments).setdefault("endpoint", profile)  # its key and its prices are in no file of the run
    order, named = _order(arguments)
    typed = {**named, **_typed(arguments)}
    if read_manifest(stored).get("kind") != "bench":
        made = run_perf(perf_resume.sweep(stored, typed), order, resumed=stored, missing=arguments.missing)
    elif arguments.missing:
        raise UsageError(
            "--missing is for load sweeps", "a benchmark is always asked for its missing samples alone"
        )
    else:
        made = run_bench(bench_resume.plans(read_manifest(stored), typed), order, stored)
    return _ended(made, arguments)


def bench_command(arguments: argparse.Namespace) -> int:
    """`oss-eval bench`."""
    from oss_eval.bench import remaining
    from oss_eval.bench.run import run
    from oss_eval.bench.select import plans
    from oss_eval.results.reader import find_run, read_manifest

    order, named = _order(arguments)
    typed = {**named, **_typed(arguments)}
    stored: Path | None = None
    if "resume" in vars(arguments):
        if vars(arguments).get("tasks"):
            raise UsageError("--resume goes on with the tasks of the stored run", "leave the task names out")
        stored = find_run(arguments.resume, order.out)
        todo = remaining.plans(read_manifest(stored), typed)
    else:
        todo = plans(vars(arguments).get("tasks", []), typed)
    return _ended(run(todo, order, stored), arguments)


def _question(arguments: argparse.Namespace, skip: tuple[str, ...]) -> tuple[Any, Any]:
    """(task, access) of a command that asks single questions."""
    from oss_eval.config.task import Task, validated

    order, named = _order(arguments)
    typed = {key: value for key, value in _typed(arguments).items() if key not in skip}
    return validated(Task, {**named, **typed}, f"oss-eval {arguments.command}"), order.auth


def ask_command(arguments: argparse.Namespace) -> int:
    """`oss-eval ask`."""
    from oss_eval.diagnose.ask import ask
    from oss_eval.load.prompts.prompts import read_prompt

    task, auth = _question(arguments, ("prompt", "verbose"))
    prompt = sys.stdin.read() if arguments.prompt == "-" else read_prompt(arguments.prompt)
    prompt = prompt.encode("utf-8", "replace").decode()  # an argument can hold what no UTF-8 text can
    ask(prompt, task, auth, vars(arguments).get("verbose", False))
    return 0


def doctor_command(arguments: argparse.Namespace) -> int:
    """`oss-eval doctor`."""
    from rich.console import Console
    from rich.text import Text

    from oss_eval.diagnose.doctor import FAIL, PASS, PATIENCE, WARN, Check, as_json, examine

    for name, seconds in PATIENCE.items():
        vars(arguments).setdefault(name, seconds)
    task, auth = _question(arguments, ())
    console = Console(stderr="json" in vars(arguments), highlight=False)
    styles = {PASS: "green", WARN: "yellow", FAIL: "red"}

    def tell(check: Check) -> None:
        line = Text(f"{check.verdict:<5}", styles[check.verdict]).append(f"{check.name}: {check.seen}", "default")
        console.print(line.append(f"\n     → {check.advice}" if check.advice else "", "bright_black"))

    checks = examine(task, auth, tell)
    if "json" in vars(arguments):
        import orjson

        sys.stdout.write(orjson.dumps(as_json(checks), option=orjson.OPT_INDENT_2).decode() + "\n")
    return 1 if any(check.verdict == FAIL for check in checks) else 0


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
    from oss_eval.results.reader import find_run, read_manifest, status_of

    path = find_run(arguments.RUN, arguments.out)
    _show(path, arguments.json, arguments.grid)
    manifest = read_manifest(path)
    if manifest["kind"] in ("perf", "bench") and status_of(path, manifest) in ("broken off", "interrupted"):
        from oss_eval.run.lifecycle import resume_hint

        sys.stderr.write(f"  → {resume_hint(path)}\n")
    return 0


def _show(path: Path, as_document: bool, grid: bool = False) -> None:
    """A stored run: tables on standard output, or one JSON document there and the tables on standard error."""
    from rich.console import Console

    from oss_eval.results.reader import read_manifest

    manifest = read_manifest(path)
    kind = manifest["kind"]
    document: Callable[[], Any]
    show: Callable[[Console], None]
    if kind == "bench":
        from oss_eval.report import bench

        document, show = partial(bench.as_json, path), partial(bench.print_scoreboard, path, grid=grid)
    else:
        from oss_eval.analysis.perf_summary import as_json, load_run
        from oss_eval.report.perf import print_report

        report = load_run(path)
        document, show = partial(as_json, report), partial(print_report, report)
        if kind == "calibrate" and manifest["status"] == "finished":
            from oss_eval.diagnose.calibrate import as_rows, compare, print_calibration

            document = lambda: {**as_json(report), "calibration": as_rows(compare(path))}  # noqa: E731
            show = partial(print_calibration, path)
    if as_document:
        import orjson

        sys.stdout.write(orjson.dumps(document(), option=orjson.OPT_INDENT_2).decode() + "\n")
    with contextlib.suppress(SystemExit):  # how rich ends when the reader of a pipe has seen enough
        show(Console(stderr=as_document))
    sys.stderr.write(f"stored in {path}\n")


def fsck_command(arguments: argparse.Namespace) -> int:
    """`oss-eval fsck`."""
    from oss_eval.analysis import fsck
    from oss_eval.results.reader import find_run

    path = find_run(arguments.RUN, arguments.out)
    found = fsck.examine(path)
    document = fsck.as_json(path, found)
    if arguments.json:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        for finding in found:
            sys.stdout.write(f"{finding.level:<4}  {finding.where}: {finding.message}\n")
        sys.stdout.write(f"{path.name}: {'clean' if document['clean'] else 'not as it should be'}\n")
    return 0 if document["clean"] else 1


def view_command(arguments: argparse.Namespace) -> int:
    """`oss-eval view`."""
    from oss_eval.viewer.auth import checked

    auth = checked(arguments.host, arguments.share, arguments.auth, arguments.allow_anonymous)
    from oss_eval.viewer.app import serve

    def announce(local: str, public: str | None) -> None:
        sys.stderr.write(f"showing {' '.join(map(str, arguments.folders))} at {local}   Ctrl-C ends it\n")
        if public:
            sys.stderr.write(f"  and for everybody at {public}\n")

    try:
        serve(arguments.folders, arguments.host, arguments.port, arguments.lang, arguments.share, auth, announce)
    except KeyboardInterrupt:
        sys.stderr.write("\n")
    return 0


def report_command(arguments: argparse.Namespace) -> int:
    """`oss-eval report`."""
    from oss_eval.results.reader import find_run
    from oss_eval.viewer.html_report import write

    write(find_run(arguments.RUN, arguments.out), arguments.output, arguments.lang)
    sys.stderr.write(f"written to {arguments.output}\n")
    return 0


def calibrate_command(arguments: argparse.Namespace) -> int:
    """`oss-eval calibrate`."""
    from oss_eval.diagnose.calibrate import calibrate
    from oss_eval.run.options import RunOptions

    if min(arguments.parallel) < 1:
        raise UsageError(f"--parallel {min(arguments.parallel)}: must be at least 1")
    if not 0 < arguments.token_rate <= 1000:
        raise UsageError(f"--token-rate {arguments.token_rate:g}: must be above 0 and at most 1000")
    order = RunOptions(out=arguments.out, name=arguments.name, labels=_labels(arguments.label or []))
    made = calibrate(tuple(arguments.parallel), arguments.token_rate, order)
    _shown(made, arguments)
    if made.status == "interrupted":
        print_error("interrupted", "a calibration is not resumed: run oss-eval calibrate again")
    return EXIT_CODES[made.status]


def tasks_command(arguments: argparse.Namespace) -> int:
    """`oss-eval tasks`."""
    from oss_eval.config.task_files import read_task, task_files

    lines: dict[str, str] = {}
    for name, path in task_files().items():
        try:
            task = read_task(path)
            lines[name] = f"{task.get('kind', '?'):<6} {task.get('description', '')}"
        except TaskError as error:
            lines[name] = f"can't be used: {error.message}"
    if arguments.all:
        from oss_eval.bench.sources.evalscope_names import described

        lines |= {name: f"bench  EvalScope: {text}" for name, text in described().items() if name not in lines}
    width = max(map(len, lines), default=0)
    for name, line in lines.items():
        sys.stdout.write(f"{name:<{width}}  {line}\n")
    return 0


def evalscope_command(arguments: argparse.Namespace) -> int:
    """`oss-eval evalscope`: EvalScope's own command line, its requests sent through the probe."""
    from evalscope.cli.cli import run_cmd

    from oss_eval.plugin import take_over

    take_over()
    sys.argv = ["evalscope", *arguments.words]
    run_cmd()
    return 0


def simulate_command(arguments: argparse.Namespace) -> int:
    """`oss-eval simulate`."""
    from oss_eval.simulator.faults import parse_faults
    from oss_eval.simulator.process import SimulatorUrl, serve
    from oss_eval.simulator.profiles import get_profile

    profile = get_profile(arguments.profile)
    faults = parse_faults(",".join(arguments.fault))
    if not 0 < arguments.speed < float("inf"):
        raise UsageError(f"--speed {arguments.speed} is no positive number", "for example: --speed 20")

    if arguments.truth_log is not None:
        try:
            arguments.truth_log.open("ab").close()
        except OSError as error:
            raise UsageError(f"can't write the truth log {arguments.truth_log}: {error.strerror}") from None

    scheme = "https" if "tls" in faults else "http"
    faulty = "".join(f", {name}:{chance:g}" for name, chance in faults.items())

    def announce(port: int) -> None:
        host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        sys.stderr.write(
            f"simulating {profile.name} ({profile.description}) at speed {arguments.speed:g}{faulty}\n"
            f"  {scheme}://{host}:{port}/v1  model {profile.model}   Ctrl-C ends it\n"
        )

    try:
        serve(
            SimulatorUrl(profile, arguments.speed, faults),
            arguments.truth_log,
            arguments.host,
            arguments.port,
            announce,
            arguments.answers,
        )
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"can't serve on {arguments.host}:{arguments.port}: {reason}",
            "choose another --port, or 0 for any",
        ) from None
    return 0


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "perf": perf_command,
    "bench": bench_command,
    "resume": resume_command,
    "ask": ask_command,
    "doctor": doctor_command,
    "tasks": tasks_command,
    "show": show_command,
    "fsck": fsck_command,
    "view": view_command,
    "report": report_command,
    "calibrate": calibrate_command,
    "simulate": simulate_command,
    "evalscope": evalscope_command,
}


def _carry_out(argv: list[str] | None) -> int:
    """Run the command that was typed, and say what went wrong. Raises BrokenPipeError."""
    try:
        arguments = parse(argv)
        code = COMMANDS[arguments.run](arguments)
        sys.stdout.flush()
        return code
    except OssEvalError as error:
        print_error(error.message, error.hint)
        return error.exit_code
    except KeyboardInterrupt:
        print_error("interrupted")
        return INTERRUPTED


def main(argv: list[str] | None = None) -> int:
    """Entry point; the exit code. 0 done, 1 measured and failed, 2 can't be done as asked, 130 interrupted."""
    # A job manager's polite stop keeps what was finished, like Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    reraise_lost_interrupts()
    try:
        return _carry_out(argv)
    except BrokenPipeError:
        ignore_broken_pipe()  # `oss-eval show last | head`: the reader has what it wanted
        return 0
    finally:
        if argv is None:  # all that is left is to leave, which another Ctrl-C would only tear apart
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            clear_unhandled_flag()
