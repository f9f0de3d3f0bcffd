"""`oss-eval compare`: is B better than A, and am I sure?"""

from __future__ import annotations

import argparse
import sys

from oss_eval.cli.options import add_out

EPILOG = """examples:
  oss-eval compare REFERENCE last                        is this deployment as good as the reference
  oss-eval compare last --by reasoning_effort            which effort: all pairs
  oss-eval compare runA:c64 runB:c64                     two points
  oss-eval compare published:H20-96GB last               a sweep against published figures
  oss-eval compare A B --require 'score > -0.02'         exit 0: not worse by 0.02, 1: worse, 3: can't tell
  oss-eval compare A B --fail-if 'ttft_p99 > +10%'       exit 1 only if that is established
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Runs, how to group them, conditions, and the format."""
    parser.description = (
        "Compare benchmarks or load sweeps: differences with 95% intervals, p-values and a\n"
        "verdict. The first run is A, the baseline. Exit codes: 0 done, 1 a condition fails,\n"
        "2 usage error, 3 a required condition is undecided."
    )
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "RUN",
        nargs="+",
        help="a run id, a unique part of one, a run's folder, or `last`; RUN:POINT for one point; "
        "published:MACHINE for figures that others have published",
    )
    parser.add_argument(
        "--by",
        metavar="KEY",
        help="compare groups of all points: reasoning_effort, model, or label:KEY; all pairs",
    )
    parser.add_argument(
        "--slo", nargs="+", action="extend", default=[], metavar="LIMIT",
        help="load sweeps: compare attainment and goodput within limits of a request, e.g. 'ttft<2s' 'tpot<50ms'",
    )  # fmt: skip
    parser.add_argument(
        "--fail-if", action="append", default=[], metavar="CONDITION",
        help="exit 1 if the whole interval of B - A is so, e.g. 'score < -0.02', 'ttft_p99 > +10%%'; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--require", action="append", default=[], metavar="CONDITION",
        help="exit 0 if the whole interval of B - A is so, 1 if none of it, else 3: 'score > -0.02'; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--format", choices=["text", "markdown", "json", "junit", "html"], default="text", help="default text"
    )
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="same as --format json")
    add_out(parser)


def run(arguments: argparse.Namespace) -> int:
    """Compare, print, and judge the conditions."""
    from oss_eval.analysis import gate
    from oss_eval.analysis.compared_runs import compare, sides, unlike
    from oss_eval.cli.output import print_json
    from oss_eval.errors import UsageError
    from oss_eval.report import compare as report
    from oss_eval.system.terminal import open_console

    failing = [gate.parse(text, "--fail-if") for text in arguments.fail_if]
    required = [gate.parse(text, "--require") for text in arguments.require]
    if arguments.format == "junit" and not failing + required:
        raise UsageError("--format junit has no test without a condition", "add --fail-if or --require")
    limits = dict(gate.limit(text) for text in arguments.slo)
    found = sides(arguments.RUN, arguments.out, arguments.by, limits)
    compared = compare(found, all_pairs=arguments.by is not None)
    differences = report.every(compared)
    fails = [outcome for condition in failing for outcome in gate.on_differences(condition, differences)]
    requires = [outcome for condition in required for outcome in gate.on_differences(condition, differences)]
    outcomes = [*(("--fail-if", o) for o in fails), *(("--require", o) for o in requires)]
    conditions = unlike(found)
    if arguments.format == "text":
        report.print_text(compared, conditions, outcomes, open_console())
    elif arguments.format == "json":
        print_json(report.as_json(compared, conditions, outcomes))
    elif arguments.format == "junit":
        sys.stdout.write(report.as_junit(outcomes))
    else:
        printed = report.as_markdown if arguments.format == "markdown" else report.as_html
        sys.stdout.write(printed(compared, conditions, outcomes))
    return gate.exit_code(fails, requires)
