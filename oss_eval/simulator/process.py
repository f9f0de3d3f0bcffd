"""The simulator as a process of its own: started, found by its port, and gone when its starter is.

`python -m oss_eval.simulator.process` reads its settings as one JSON line on standard input, answers with the
port it listens on, and ends when standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from oss_eval.errors import EndpointError, UsageError
from oss_eval.simulator.faults import Faults, parse_faults
from oss_eval.simulator.profiles import Paced, Profile, get_profile
from oss_eval.system import child_process

MODULE = "oss_eval.simulator.process"
NOBODY_ASKS = signal.SIGUSR1
"""To itself, when its starter is gone: the signals that end programs do not reach a child process."""


@dataclass(frozen=True, slots=True)
class SimulatorUrl:
    """The settings in a sim:// URL."""

    profile: Profile
    speed: float = 1.0
    faults: dict[str, float] = field(default_factory=dict)
    """Probabilities of faults, by name."""
    tokens_per_chunk: tuple[int, int] = (1, 1)
    """Fewest and most tokens in a chunk of a stream."""
    prefix_cache: bool = False
    """Whether prompt tokens that an earlier prompt began with need no prefill."""


def parse_sim_url(url: str) -> SimulatorUrl:
    """`sim://PROFILE?speed=20&fault=reset:0.02&tokens-per-chunk=1-8&prefix-cache=on&solve=low:0.5,high:0.9` (share
    of right answers); `paced` also takes `rate` (tokens/s of a stream) and `ttft` (ms).

    Raises UsageError that says what is wrong.
    """
    parts = urlsplit(url)
    profile = get_profile(parts.netloc)
    known = ["speed", "fault", "tokens-per-chunk", "prefix-cache", "solve"] + (
        ["rate", "ttft"] if isinstance(profile, Paced) else []
    )
    per_chunk, cached = (1, 1), False
    values: dict[str, float] = {}
    faults: dict[str, float] = {}
    for key, text in parse_qsl(parts.query, keep_blank_values=True):
        if key == "fault":
            faults |= parse_faults(text)
            continue
        if key == "tokens-per-chunk":
            per_chunk = parse_tokens_per_chunk(text)
            continue
        if key == "prefix-cache":
            if text not in ("on", "off"):
                raise UsageError(f"{url!r}: prefix-cache={text} is neither on nor off")
            cached = text == "on"
            continue
        if key == "solve":
            profile = replace(profile, solve_rate={**profile.solve_rate, **_solve_rates(text)})
            continue
        if key not in known:
            raise UsageError(f"{url!r}: {profile.name} has no setting {key!r}", f"there is: {', '.join(known)}")
        try:
            values[key] = float(text)
        except ValueError:
            values[key] = 0.0
        if not 0 < values[key] < float("inf"):
            raise UsageError(f"{url!r}: {key}={text} is no positive number", f"try sim://{profile.name}?{key}=20")
    speed = values.pop("speed", 1.0)
    if isinstance(profile, Paced):
        profile = replace(
            profile,
            token_rate=values.get("rate", profile.token_rate),
            ttft_ms=values.get("ttft", profile.ttft_ms),
        )
    return SimulatorUrl(profile, speed, faults, per_chunk, cached)


def _solve_rates(text: str) -> dict[str, float]:
    """`low:0.5,high:0.9`. Raises UsageError."""
    rates = {}
    for part in text.split(","):
        effort, _, share = part.partition(":")
        try:
            rates[effort] = float(share)
        except ValueError:
            rates[effort] = 0.0
        if not effort or not 0 < rates[effort] < 1:
            raise UsageError(
                f"solve={text}: {part!r} is no share of right answers between 0 and 1", "solve=low:0.5,high:0.9"
            )
    return rates


def parse_tokens_per_chunk(text: str) -> tuple[int, int]:
    """`4`, or a range `1-8`. Raises UsageError."""
    low, _, high = text.partition("-")
    if not low.isdecimal() or not (high or low).isdecimal() or not 1 <= int(low) <= int(high or low) <= 1024:
        raise UsageError(f"tokens per chunk {text!r} is neither a number nor a range", "for example: 4, or 1-8")
    return int(low), int(high or low)


@contextlib.contextmanager
def running(url: str, truth: Path | None = None, answers: Path | None = None) -> Iterator[str]:
    """A simulator in its own process; yields its base URL, and ends it on exit."""
    settings = {"url": url, "truth": truth and str(truth), "answers": answers and str(answers)}
    with child_process.serving(MODULE, settings, 5.0) as (_, line):
        if not line.isdigit():
            raise EndpointError("the simulator did not start", "oss-eval simulate shows why")
        scheme = "https" if Faults(parse_sim_url(url).faults).tls else "http"
        yield f"{scheme}://127.0.0.1:{int(line)}/v1"


def serve(
    what: SimulatorUrl,
    truth: Path | None,
    host: str,
    port: int,
    announce: Any,
    answers: Path | None = None,
) -> None:
    """Run a simulator in this process until it is interrupted; `announce(port)` is called when it listens."""
    import uvloop

    from oss_eval.simulator.prefix_cache import PrefixCache
    from oss_eval.simulator.server import Simulator

    simulator = Simulator(what.profile, what.speed, truth, answers, Faults(what.faults), what.tokens_per_chunk)
    simulator.prefixes = PrefixCache() if what.prefix_cache else None
    listener = simulator.listen(host, port)
    # A garbage collection would stop every stream; the server makes no cycles.
    gc.freeze()
    gc.disable()

    async def until_told() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM, NOBODY_ASKS):
            loop.add_signal_handler(number, task.cancel)
        announce(listener.getsockname()[1])
        with contextlib.suppress(asyncio.CancelledError):
            await simulator.serve(listener)

    uvloop.run(until_told())


def _child() -> None:
    line = sys.stdin.readline()
    if not line:
        return  # its starter was stopped just then
    settings = json.loads(line)
    truth, answers = (Path(settings[key]) if settings[key] else None for key in ("truth", "answers"))

    def announce(port: int) -> None:
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()

        def leave_with_parent() -> None:
            sys.stdin.read()
            os.kill(os.getpid(), NOBODY_ASKS)

        threading.Thread(target=leave_with_parent, daemon=True).start()

    serve(parse_sim_url(settings["url"]), truth, "127.0.0.1", 0, announce, answers)


if __name__ == "__main__":
    _child()
