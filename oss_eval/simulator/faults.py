"""What a faulty server does, on command: the faults by name, and which request meets which.

What each does is in `fault_injection`; how the client has to report it is here, beside it, so that tests, the
documentation's matrix and the soak hold the client to the same words.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from difflib import get_close_matches

from oss_eval.errors import UsageError

TIMEOUTS = ("timeout_first_token", "timeout_idle", "timeout_total")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault."""

    name: str
    what: str
    """Description of the fault."""
    seen: tuple[str | None, ...]
    """Possible results of a streamed request, by error_kind; None: it succeeds."""
    whole: bool = True
    """Whether it applies to responses that are not streamed."""
    server: bool = False
    """Whether it hits the whole server: its probability is per second, not per request."""


FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault("refuse", "no connection is taken for a second", (None, "connect"), server=True),
        Fault("restart", "all connections are reset, a second later it listens again",
              ("stream_broken", "connect"), server=True),
        Fault("tls", "an expired certificate of its own", ("tls",), server=True),
        Fault("silence", "the request is taken and never answered", TIMEOUTS),
        Fault("slow-headers", "half of the head comes two seconds before the rest", (None, *TIMEOUTS)),
        Fault("429", "429 without Retry-After", ("http_429",)),
        Fault("429-after", "429 with Retry-After: 1", ("http_429",)),
        Fault("500", "500 with a page of HTML", ("http_5xx",)),
        Fault("502", "502 with a page of HTML", ("http_5xx",)),
        Fault("503", "503 with a page of HTML", ("http_5xx",)),
        Fault("reset", "the connection is reset in the middle", ("stream_broken",)),
        Fault("close", "the connection is closed in the middle", ("stream_broken",)),
        Fault("cut", "the response ends in the middle, without stop reason and [DONE]", ("stream_broken",),
              whole=False),
        Fault("error", "an error object after HTTP 200", ("stream_error",)),
        Fault("bad-json", "an event that is not JSON", ("decode",)),
        Fault("bad-utf8", "an event that is not UTF-8", ("decode",)),
        Fault("huge", "an event of 10 MB", (None, "too_large"), whole=False),
        Fault("trickle", "after three tokens one every 30 s", (None, "timeout_idle", "timeout_total"),
              whole=False),
        Fault("length-over", "a Content-Length beyond the end", ("stream_broken",)),
        Fault("length-under", "a Content-Length before the end", ("stream_broken", "decode")),
        Fault("gzip", "a compressed body that nobody asked for", (None,)),
        Fault("usage-twice", "usage is sent twice", (None,), whole=False),
        Fault("role-only", "a role, [DONE], and nothing else", ("empty",), whole=False),
        Fault("burst", "10,000 tokens in one write", (None,), whole=False),
        Fault("close-after", "the connection is closed after every response, without notice", (None,)),
    )
}  # fmt: skip


class Faults:
    """Faults and their probabilities."""

    def __init__(self, chances: dict[str, float] | None = None) -> None:
        self.chances = chances or {}
        self._rng = random.Random(0)
        self._requests = [(name, chance) for name, chance in self.chances.items() if not FAULTS[name].server]

    @property
    def tls(self) -> bool:
        """Whether the server uses TLS with an untrusted certificate."""
        return "tls" in self.chances

    def of_request(self) -> str | None:
        """The fault of the next request, or None."""
        if not self._requests:
            return None
        at = self._rng.random()
        for name, chance in self._requests:
            at -= chance
            if at < 0:
                return name
        return None

    def of_second(self) -> str | None:
        """The fault that hits the server in the next second, or None."""
        for name in ("restart", "refuse"):
            if self._rng.random() < self.chances.get(name, 0.0):
                return name
        return None


def parse_faults(text: str) -> dict[str, float]:
    """`reset`, `reset:0.02,500:0.1` or `all:0.02`, as chances by name. Raises UsageError that says what is wrong.

    `all` is every fault that a request can meet or that passes; `tls` has to be asked for by name.
    """
    chances: dict[str, float] = {}
    for item in filter(None, text.split(",")):
        name, colon, number = item.partition(":")
        try:
            chance = float(number) if colon else 1.0
        except ValueError:
            chance = -1.0
        if not 0 <= chance <= 1:
            raise UsageError(f"fault={item}: {number} is no probability", f"for example: fault={name}:0.02")
        if name != "all" and name not in FAULTS:
            near = get_close_matches(name, FAULTS, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UsageError(f"fault={item}: unknown fault", f"{hint}there are: all, {', '.join(FAULTS)}")
        chances |= {name: chance} if name != "all" else {each: chance for each in FAULTS if each != "tls"}
    total = sum(chance for name, chance in chances.items() if not FAULTS[name].server)
    if total > 1 + 1e-9:
        words = f"fault={text}: the probabilities of a request add up to {total:g}"
        raise UsageError(words, "at most 1 in all, for example all:0.02")
    return chances
