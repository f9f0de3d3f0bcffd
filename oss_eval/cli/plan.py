"""`oss-eval plan`: how many answers does it take."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from oss_eval.cli.options import add_out, share
from oss_eval.errors import UsageError

if TYPE_CHECKING:
    from oss_eval.report.plan import AnswerPlan

EPILOG = """examples:
  oss-eval plan aime25 --detect 0.05 --from last           the difficulty, tokens and times of a stored run
  oss-eval plan aime25 --detect 0.03 --problems 30 --score 0.9
"""


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A task, what is to be found, and where the difficulty of its problems comes from."""
    parser.description = (
        "How many answers to each problem it takes to find a difference between two runs, and how narrow the "
        "intervals of a score become."
    )
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("task", metavar="TASK", help="the benchmark")
    parser.add_argument(
        "--detect", type=share, default=0.05, metavar="D", help="difference of scores (default 0.05)"
    )
    parser.add_argument("--power", type=share, default=0.9, metavar="P", help="chance to find it (default 0.9)")
    parser.add_argument(
        "--from", dest="source", metavar="RUN", help="a stored run of the task: its spread and cost"
    )
    parser.add_argument("--problems", type=int, metavar="N", help="number of problems (default: that of --from)")
    parser.add_argument("--score", type=share, metavar="S", help="expected score, without --from")
    parser.add_argument(
        "--spread", type=_positive, default=1.0, metavar="C",
        help="without --from: concentration of the problems' difficulty; below 1 most are always right or always "
        "wrong, above 10 they are alike (default 1)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    add_out(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan of each effort."""
    from oss_eval.cli.output import print_json
    from oss_eval.report import plan as report
    from oss_eval.system.terminal import open_console

    plans = _plans(arguments)
    if arguments.json:
        print_json(report.as_json(plans))
    else:
        report.print_plans(plans, open_console())
    return 0


def _plans(arguments: argparse.Namespace) -> list[AnswerPlan]:
    from oss_eval.analysis.plan_answers import stated
    from oss_eval.report import plan as report
    from oss_eval.results.reader import find_run

    if arguments.problems is not None and arguments.problems < 1:
        raise UsageError(f"--problems {arguments.problems} is not above 0", "give the number of problems")
    if arguments.source is not None:
        return report.from_run(
            find_run(arguments.source, arguments.out), arguments.task, arguments.detect, arguments.power,
            arguments.problems,
        )  # fmt: skip
    if arguments.problems is None or arguments.score is None:
        raise UsageError(
            "the number of problems and the expected score are not known",
            f"--from RUN (a stored run of {arguments.task}), or --problems N --score S",
        )
    spread = stated(arguments.score, arguments.spread)
    return [report.planned(arguments.task, None, spread, arguments.problems, arguments.detect, arguments.power)]
