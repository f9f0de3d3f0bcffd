"""`oss-eval doctor`: what a server is and supports, and what that means for a measurement. At most 20 requests."""

from __future__ import annotations

import http.client
import json
import select
import time
from collections.abc import Callable
from dataclasses import asdict
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from oss_eval.config.task import Task
from oss_eval.diagnose.ask import no_text
from oss_eval.diagnose.check import FAIL, PASS, WARN, Check
from oss_eval.diagnose.connect import ServerSession, open_session
from oss_eval.diagnose.deployment import deployment_checks
from oss_eval.diagnose.effort import THINKING, effort_checks
from oss_eval.endpoint.auth import Auth
from oss_eval.endpoint.discovery import LISTED, LONGEST_NAME
from oss_eval.endpoint.endpoint import Endpoint
from oss_eval.endpoint.http import MAX_BODY, get
from oss_eval.endpoint.identify import Identity, identify
from oss_eval.endpoint.messages import in_words
from oss_eval.load.client import Answer
from oss_eval.probe.apis import DIALECTS

REQUESTS = 20
"""Maximum number of requests."""
TIMEOUT = 5.0
SKEW_SECONDS = 2.0
ENOUGH_EVENTS = 8
"""With fewer events, arrival in one read may be chance."""
PATIENCE = {"first_token_timeout": 30.0, "read_timeout": 30.0, "total_timeout": 60.0}
"""Timeouts of the requests, so that the examination ends."""
SHORT = 64
"""Maximum length of an answer of which only the connection matters."""
CLOSING_SECONDS = 0.2
"""A server that closes the connection does so in this time after an answer."""

KNOWN_LENGTHS = ("vLLM", "SGLang", "llama.cpp")
"""Engines whose documentation has ignore_eos: docs.vllm.ai, docs.sglang.ai, llama.cpp's tools/server/README.md."""
LENGTH_FLAGS = "--max-tokens N --min-tokens N --extra-args '{\"ignore_eos\": true}'"
NO_LENGTHS = "replies end when the model wants: compare runs by tokens, not by requests"


def examine(task: Task, auth: Auth, tell: Callable[[Check], None], gpu: str | None = None) -> list[Check]:
    """All checks; `tell` gets each one as soon as it is done. `gpu` names the server's machine.

    Raises OssEvalError for a server that can't be used.
    """
    found: list[Check] = []

    def note(check: Check | None) -> None:
        if check is not None:
            found.append(check)
            tell(check)

    with open_session(task, auth) as line:
        endpoint = line.server.endpoint
        identity = identify(endpoint)
        simulated = line.server.simulator is not None or identity.name.startswith("oss-eval")
        note(_server(identity, simulated))
        note(_models(endpoint, line.server.model))
        if not simulated or gpu is not None:
            for check in deployment_checks(line.server, identity, gpu):
                note(check)
        note(_clock(endpoint))
        if endpoint.base.scheme == "https":
            trusted = "any certificate is trusted" if auth.insecure else "certificate trusted"
            note(Check("TLS", WARN if auth.insecure else PASS, trusted))
        answer = _hello(line)
        if answer.record.status == "ok" or not _only_chat_fails(line, answer, task):
            _talk(line, answer, task, identity.name, note)
            return found
        reason = (answer.record.error_message or str(answer.record.error_kind)).splitlines()[0][:160]
        note(Check("chat", FAIL, reason, "completions are looked at instead; base models need --api completions"))
    completions = task.model_copy(update={"api": "completions", "url": [endpoint.base_url + endpoint.query]})
    with open_session(completions, auth) as line:
        _talk(line, _hello(line), completions, identity.name, note)
    return found


def _hello(line: ServerSession) -> Answer:
    return line.ask("Say hello in one short sentence.", line.generation(max_tokens=256))


def _only_chat_fails(line: ServerSession, answer: Answer, task: Task) -> bool:
    """Whether the server refuses a chat in a way that leaves completions to be tried: no chat template, say."""
    status = answer.record.http_status or 0
    return line.server.endpoint.api == "chat" and task.api == "openai" and status in (400, 404, 405, 422, 500, 501)


def _talk(
    line: ServerSession, answer: Answer, task: Task, engine: str, note: Callable[[Check | None], None]
) -> None:
    """The checks that need answers. Raises OssEvalError if the first one failed."""
    if answer.record.status != "ok":
        raise in_words(line.server.endpoint, answer.record, task.connect_timeout)
    for change in line.capabilities.notes:
        note(Check("request fields", WARN, change, "done by itself in every command"))
    note(_keep_alive(line))
    note(_streaming(answer, task))
    note(_usage(answer))
    note(_reasoning(line, answer))
    note(_lengths(line, engine))
    for check in effort_checks(line, REQUESTS):
        note(check)
    note(Check("requests", PASS, f"{line.requests_sent} sent"))


def _server(identity: Identity, simulated: bool) -> Check:
    name = f"{identity.name or 'unknown'} {identity.version}".strip()
    seen = f"{name} ({identity.how or 'it does not say'})"
    if simulated:
        return Check("server", WARN, seen, "a simulator: no model is run")
    return Check("server", PASS if identity.name else WARN, seen)


def _models(endpoint: Endpoint, model: str) -> Check:
    """The model, with the server's properties of it."""
    try:
        data = list(json.loads(get(endpoint, endpoint.at("/models"), TIMEOUT).body)["data"])
    except Exception:  # noqa: BLE001 (some servers have no list)
        return Check("model", WARN, f"{model}; the server lists none", "name it with --model")
    entry = next((m for m in data if isinstance(m, dict) and m.get("id") == model), {})
    meta: dict[str, Any] = entry["meta"] if isinstance(entry.get("meta"), dict) else {}
    context = (
        entry.get("max_model_len") or entry.get("context_length") or meta.get("n_ctx") or meta.get("n_ctx_train")
    )
    quantization = entry.get("quantization")
    details = _ollama_details(endpoint, model)
    context = context or details.get("context")
    quantization = quantization or details.get("quantization")
    seen = f"{model}" + (f", context {context:,}" if isinstance(context, int) else ", context not told")
    seen += f", {quantization}" if quantization else ""
    seen += f"; {len(data)} served" if len(data) > 1 else ""
    if not entry:
        names = [str(m["id"])[:LONGEST_NAME] for m in data if isinstance(m, dict) and "id" in m]
        more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
        return Check(
            "model", WARN, f"{seen}; it is not in the server's list",
            f"check --model; served are {', '.join(names[:LISTED])}{more}" if names else "check --model",
        )  # fmt: skip
    return Check("model", PASS, seen)


def _ollama_details(endpoint: Endpoint, model: str) -> dict[str, Any]:
    """What Ollama's /api/show says (https://github.com/ollama/ollama/blob/main/docs/api.md)."""
    try:
        payload = json.loads(
            get(endpoint, f"{endpoint.root}/api/show", TIMEOUT, orjson.dumps({"model": model})).body
        )
        info = payload.get("model_info") or {}
        context = next((value for key, value in info.items() if key.endswith(".context_length")), None)
        return {"context": context, "quantization": (payload.get("details") or {}).get("quantization_level")}
    except Exception:  # noqa: BLE001 (it is no Ollama)
        return {}


def _clock(endpoint: Endpoint) -> Check | None:
    """The server's clock against ours, as far as the Date header (whole seconds) tells."""
    try:
        before = time.time()
        date = get(endpoint, endpoint.at("/models"), TIMEOUT).headers.get("date")
        middle = (before + time.time()) / 2
        skew = parsedate_to_datetime(date).timestamp() + 0.5 - middle if date else None
    except Exception:  # noqa: BLE001 (no list, no date)
        return None
    if skew is None:
        return Check("clock", PASS, "the server sends no Date", "times are taken by this machine's clock alone")
    if abs(skew) > SKEW_SECONDS:
        return Check(
            "clock", WARN, f"the server's clock is {skew:+.0f} s off ours", "its logs can't be laid beside ours"
        )
    return Check("clock", PASS, "the server's clock agrees within a second or two")


def _keep_alive(line: ServerSession) -> Check:
    """Whether a connection serves another request after a stream, which some servers end by closing it."""
    endpoint = line.server.endpoint
    host, port = endpoint.base.hostname or "", endpoint.port
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    if endpoint.base.scheme == "https":
        connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=endpoint.auth.tls_context())
    generation = line.capabilities.apply(line.generation(max_tokens=SHORT))
    body = orjson.dumps(DIALECTS[endpoint.api].body("Say hello.", generation))
    line.requests_sent += 1
    try:
        headers = {"Content-Type": "application/json", **dict(endpoint.headers)}
        connection.request("POST", endpoint.target().path, body, headers)
        socket = connection.sock
        connection.getresponse().read(MAX_BODY)
        closed = connection.sock is None or bool(select.select([socket], [], [], CLOSING_SECONDS)[0])
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Check("keep-alive", WARN, f"could not be seen: {error}")
    finally:
        connection.close()
    if not closed:
        return Check("keep-alive", PASS, "connections are kept open")
    return Check(
        "keep-alive",
        WARN,
        "the server closes the connection after an answer",
        "each request needs a new one, whose set-up is in no figure",
    )


def _streaming(answer: Answer, task: Task) -> Check:
    record = answer.record
    if not task.stream:
        return Check("streaming", WARN, "not asked for", "TTFT and TPOT need it: leave out --no-stream")
    if not record.n_events and record.completion_tokens:
        return Check("streaming", FAIL, *no_text(answer))
    if record.n_events < 2:
        return Check("streaming", FAIL, "the answer came in one piece", "TTFT and TPOT can't be measured")
    shared = f"{record.n_shared} of {record.n_events} token events arrived with another"
    if record.n_events >= ENOUGH_EVENTS and record.n_shared > 0.9 * (record.n_events - 1):
        return Check(
            "streaming",
            FAIL,
            f"the stream comes in one piece: {shared}",
            "something buffers it: TTFT and TPOT can't be measured",
        )
    if (
        record.completion_tokens
        and record.token_source == "usage"
        and record.completion_tokens / record.n_events > 1.05
    ):
        per_chunk = record.completion_tokens / record.n_events
        return Check(
            "streaming", WARN, f"{per_chunk:.2f} tokens a chunk; {shared}", "token gaps are gaps between chunks"
        )
    return Check("streaming", PASS, f"a token a chunk; {shared}")


def _usage(answer: Answer) -> Check:
    record = answer.record
    if record.token_source == "usage":
        more = ", reasoning apart" if record.reasoning_tokens is not None else ", reasoning not told apart"
        return Check("token counts", PASS, f"usage comes with the answer{more}")
    return Check(
        "token counts",
        WARN,
        "no usage in the answer: tokens are counted as chunks",
        "--tokenizer-path counts them exactly",
    )


def _reasoning(line: ServerSession, answer: Answer) -> Check:
    """The field of the reasoning, or whether it leaks into the answer."""
    if answer.record.leaked:
        return Check(
            "reasoning", WARN, f"it is part of the answer, which begins {answer.reply.text[:12]!r}",
            "--split-think takes <think> text out; start the server with a reasoning parser",
        )  # fmt: skip
    if not answer.reply.reasoning:
        return Check("reasoning", PASS, "none was sent", "TTFA equals TTFT")
    field = _reasoning_field(line)
    return Check("reasoning", PASS, f"it comes apart from the answer{f', in {field}' if field else ''}")


def _reasoning_field(line: ServerSession) -> str | None:
    """The name of the field, out of the raw events of one more short request."""
    endpoint = line.server.endpoint
    if endpoint.api != "chat":
        return None
    body = DIALECTS["chat"].body("Say hello.", line.capabilities.apply(line.generation(max_tokens=64)))
    line.requests_sent += 1
    try:
        got = get(endpoint, endpoint.at("/chat/completions"), PATIENCE["total_timeout"], orjson.dumps(body))
    except (OSError, http.client.HTTPException):
        return None
    text = got.body.decode("utf-8", "replace")
    return next(
        (
            name
            for name in ("reasoning_content", "reasoning_details", "reasoning")
            if f'"{name}":"' in text.replace(": ", ":")
        ),
        None,
    )


def _lengths(line: ServerSession, engine: str) -> Check:
    """Whether answers can be forced to the length that a load test needs."""
    natural = line.ask("Say hello.", line.generation(max_tokens=THINKING)).record
    if natural.status == "ok" and natural.finish_reason == "length" and engine in KNOWN_LENGTHS:
        seen = f"{engine} honours ignore_eos and min_tokens; not seen here, as the reply did not end by itself"
        return Check("fixed lengths", PASS, seen, LENGTH_FLAGS)
    if natural.status != "ok" or natural.finish_reason == "length" or natural.completion_tokens is None:
        return Check("fixed lengths", WARN, "could not be told: the reply did not end by itself", NO_LENGTHS)
    wanted = natural.completion_tokens + 40
    before = line.capabilities
    extra = (*line.generation().extra, ("ignore_eos", True))
    record = line.ask("Say hello.", line.generation(max_tokens=wanted, min_tokens=wanted, extra=extra)).record
    line.capabilities = before
    if record.status != "ok":
        words = (record.error_message or "")[:80]
        return Check("fixed lengths", WARN, f"min_tokens and ignore_eos are refused: {words}", NO_LENGTHS)
    if record.completion_tokens == wanted and record.finish_reason == "length":
        return Check("fixed lengths", PASS, "ignore_eos and min_tokens are honoured", LENGTH_FLAGS)
    seen = f"no effect of ignore_eos and min_tokens: {record.completion_tokens} tokens instead of {wanted}"
    return Check("fixed lengths", WARN, seen, NO_LENGTHS)


def as_json(checks: list[Check]) -> list[dict[str, str]]:
    """The checks as JSON."""
    return [asdict(check) for check in checks]
