"""`oss-eval simulate`: the simulator as a server."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from oss_eval.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A profile, an address, and faults."""
    parser.description = (
        "An OpenAI-compatible server whose timing follows a stated model of a real deployment. No model is run."
    )
    parser.add_argument("--profile", default="gpt-oss-20b-h20", help="deployment (default gpt-oss-20b-h20)")
    parser.add_argument("--port", type=int, default=8801, help="default 8801; 0 for any free one")
    parser.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1")
    parser.add_argument("--speed", type=float, default=1.0, help="times faster than the deployment (default 1)")
    parser.add_argument(
        "--tokens-per-chunk", default="1", metavar="N|MIN-MAX",
        help="tokens in each chunk of a stream, as with vLLM's --stream-interval or speculative decoding "
        "(default 1; a range is drawn from)",
    )  # fmt: skip
    parser.add_argument(
        "--truth-log", type=Path, metavar="FILE",
        help="append when each request arrived and each token was written",
    )  # fmt: skip
    parser.add_argument(
        "--fault", action="append", default=[], metavar="NAME[:P]",
        help="inject a fault, with probability P a request (default 1); docs/reliability.md lists the faults, "
        "`all:0.02` is every one but tls with this probability; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--answers", type=Path, metavar="FILE",
        help="an answer key, as sim:// benchmark runs write one: its questions are answered as the profile states",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    from oss_eval.simulator.faults import parse_faults
    from oss_eval.simulator.process import SimulatorUrl, parse_tokens_per_chunk, serve
    from oss_eval.simulator.profiles import get_profile

    profile = get_profile(arguments.profile)
    faults = parse_faults(",".join(arguments.fault))
    if not 0 < arguments.speed < float("inf"):
        raise UsageError(f"--speed {arguments.speed} is not a positive number", "for example: --speed 20")
    _check_truth_log(arguments.truth_log)
    scheme = "https" if "tls" in faults else "http"
    faulty = "".join(f", {name}:{chance:g}" for name, chance in faults.items())

    def announce(port: int) -> None:
        host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        sys.stderr.write(
            f"simulating {profile.name} ({profile.description}) at speed {arguments.speed:g}{faulty}\n"
            f"  {scheme}://{host}:{port}/v1  model {profile.model}   Ctrl-C stops it\n"
        )

    simulator = SimulatorUrl(profile, arguments.speed, faults, parse_tokens_per_chunk(arguments.tokens_per_chunk))
    try:
        serve(simulator, arguments.truth_log, arguments.host, arguments.port, announce, arguments.answers)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"can't serve on {arguments.host}:{arguments.port}: {reason}",
            "choose another --port, or 0 for any",
        ) from None
    return 0


def _check_truth_log(path: Path | None) -> None:
    if path is None:
        return
    try:
        path.open("ab").close()
    except OSError as error:
        raise UsageError(f"can't write the truth log {path}: {error.strerror}") from None
