"""`oss-eval ask`: one question, its answer as it streams, and its metrics."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

from oss_eval.analysis.latency import record_durations
from oss_eval.config.task import Task
from oss_eval.diagnose.connect import ServerSession, open_session
from oss_eval.endpoint.auth import Auth
from oss_eval.endpoint.messages import in_words
from oss_eval.endpoint.server import describe_server
from oss_eval.errors import EndpointError
from oss_eval.load.client import Answer
from oss_eval.records import RequestRecord
from oss_eval.system.terminal import json_text, write_styled

DIM, PLAIN = "\x1b[2m", "\x1b[0m"


def ask(prompt: str, task: Task, auth: Auth, verbose: bool) -> None:
    """Print the answer on standard output as it streams, the rest on standard error. Raises OssEvalError.

    Reasoning is dimmed on a terminal; where standard output is none it goes to standard error, so that the answer
    alone is piped on. With `verbose`, one JSON document follows on standard output instead.
    """
    with open_session(task, auth) as line:
        sys.stderr.write(describe_server(line.server, bool(task.url)) + "\n")
        printer = _Printer(silent=verbose)
        answer = line.ask(prompt, line.generation(), printer.say)
        for note in line.capabilities.notes:
            sys.stderr.write(f"the server refuses a field: {note}\n")
        if not answer.record.n_events:
            printer.say(answer.reply.text, answer.reply.reasoning)
        printer.end()
        if answer.record.status != "ok":
            raise in_words(line.server.endpoint, answer.record, task.connect_timeout)
        silent = not (answer.reply.text or answer.reply.reasoning or answer.reply.tool_calls)
        if verbose:
            sys.stdout.write(json_text(_document(line, answer)))
        sys.stderr.write(summary(answer.record) + "\n")
        if silent:
            raise EndpointError(f"{line.server.endpoint.url}: {' '.join(no_text(answer)[:1])}", no_text(answer)[1])


def no_text(answer: Answer) -> tuple[str, str]:
    """(what a successful response without any text is, what to do about it)."""
    tokens = answer.record.completion_tokens
    counted = "" if tokens is None else f", although the server counts {tokens} tokens"
    field = answer.reply.unknown_field
    if field:
        return (
            f"the answer has no text in a field that oss-eval knows{counted}; the field {field!r} holds one",
            "choose the server's API with --api, or let the server send `content` and `reasoning`",
        )
    return (
        f"the answer has no text{counted}",
        "its tokens are in no readable channel: check the model's chat template, or try --api completions",
    )


class _Printer:
    """Prints answer and reasoning as they stream."""

    def __init__(self, silent: bool) -> None:
        self._silent = silent
        self._terminal = sys.stdout.isatty()
        self._dimmed = self._answered = False

    def say(self, answer: str, reasoning: str) -> None:
        """A piece of the answer or of the reasoning."""
        if self._silent:
            return
        if reasoning:
            self._dim(True)
            (sys.stdout if self._terminal else sys.stderr).write(reasoning)
        if answer:
            if self._dimmed:
                self._dim(False)
                (sys.stdout if self._terminal else sys.stderr).write("\n\n")
            self._answered = True
            sys.stdout.write(answer)
        (sys.stdout if self._terminal else sys.stderr).flush()
        sys.stdout.flush()

    def _dim(self, on: bool) -> None:
        if on != self._dimmed and self._terminal:
            write_styled(DIM if on else PLAIN)
        self._dimmed = on

    def end(self) -> None:
        """End the line."""
        if self._dimmed:
            self._dim(False)
        if self._answered:
            sys.stdout.write("\n")
            sys.stdout.flush()


def summary(record: RequestRecord) -> str:
    """The metrics of an answer, in one line."""
    durations, parts = record_durations(record), []
    ttft, ttfa, tpot = durations["ttft"], durations["ttfa"], durations["tpot"]
    if ttft is not None:
        parts.append(f"TTFT {ttft / 1000:.3f} s")
        if ttfa is not None and ttfa != ttft:
            parts.append(f"TTFA {ttfa / 1000:.3f} s")
    if record.completion_tokens is not None:
        reasoning = f" ({record.reasoning_tokens} reasoning)" if record.reasoning_tokens else ""
        counted = "" if record.token_source == "usage" else f", counted from {record.token_source}"
        parts.append(f"{record.completion_tokens} tokens{reasoning}{counted}")
    if tpot:
        parts.append(f"{1000 / tpot:.1f} tok/s")
    if record.finish_reason:
        parts.append(f"finish_reason {record.finish_reason}")
    return ", ".join(parts) or "no figures"


def _document(line: ServerSession, answer: Answer) -> dict[str, Any]:
    record = asdict(answer.record)
    for name in ("text", "reasoning_text", "event_ns"):
        record.pop(name)
    reply = answer.reply
    response = {"answer": reply.text, "reasoning": reply.reasoning, "tool_calls": reply.tool_calls}
    return {"url": line.server.endpoint.url, "request": line.last_body, "response": response, "record": record}
