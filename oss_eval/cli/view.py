"""`oss-eval view`: results in a browser."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from oss_eval.results.mirror import mirror_of, place_of, results_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Folders, and who may see them."""
    parser.description = (
        "Show stored runs in a browser: scores, effort frontiers, samples, load curves, timelines, comparisons. "
        "Runs in progress are shown too. Ctrl-C stops the server."
    )
    parser.add_argument(
        "folders", nargs="*", metavar="FOLDER|URL", type=results_folder, default=[Path("results")],
        help="folders of results, or single runs (default results/); places in object stores, e.g. s3://BUCKET/results",
    )  # fmt: skip
    parser.add_argument("--port", type=int, metavar="N", help="default: the first free one from 7860")
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="default 127.0.0.1: this machine only"
    )
    parser.add_argument("--lang", choices=["en", "zh"], default="en", help="language of the first page")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME",
        help="another name under which browsers may ask for the viewer, such as that of a proxy; can be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--auth", metavar="@FILE|USER:PASS",
        help="login, required for a host other than loopback: a file that holds USER:PASS, or the pair itself, "
        "which others on this machine can see; default $OSS_EVAL_VIEW_AUTH",
    )  # fmt: skip
    parser.add_argument("--allow-anonymous", action="store_true", help="let everyone read who reaches the address")
    parser.add_argument("--share", action="store_true", help="a public address through Gradio's servers")


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    from oss_eval.viewer.auth import checked

    auth = checked(arguments.host, arguments.share, arguments.auth, arguments.allow_anonymous)
    from oss_eval.viewer.app import serve

    def announce(local: str, public: str | None) -> None:
        folders = " ".join(map(place_of, arguments.folders))
        sys.stderr.write(f"showing {folders} at {local}   Ctrl-C stops it\n")
        if public:
            sys.stderr.write(f"  and publicly at {public}\n")

    mirrors = [mirror for mirror in map(mirror_of, arguments.folders) if mirror is not None]
    with contextlib.ExitStack() as following:
        for mirror in mirrors:
            following.enter_context(mirror.following())
        try:
            serve(
                arguments.folders, arguments.host, arguments.port, arguments.lang, arguments.share, auth,
                arguments.allow_host, announce,
            )  # fmt: skip
        except KeyboardInterrupt:
            sys.stderr.write("\n")
    return 0
