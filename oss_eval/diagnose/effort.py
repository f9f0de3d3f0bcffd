"""Whether a server takes a reasoning effort, in which form, and whether it has an effect."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from oss_eval.diagnose.check import PASS, WARN, Check
from oss_eval.diagnose.connect import ServerSession
from oss_eval.load.client import Answer

EFFECT = 1.25
"""More tokens at high than at low effort by this factor count as an effect."""
THINKING = 768
"""Maximum length of an answer that shows the effort."""
SLOW_SECONDS = 15.0
"""Seconds for an answer above which one question is asked instead of three."""
HIDDEN_TOKENS = 32
"""More tokens than characters of text by this number are reasoning that the server doesn't send."""

QUESTIONS = (
    "How many prime numbers lie between 30 and 60? Answer with the number.",
    "A rectangle has area 48 and perimeter 28. What is its longer side? Answer with the number.",
    "How many three-digit numbers have digits that sum to 4? Answer with the number.",
)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The questions at one effort."""

    tokens: float = 0.0
    """Mean of the answers."""
    reasoned: bool = False
    """Whether any answer has reasoning."""
    refused: str | None = None
    """The server's error text if it refuses."""


def effort_checks(line: ServerSession, most_requests: int) -> list[Check]:
    """Which effort style the server accepts, and whether it has an effect. Asks until the session has sent
    `most_requests`.

    An effect is more tokens at high than at low effort, of a model that reasons: the length of other models'
    answers differs by chance.
    """
    if line.server.endpoint.api == "completions":
        return [Check("effort", PASS, "not looked at: the completions API has no field for it")]
    begun = time.monotonic()
    first = line.ask(QUESTIONS[0], line.generation(max_tokens=THINKING))
    if first.record.status == "timeout":
        seen = f"an answer of up to {THINKING} tokens did not end in time ({first.record.error_message})"
        advice = "whether it has an effect was not looked at; --total-timeout waits longer"
        return [Check("effort", WARN, seen, advice)]
    slow = time.monotonic() - begun > SLOW_SECONDS
    checks: list[Check] = []
    reasons = _reasoned(first)
    taken = False
    for number, style in enumerate(_styles(line)):
        questions = QUESTIONS[:1] if slow else QUESTIONS if number == 0 else QUESTIONS[:2]
        if line.requests_sent + 2 * len(questions) > most_requests:
            break
        line.capabilities = replace(line.capabilities, effort_style=style)
        low = _ask_all(line, "low", questions)
        high = low if low.refused else _ask_all(line, "high", questions)
        reasons |= low.reasoned or high.reasoned
        if high.refused:
            checks.append(Check("effort", WARN, f"{style}: refused, {high.refused[:80]}"))
            continue
        taken = True
        if low.tokens >= THINKING and reasons:
            seen = f"{style}: could not be told, answers were cut at {THINKING} tokens"
            return [*checks, Check("effort", WARN, seen)]
        if reasons and low.tokens and high.tokens / low.tokens >= EFFECT:
            times = high.tokens / low.tokens
            seen = f"{style}: {low.tokens:.0f} tokens at low, {high.tokens:.0f} at high ({times:.1f} times)"
            return [*checks, Check("effort", PASS, seen, "" if number == 0 else f"use --effort-style {style}")]
        seen = f"{style}: taken, but {low.tokens:.0f} tokens at low and {high.tokens:.0f} at high"
        checks.append(Check("effort", WARN, seen, "the server ignores it in this form"))
    if taken and not reasons:
        return [Check("effort", PASS, "the model sends no reasoning: an effort changes nothing")]
    advice = "efforts can't be compared on this server"
    return [*checks, Check("effort", WARN, "no way of asking had an effect", advice)]


def _styles(line: ServerSession) -> list[str]:
    """The style in use first, then the others."""
    found = [line.capabilities.effort_style]
    if line.server.endpoint.api == "chat" and line.task.effort_style == "auto":
        found += [style for style in ("top-level", "chat-template", "system") if style not in found]
    return found


def _ask_all(line: ServerSession, effort: str, questions: tuple[str, ...]) -> _Asked:
    total, reasoned = 0, False
    for question in questions:
        answer = line.ask(question, line.generation(max_tokens=THINKING, reasoning_effort=effort))
        if answer.record.status != "ok":
            return _Asked(refused=answer.record.error_message or answer.record.error_kind or "failed")
        total += answer.record.completion_tokens or 0
        reasoned |= _reasoned(answer)
    return _Asked(total / len(questions), reasoned)


def _reasoned(answer: Answer) -> bool:
    """Whether the model reasoned: beside the answer, in it, or where the server doesn't show it."""
    record, reply = answer.record, answer.reply
    hidden = (record.completion_tokens or 0) > len(reply.text) + len(str(reply.tool_calls)) + HIDDEN_TOKENS
    return bool(reply.reasoning or record.leaked or record.reasoning_tokens or hidden)
