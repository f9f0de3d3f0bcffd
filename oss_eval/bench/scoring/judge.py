"""A model as judge, for answers that no rule can compare."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import parse_qsl

from oss_eval.bench.types import ModelOutput, Sample, Score
from oss_eval.config.bench_task import BenchTask
from oss_eval.endpoint.auth import Auth
from oss_eval.endpoint.discovery import find_endpoint
from oss_eval.endpoint.endpoint import Endpoint, parse_url
from oss_eval.errors import UsageError

KEY = "OSS_EVAL_JUDGE_KEY"
TIMEOUT = 300.0

PROMPT = """You grade an answer to a question against a reference answer.

Question:
{question}

Reference answer:
{target}

Answer to grade:
{response}

Does the answer to grade say the same as the reference answer? Differences in wording, form or length don't matter,
differences in substance do. Explain in one sentence, then end with a line that is either
VERDICT: CORRECT
or
VERDICT: INCORRECT"""

_VERDICT = re.compile(r"VERDICT:\s*\**\s*(CORRECT|INCORRECT)\b", re.I)


def judge_endpoint(task: BenchTask, auth: Auth) -> Endpoint:
    """The endpoint of the judge: `judge_url`, else the server under test. Raises UsageError.

    The key of the server under test is not sent to another judge: its key is in OSS_EVAL_JUDGE_KEY or
    OPENAI_API_KEY.
    """
    if task.judge_url:
        return parse_url(task.judge_url, "chat", Auth(key=os.environ.get(KEY)))
    if task.url and task.url[0].startswith("sim://"):
        raise UsageError("the simulator can't judge", "name a server that can: --judge-url URL --judge-model NAME")
    own = Auth(key=os.environ[KEY]) if os.environ.get(KEY) else auth
    endpoint = find_endpoint(task.url[0] if task.url else None, "chat", own)
    if endpoint is None:
        raise UsageError("there is no server for the judge", "name one: --judge-url URL")
    return endpoint


class Judge:
    """Asks a judge model, without streaming and separately from the measured requests."""

    def __init__(self, task: BenchTask, auth: Auth) -> None:
        from openai import OpenAI

        endpoint = judge_endpoint(task, auth)
        self._client = OpenAI(
            base_url=endpoint.base_url,
            api_key=endpoint.api_key or "none",
            default_headers=dict(endpoint.headers),
            default_query=dict(parse_qsl(endpoint.base.query)),
            max_retries=task.retries,
            timeout=TIMEOUT,
        )
        self._model = str(task.judge_model)
        self._prompt = task.judge_prompt or PROMPT

    def grade(self, sample: Sample, output: ModelOutput) -> Score:
        """CORRECT is 1, INCORRECT is 0; any other verdict leaves the sample without a score."""
        texts = {"question": _text(sample.messages), "target": sample.target, "response": output.response}
        prompt = re.sub(r"\{(question|target|response)\}", lambda match: texts[match.group(1)], self._prompt)
        words = self._ask(prompt)
        verdicts = _VERDICT.findall(words)
        if not verdicts:
            return Score(None, unscored=f"the judge gave no verdict: {words[-200:]!r}")
        return Score(float(verdicts[-1].upper() == "CORRECT"), None, f"judge {self._model}")

    def _ask(self, prompt: str) -> str:
        completion = self._client.chat.completions.create(
            model=self._model, messages=[{"role": "user", "content": prompt}]
        )
        return completion.choices[0].message.content or ""

    def close(self) -> None:
        """Close its connections."""
        self._client.close()


def _text(messages: list[dict[str, Any]]) -> str:
    return "\n\n".join(str(message.get("content", "")) for message in messages)
