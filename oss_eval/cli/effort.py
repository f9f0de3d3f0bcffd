"""`oss-eval effort`: which reasoning effort to use."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from oss_eval.cli.bench import APIS
from oss_eval.cli.options import EndpointSettings, RunSettings, add_flags, share, task_settings
from oss_eval.config.bench_task import BenchTask
from oss_eval.config.fields import HourlyPrice
from oss_eval.errors import UsageError

EPILOG = """examples:
  oss-eval effort --url http://gpu1:8000 --task mine.yaml                            your own questions
  oss-eval effort --url http://gpu1:8000 --task mine.yaml --parallel 32 --slo 'latency_p95<30s'
  oss-eval effort --url http://gpu1:8000 --task aime25 --repeats 8 --margin 0.05 --gpu-price 2.5/h
  oss-eval effort --from last --html sheet.html                                      a stored run, as a page
  oss-eval effort --url sim://gpt-oss-20b-h20?speed=10                               the demonstration
"""
EFFORTS = ("low", "medium", "high")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A task and a server, or a stored run; the margin and the service level."""
    parser.description = (
        "Ask the questions of a task at every reasoning effort, and say which one to use: the cheapest that is "
        "not worse than any other by more than a margin. Quality, tokens, latency at your concurrency "
        "(--parallel) and money side by side, each with its interval."
    )
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.argument_default = argparse.SUPPRESS
    parser.add_argument(
        "--task", metavar="TASK", help="a task by name or a YAML file (default: the demonstration)"
    )
    parser.add_argument(
        "--from", dest="source", metavar="RUN", help="the sheet of a stored benchmark, instead of asking"
    )
    parser.add_argument(
        "--margin", type=partial(share, zero=True), metavar="D",
        help="difference of scores that does not matter (default 0.02)",
    )  # fmt: skip
    parser.add_argument(
        "--slo", nargs="+", action="extend", metavar="CONDITION",
        help="an effort that misses one is not used, e.g. 'latency_p95<30s' 'ttfa_p90<5s' 'success>99%%'",
    )  # fmt: skip
    parser.add_argument(
        "--gpu-price", metavar="PRICE/h", help="price an hour of the server's GPUs, e.g. 2.5/h; else --endpoint's"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the run with its sheet as an HTML file")
    add_flags(parser, BenchTask, EndpointSettings, RunSettings, choices={"api": APIS})


def run(arguments: argparse.Namespace) -> int:
    """Ask, print the sheet, and write it."""
    from oss_eval.analysis.effort_choice import DEFAULTS
    from oss_eval.cli.output import EXIT_CODES, print_json
    from oss_eval.cli.shared import run_options
    from oss_eval.results.reader import find_run
    from oss_eval.run.lifecycle import resume_hint
    from oss_eval.system.terminal import open_console, print_error

    given = _given(arguments)
    options, named = run_options(arguments)
    source, code = vars(arguments).get("source"), 0
    if source is not None:
        asked = [name for name in ("task", *task_settings(BenchTask, arguments)) if name in vars(arguments)]
        if asked:
            flags = " ".join(f"--{name.replace('_', '-')}" for name in asked)
            raise UsageError(
                f"--from takes the answers of a stored run, and {flags} is given", f"leave {flags} out"
            )
        path = find_run(source, options.out)
        settings = {**DEFAULTS, **_stored(path), **given}
    else:
        settings = {**DEFAULTS, **given}
        result = _ask(arguments, options, named, settings)
        path, code = result.path, EXIT_CODES[result.status]
        if result.aborted:
            return code
    document, print_tables = _sheet(path, settings)
    if vars(arguments).get("json"):
        print_json(document)
    print_tables(open_console(stderr=bool(vars(arguments).get("json"))))
    _tell(path, vars(arguments).get("html"), settings)
    if code:
        print_error(
            "the sheet is of the answers that there are", f"{resume_hint(path)}, then oss-eval effort --from last"
        )
    return code


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings of the sheet that are given as flags. Raises UsageError."""
    from oss_eval.analysis import gate
    from oss_eval.analysis.effort_choice import check_slo

    given: dict[str, Any] = {key: vars(arguments)[key] for key in ("margin", "slo") if key in vars(arguments)}
    for text in given.get("slo", ()):
        check_slo(gate.parse(text, "--slo"))
    price = _price(arguments)
    return given if price is None else {**given, "gpu_price": price}


def _stored(path: Path) -> dict[str, Any]:
    """The settings of a stored run's sheet; none of a run that `oss-eval bench` made."""
    from oss_eval.results.manifest import read_manifest

    settings = read_manifest(path).get("effort")
    return settings if isinstance(settings, dict) else {}


def _price(arguments: argparse.Namespace) -> float | None:
    """`--gpu-price 2.5/h`. Raises UsageError."""
    text = vars(arguments).get("gpu_price")
    try:
        return TypeAdapter(HourlyPrice | None).validate_python(text)
    except ValidationError:
        raise UsageError(f"--gpu-price {text} is no price an hour", "for example --gpu-price 2.5/h") from None


def _ask(arguments: argparse.Namespace, options: Any, named: dict[str, Any], settings: dict[str, Any]) -> Any:
    """Run the benchmark; its manifest keeps the sheet's settings."""
    from oss_eval.bench import run as bench
    from oss_eval.bench.select import plans

    given, name = {**named, **task_settings(BenchTask, arguments)}, vars(arguments).get("task", "demo")
    if len(given.get("reasoning_effort", EFFORTS)) < 2:
        raise UsageError("--reasoning-effort names one effort", "name two or more, or leave it out")
    planned = plans([name], given)
    if len(planned[0].task.reasoning_effort) < 2:
        planned = plans([name], {**given, "reasoning_effort": EFFORTS})
    return bench.run(planned, options, effort=settings)


def _sheet(path: Path, settings: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """(the JSON document, what prints the sheet) of a stored benchmark."""
    from oss_eval.analysis.bench_summary import groups
    from oss_eval.analysis.effort_choice import choose_by
    from oss_eval.report import effort
    from oss_eval.report.bench import begun_manifest
    from oss_eval.results.manifest import read_manifest
    from oss_eval.results.reader import read_samples

    if read_manifest(path)["kind"] != "bench":
        raise UsageError(
            f"{path.name} is no benchmark", "an effort sheet needs scores: oss-eval effort --task TASK"
        )
    manifest = begun_manifest(path)
    samples = read_samples(path)
    from oss_eval.results.mirror import place_of

    choices = choose_by(settings, groups(samples, manifest), samples)
    document = {"run_id": manifest["run_id"], "path": place_of(path), "model": manifest["model"]}
    document["simulated"] = bool(manifest["endpoint"].get("simulated"))
    return {**document, **effort.as_json(choices)}, partial(effort.print_sheets, manifest, choices)


def _tell(path: Path, html: Path | None, settings: dict[str, Any]) -> None:
    import sys

    from oss_eval.results.mirror import place_of

    if html is not None:
        from oss_eval.viewer.html_report import write

        write(path, html, "en", settings)
        sys.stderr.write(f"written to {html}\n")
    sys.stderr.write(f"stored in {place_of(path)}\n")
