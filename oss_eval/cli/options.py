"""Flags that several commands share, by group."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

APIS = ("openai", "chat", "completions", "responses", "ollama", "ollama-generate")


def add_server(parser: Any, apis: tuple[str, ...]) -> None:
    """Who is asked, and how it is convinced."""
    who = parser.add_argument_group("who is asked")
    who.add_argument(
        "--url",
        action="append",
        help="server: host root, .../v1, or a full path to an API, query kept; sim://PROFILE for the simulator; "
        "repeat it, and servers take turns (default: OPENAI_BASE_URL, AZURE_OPENAI_ENDPOINT, else the usual local "
        "ports, else the simulator)",
    )
    who.add_argument("--endpoint", metavar="NAME", help="a named endpoint from endpoints.yaml; flags override it")
    who.add_argument("--model", help="model name (default: the only one the server lists)")
    who.add_argument("--api", choices=apis, help="API to use (openai: as the URL's path says, else chat)")
    who.add_argument(
        "--api-key",
        help="better given as OPENAI_API_KEY or AZURE_OPENAI_API_KEY: a flag can be seen by others on the machine",
    )
    who.add_argument(
        "--api-key-header",
        metavar="NAME",
        help="header of the key (default: api-key on Azure, else Authorization)",
    )
    who.add_argument(
        "--header",
        action="append",
        metavar="K:V",
        help="another header; $NAME as value is read from the environment",
    )
    who.add_argument("--entra", action="store_true", help="a Microsoft Entra ID token instead of a key (Azure)")
    who.add_argument("--ca-bundle", metavar="FILE", help="certificates to trust")
    who.add_argument("--insecure", action="store_true", help="trust any certificate")


def add_effort(load: Any) -> None:
    """The efforts to sweep."""
    load.add_argument(
        "--reasoning-effort",
        nargs="+",
        metavar="EFFORT",
        help="efforts to sweep: low medium high, or what the server takes",
    )


def add_generation(what: Any) -> None:
    """Sampling, and how the effort is asked for."""
    what.add_argument("--max-tokens", type=int, metavar="TOKENS", help="longest reply, reasoning included")
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
    what.add_argument(
        "--effort-style",
        choices=["auto", "top-level", "extra-body", "chat-template", "think", "system", "none"],
        help="how the effort is asked for (default auto: as the server is known to take it)",
    )
    what.add_argument(
        "--split-think", action="store_true", help="text between <think> tags in the answer is reasoning"
    )


def add_patience(parser: Any, grace: bool = True) -> None:
    """Timeouts, in seconds, and other limits."""
    patience = parser.add_argument_group("patience and limits")
    patience.add_argument("--connect-timeout", type=float, metavar="S", help="for a connection (default 5)")
    patience.add_argument(
        "--first-token-timeout", type=float, metavar="S", help="until the first token of a stream (default 600)"
    )
    patience.add_argument(
        "--read-timeout",
        type=float,
        metavar="S",
        help="without a byte of a reply, and between two tokens of a stream (default 600)",
    )
    patience.add_argument("--total-timeout", type=float, metavar="S", help="for a whole reply (default 3600)")
    patience.add_argument(
        "--max-response-bytes", type=int, metavar="N", help="cut a larger reply there (default 67108864: 64 MiB)"
    )
    if grace:
        patience.add_argument(
            "--grace", type=float, metavar="S", help="for what is in flight after Ctrl-C or SIGTERM (default 10)"
        )


def add_results(parser: Any, every: str) -> None:
    """Where results go."""
    result = parser.add_argument_group("results")
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
    result.add_argument(
        "--private", action="store_true", help="files that nobody else on this machine can read (0600)"
    )
    result.add_argument("--log-every-n-query", type=int, metavar="N", help=f"a progress line {every}")


def number_or_auto(text: str) -> int | str:
    """argparse: N|auto."""
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor auto") from None
