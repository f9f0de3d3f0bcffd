"""Reasoning between tags in the answer."""

from __future__ import annotations

from oss_eval.probe.apis import Delta


class ThinkSplitter:
    """Moves text between <think> and </think> from the answer to the reasoning, however it is split into
    events."""

    OPEN, CLOSE = "<think>", "</think>"

    def __init__(self) -> None:
        self._inside = False
        self._begun = False  # whether the answer has started: a later tag is part of it
        self._held = ""
        """The end of the last piece, if it may be the beginning of a tag."""

    def split(self, delta: Delta) -> None:
        """Sort a delta's text; a piece that may be half a tag waits for the next one."""
        if not delta.text:
            return
        text, self._held = self._held + delta.text, ""
        answer: list[str] = []
        reasoning: list[str] = []
        while text:
            if self._begun:
                answer.append(text)
                break
            tag = self.CLOSE if self._inside else self.OPEN
            before, found, rest = text.partition(tag)
            if not found:
                keep = next((n for n in range(len(tag) - 1, 0, -1) if before.endswith(tag[:n])), 0)
                before, self._held = before[: len(before) - keep], before[len(before) - keep :]
            (reasoning if self._inside else answer).append(before)
            self._begun = not self._inside and bool(before.strip())
            if found and self._begun:
                answer.append(found + rest)
                break
            if found:
                self._inside = not self._inside
            text = rest
        delta.text = "".join(answer)
        delta.reasoning += "".join(reasoning)
        delta.is_answer = bool(delta.text) or bool(delta.tool_calls)

    def rest(self) -> str:
        """Text that was held back as half a tag and was not one."""
        held, self._held = self._held, ""
        return "" if self._inside else held
