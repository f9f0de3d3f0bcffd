"""`perf --turns`: conversations whose history grows with the model's own answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from oss_eval.config.perf_task import PerfTask
from oss_eval.errors import UsageError
from oss_eval.load.prompts.lengths import Lengths
from oss_eval.load.prompts.prompts import Prompt, words
from oss_eval.load.workers.messages import TURNS
from oss_eval.probe.reply import Reply
from oss_eval.records import RequestRecord

Body = Callable[[Any], bytes]
"""The request body of messages, or of a text."""


class Conversations:
    """Conversations of a point: the first request of each, and the next one when an answer has come.

    What the user says is made before, so that between two turns a body is put together and nothing is counted.
    """

    def __init__(self, task: PerfTask, seed: int, lengths: Lengths, data: list[Prompt] | None, api: str) -> None:
        self._task, self._seed, self._lengths, self._data = task, seed, lengths, data
        self._as_text = api in ("completions", "ollama-generate")
        self._bodies: dict[str, Body] = {}
        self._open: dict[tuple[str, int], tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {}
        """Messages so far, and those of the user that follow, by point and number of the conversation."""

    def first(self, point_id: str, body: Body) -> Iterator[bytes]:
        """The first request of each conversation of a point, endless."""
        self._bodies[point_id] = body
        for number in count():
            said = self._said(point_id, number)
            first = next(place for place, one in enumerate(said) if one["role"] == "user") + 1
            history = said[:first]
            self._open[point_id, number] = history, [one for one in said[first:] if one["role"] == "user"]
            yield self._request(point_id, history)

    def next_turn(self, number: int, record: RequestRecord, reply: Reply) -> bytes | None:
        """The request after request `number`, whose answer is `reply`; None where the conversation ends, because
        it is over or the request failed."""
        conversation = record.point_id, number // TURNS
        if record.status != "ok" or conversation not in self._open:
            self._open.pop(conversation, None)
            return None
        history, following = self._open[conversation]
        if not following:
            del self._open[conversation]
            return None
        history += [{"role": "assistant", "content": reply.text}, following.pop(0)]
        return self._request(record.point_id, history)

    def _request(self, point_id: str, history: list[dict[str, Any]]) -> bytes:
        body = self._bodies[point_id]
        if self._as_text:
            return body("\n\n".join(str(message["content"]) for message in history))
        return body(history)

    def _said(self, point_id: str, number: int) -> list[dict[str, Any]]:
        """The messages of a conversation but for the model's answers."""
        rng = random.Random(f"{self._seed}/{point_id}/conversation/{number}")
        assert self._task.turns is not None
        turns = rng.randint(*self._task.turns)
        if self._data is not None:
            messages = _messages(self._data[number % len(self._data)])
            users = [place for place, one in enumerate(messages) if one.get("role") == "user"]
            if not users:
                raise UsageError(f"--data {self._task.data}: conversation {number + 1} has no message of a user")
            last = users[:turns][-1]
            return [dict(one) for one in messages[: last + 1] if one.get("role") != "assistant"]
        shared = random.Random(f"{self._seed}/prefix")
        counter, ratio = self._lengths.counter, self._lengths.words_per_token
        prefix = words(shared, self._task.prefix_length, counter, ratio)
        texts = [
            words(rng, rng.randint(self._task.min_prompt_length, self._task.max_prompt_length), counter, ratio)
            for _ in range(turns)
        ]
        texts[0] = " ".join(filter(None, (prefix, texts[0])))
        return [{"role": "user", "content": text} for text in texts]


def _messages(prompt: Any) -> list[dict[str, Any]]:
    """A row of --data as messages."""
    if isinstance(prompt, dict):
        prompt = prompt.get("messages", prompt.get("prompt"))
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
