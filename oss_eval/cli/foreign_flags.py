"""Command lines of EvalScope's `perf` and of `vllm bench serve`: their flags as oss-eval's, or refused by name."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from oss_eval.errors import UsageError

TOOLS = {"evalscope": "evalscope perf", "vllm": "vllm bench serve"}
APIS = {
    "openai": "openai", "vllm": "completions", "openai-chat": "chat", "openai_responses": "responses",
    "responses": "responses",
}  # fmt: skip


@cache
def foreign_flags() -> dict[str, dict[str, dict[str, Any]]]:
    """What becomes of each flag, by tool."""
    import yaml

    found: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(
        (Path(__file__).parent / "foreign_flags.yaml").read_text()
    )
    return found


def translated(arguments: list[str], own: Iterable[str]) -> list[str]:
    """The arguments of `oss-eval perf` with other tools' flags as its own; `own` are the flags that it has. Says
    what has nothing to do. Raises UsageError for a flag that is refused."""
    own = set(own)
    groups = _grouped(arguments)
    names = {flag for flag, _ in groups if flag}
    if not any(flag not in own or flag in _CLASHING for flag in names):
        return arguments
    return _Translation(groups, own).arguments()


_WITHOUT_VALUE = {
    "--enable-progress-tracker", "--no-timestamp", "--disable-tqdm", "--save-result", "--save-detailed",
    "--append-result", "--skip-tokenizer-init", "--disable-shuffle", "--no-self-timed", "--ignore-eos",
    "--open-loop",
    "--apply-chat-template", "--no-apply-chat-template", "--skip-chat-template", "--tokenize-prompt",
}  # fmt: skip
"""What follows one of these is no value of it."""
_CLASHING = {
    "--endpoint", "--header", "--rate", "--request-rate", "--max-tokens", "--dataset-path", "--api", "--parallel",
}  # fmt: skip
"""Flags that oss-eval has, and of which other tools' values differ."""


def _grouped(arguments: list[str]) -> list[tuple[str, list[str]]]:
    """(flag, its values); what stands before the first flag has the flag ''. `--flag=value` is split."""
    groups: list[tuple[str, list[str]]] = [("", [])]
    for argument in arguments:
        if argument.startswith("--") and len(argument) > 2:
            flag, equals, value = argument.partition("=")
            groups.append((flag, [value] if equals else []))
        elif argument == "-n":
            groups.append(("-n", []))
        else:
            groups[-1][1].append(argument)
    return groups


class _Translation:
    """One command line on its way."""

    def __init__(self, groups: list[tuple[str, list[str]]], own: set[str]) -> None:
        self._groups, self._own = groups, own
        self._given: dict[str, list[str]] = {flag: values for flag, values in groups if flag}
        self._out: list[str] = []
        self._extra: dict[str, Any] = {}
        self._ours = False
        """Whether a flag became one of oss-eval's."""

    def arguments(self) -> list[str]:
        """The arguments for oss-eval."""
        for flag, given in self._groups:
            values = given
            if flag in _WITHOUT_VALUE and values:  # the task
                self._out, values = [*self._out, *values], []
            if flag == "--extra-args" or flag == "--extra-body":
                self._merge(flag, values)
            elif (special := _SPECIAL.get(flag)) is not None and special(self, flag, values):
                continue
            elif not flag or flag in self._own:
                self._out += [flag, *values] if flag else values
            else:
                self._foreign(flag, values)
        self._place()
        if self._extra:
            self._out += ["--extra-args", json.dumps(self._extra)]
        return self._out

    def _foreign(self, flag: str, values: list[str]) -> None:
        for tool, flags in foreign_flags().items():
            entry = flags.get(flag)
            if entry is None:
                continue
            if "as" in entry:
                self._out += [entry["as"], *values]
            elif "extra" in entry:
                self._extra[entry["extra"]] = _value(values)
            elif "ignored" in entry:
                sys.stderr.write(f"{flag} ({TOOLS[tool]}) has nothing to do: {entry['ignored']}\n")
            elif "refused" in entry:
                raise UsageError(
                    f"{flag} ({TOOLS[tool]}) is not taken: {entry['refused']}", f"use {entry['instead']}"
                )
            return
        self._out += [flag, *values]  # argparse names it, and what is similar

    def _merge(self, flag: str, values: list[str]) -> None:
        try:
            fields = json.loads(" ".join(values))
            if not isinstance(fields, dict):
                raise ValueError
        except ValueError:
            self._out += ["--extra-args", *values]  # its own message says what is wrong
            return
        self._extra |= fields

    # -- flags that belong together --------------------------------------------------------------------

    def _number(self, flag: str) -> float | None:
        values = self._given.get(flag)
        try:
            return float(values[0]) if values else None
        except ValueError:
            return None

    @property
    def _limited_rate(self) -> bool:
        rate = self._number("--request-rate") or self._number("--rate")
        return rate is not None and 0 < rate < math.inf

    def place(self, flag: str, values: list[str]) -> bool:
        """A part of the URL: all are put together at the end."""
        return not (flag == "--endpoint" and values and not values[0].startswith("/"))

    def _place(self) -> None:
        path = next(iter(self._given.get("--endpoint", [])), "")
        path = path if path.startswith("/") else ""
        host = next(iter(self._given.get("--host", [])), "127.0.0.1")
        port = next(iter(self._given.get("--port", [])), "")
        if "--base-url" in self._given:
            if not path:
                return
            self._out[self._out.index("--url") + 1] += path
        elif path and "--url" in self._given:
            pass  # the URL is whole
        elif path or ({"--host", "--port"} & self._given.keys() and "--url" not in self._given):
            self._out += ["--url", f"http://{host}:{port or 8000}{path}"]

    def rate(self, flag: str, values: list[str]) -> bool:
        """No limit is no open loop."""
        unlimited = bool(values) and all(value in ("inf", "-1", "-1.0") for value in values)
        if unlimited and not {"--max-concurrency", "--parallel"} & self._given.keys():
            raise UsageError(
                f"{flag} {values[0]} alone starts all requests at once", "use --parallel N, or --max-concurrency N"
            )
        return unlimited

    def concurrency(self, flag: str, values: list[str]) -> bool:
        """Requests in flight: a level of a closed loop, a limit of an open one."""
        if self._limited_rate:
            if "--open-loop" not in self._given and len(values) == 1:
                self._out += ["--max-in-flight", *values]
        else:
            self._out += ["--parallel", *values]
        return True

    def parallel(self, flag: str, values: list[str]) -> bool:
        """With a rate the limit of requests in flight, as EvalScope has it."""
        if not self._limited_rate:
            return False
        if len(values) != 1:
            raise UsageError(
                f"--parallel {' '.join(values)} and --rate exclude each other: a level is one or the other",
                "with --rate, one value of --parallel is its --max-in-flight",
            )
        return self.concurrency(flag, values)

    def lengths(self, flag: str, values: list[str]) -> bool:
        """A length, with a ratio a range."""
        target = "--prompt-length" if "input" in flag else "--output-length"
        ratio = self._number("--random-range-ratio")
        if ratio is None and "--random-range-ratio" in self._given:
            raise UsageError(
                f"--random-range-ratio {' '.join(self._given['--random-range-ratio'])} is no number",
                "use --prompt-length MIN-MAX and --output-length MIN-MAX",
            )
        if ratio and values and values[0].isdecimal():
            middle = int(values[0])
            values = [f"{max(1, round(middle * (1 - ratio)))}-{round(middle * (1 + ratio))}"]
        self._out += [target, *values]
        return True

    def max_tokens(self, flag: str, values: list[str]) -> bool:
        """Two values are a range; -1 is no limit."""
        if len(values) == 2:
            self._out += ["--output-length", "-".join(values)]
        elif values != ["-1"]:
            self._out += ["--max-tokens", *values]
        return True

    def headers(self, flag: str, values: list[str]) -> bool:
        """KEY=VALUE is KEY:VALUE."""
        for value in values:
            self._out += ["--header", value if ":" in value.partition("=")[0] else value.replace("=", ":", 1)]
        return True

    def goodput(self, flag: str, values: list[str]) -> bool:
        """`ttft:500` is `ttft<500ms`."""
        names = {"e2el": "latency"}
        pairs = [value.partition(":") for value in values]
        self._out += ["--slo", *(f"{names.get(name, name)}<{limit}ms" for name, _, limit in pairs)]
        return True

    def api(self, flag: str, values: list[str]) -> bool:
        """A backend is an API."""
        name = values[0] if values else ""
        if flag == "--api" and name not in APIS and name not in ("embedding", "openai_embedding", "rerank"):
            return False
        if name not in APIS:
            known = ", ".join(APIS)
            raise UsageError(
                f"{flag} {name} is not taken: it is no API that answers with text", f"there are: {known}"
            )
        self._out += ["--api", "completions" if flag == "--backend" and name == "openai" else APIS[name]]
        return True

    def dataset(self, flag: str, values: list[str]) -> bool:
        """A dataset by its name, and its file."""
        path = self._given.get("--dataset-path") or ["PATH"]
        name = values[0] if values else ""
        if name in ("random", "prefix_repetition"):
            return True
        targets = {"sharegpt": "--data", "custom": "--data", "custom_mm": "--data", "timed_trace": "--trace"}
        if name not in targets:
            raise UsageError(f"--dataset-name {name} is not taken: it is not made here", "use --data FILE")
        self._out += [targets[name], *path]
        return True

    def dataset_path(self, flag: str, values: list[str]) -> bool:
        """Said with the dataset's name."""
        return "--dataset-name" in self._given

    def template(self, flag: str, values: list[str]) -> bool:
        """Whether the server's chat template is applied is a matter of the API."""
        self._out += ["--api", "chat" if flag == "--apply-chat-template" else "completions"]
        return True

    def ignore_eos(self, flag: str, values: list[str]) -> bool:
        """A field of the request."""
        self._extra["ignore_eos"] = True
        return True

    def metadata(self, flag: str, values: list[str]) -> bool:
        """Labels."""
        for value in values:
            self._out += ["--label", value]
        return True

    def nothing(self, flag: str, values: list[str]) -> bool:
        """Said with other flags."""
        return True


Special = Callable[[_Translation, str, list[str]], bool]
"""Whether the flag is done with."""
_SPECIAL: dict[str, Special] = {
    "--host": _Translation.place, "--port": _Translation.place, "--endpoint": _Translation.place,
    "--rate": _Translation.rate, "--request-rate": _Translation.rate,
    "--max-concurrency": _Translation.concurrency, "--parallel": _Translation.parallel,
    "--input-len": _Translation.lengths, "--output-len": _Translation.lengths,
    "--random-input-len": _Translation.lengths, "--random-output-len": _Translation.lengths,
    "--random-range-ratio": _Translation.nothing, "--open-loop": _Translation.nothing,
    "--max-tokens": _Translation.max_tokens, "--custom-output-len": _Translation.max_tokens,
    "--header": _Translation.headers, "--headers": _Translation.headers,
    "--goodput": _Translation.goodput, "--api": _Translation.api, "--backend": _Translation.api,
    "--dataset-name": _Translation.dataset, "--dataset-path": _Translation.dataset_path,
    "--apply-chat-template": _Translation.template, "--no-apply-chat-template": _Translation.template,
    "--skip-chat-template": _Translation.template,
    "--ignore-eos": _Translation.ignore_eos, "--metadata": _Translation.metadata,
}  # fmt: skip


def _value(values: list[str]) -> Any:
    """The values of a flag as JSON; none is true."""
    if not values:
        return True
    found = [_json(value) for value in values]
    return found[0] if len(found) == 1 else found


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
