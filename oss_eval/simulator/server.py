"""The HTTP server of the simulator: models, and answers in each of the formats, streamed or not."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import orjson

from oss_eval.probe import file_limits, timestamps
from oss_eval.simulator import fault_injection, tls
from oss_eval.simulator.answers import AnswerKey, solution
from oss_eval.simulator.completion import Chunk, Completion
from oss_eval.simulator.engine import Sequence, engine_for, lengths, words
from oss_eval.simulator.faults import FAULTS, Faults
from oss_eval.simulator.formats import FORMATS, Format, RequestRefused
from oss_eval.simulator.formats.base import CompletionRequest, ReplyInfo, TokenCounts
from oss_eval.simulator.http import ClientConnection
from oss_eval.simulator.metrics import ServerMetrics
from oss_eval.simulator.prefix_cache import PrefixCache
from oss_eval.simulator.profiles import SERVER, Profile
from oss_eval.simulator.truth_log import TruthLog, TruthRow

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: "
DOWN_SECONDS = 1.0
"""Seconds in which a server that restarts or refuses can't be reached."""
TEMPLATE_TOKENS = 68
"""Tokens that the chat template adds to a prompt (gpt-oss's system and developer text)."""


class Simulator:
    """Serves one profile on a listening socket until the loop ends."""

    def __init__(
        self,
        profile: Profile,
        speed: float = 1.0,
        truth: Path | None = None,
        answers: Path | None = None,
        faults: Faults | None = None,
        tokens_per_chunk: tuple[int, int] = (1, 1),
    ) -> None:
        self.profile = profile
        self.speed = speed
        self.truth = TruthLog(truth)
        self.key = AnswerKey(answers)
        self.faults = faults or Faults()
        self.tokens_per_chunk = tokens_per_chunk
        """Fewest and most tokens in a chunk of a stream."""
        self._random = random.Random(0)
        self.engine = engine_for(profile)
        self.metrics = ServerMetrics(profile.model)
        self.jobs: dict[Sequence, Completion] = {}
        self._next_step = 0.0
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._served = 0
        self.prefixes: PrefixCache | None = None
        """What prompts began with so far; None: every prompt needs its whole prefill."""
        self._peers: set[ClientConnection] = set()
        self._refusing = False
        self._created = int(time.time())
        self._server = f"Server: {SERVER}{profile.name}?speed={speed:g}\r\n".encode()

    def listen(self, host: str, port: int) -> socket.socket:
        """A listening socket with receive timestamps, which accepted connections inherit."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        timestamps.enable(sock)
        try:
            sock.bind((host, port))
        except OSError:
            sock.close()
            raise
        sock.listen(4096)
        sock.setblocking(False)
        return sock

    async def serve(self, listener: socket.socket) -> None:
        """Accept until cancelled."""
        self._loop = asyncio.get_running_loop()
        host, port = listener.getsockname()[:2]
        front: asyncio.Server | None = None
        if self.faults.tls:
            outer, listener = listener, self.listen("127.0.0.1", 0)
            front = await tls.front(outer, listener.getsockname()[1])
        self._loop.add_reader(listener.fileno(), self._accept, listener)
        try:
            while True:
                for _ in range(2):
                    await asyncio.sleep(0.5)
                    self.truth.flush()
                fault = self.faults.of_second()
                if fault is not None and front is None:
                    self._stop_listening(listener, fault)
                    await asyncio.sleep(DOWN_SECONDS)
                    self._refusing = False
                    listener = self.listen(host, port)
                    self._loop.add_reader(listener.fileno(), self._accept, listener)
        finally:
            if listener.fileno() >= 0:
                self._loop.remove_reader(listener.fileno())
                listener.close()
            if front is not None:
                front.close()
            self.truth.flush()

    def _stop_listening(self, listener: socket.socket, fault: str) -> None:
        """A fault of the whole server: no connection is accepted, and with a restart all are closed."""
        self._loop.remove_reader(listener.fileno())
        listener.close()
        self._refusing = True
        self.truth.write(TruthRow(None, time.time_ns(), status="broken", fault=fault))
        if fault == "restart":
            for sequence, completion in list(self.jobs.items()):
                completion.fault = completion.fault or fault
                self._break_off(sequence, completion)
            for client in list(self._peers):
                client.reset()

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call a function later."""
        self._loop.call_later(seconds, call)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(64):
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client = ClientConnection(self._loop, sock, self._on_request, self._server)
            client.on_close = self._peers.discard
            self._peers.add(client)
            if len(self._peers) % 64 == 0:
                file_limits.allow(len(self._peers) + 64)

    # -- requests --------------------------------------------------------------------------------------

    def _on_request(self, client: ClientConnection, body: bytes, received_ns: int) -> None:
        path = client.url.split(b"?")[0].decode("latin-1").rstrip("/")
        said = self._properties(path) if client.method == b"GET" else None
        if client.method == b"GET" and path == "/metrics":
            waiting = len(self.engine.waiting)
            client.send_text(self.metrics.text(len(self.jobs) - waiting, waiting))
        elif said is not None:
            client.send_json("200 OK", said)
        elif client.method == b"POST" and path in FORMATS:
            self._completion(client, body, received_ns, FORMATS[path])
        else:
            client.send_json("404 Not Found", Format.error(404, f"no such address: {path}"))

    def _properties(self, path: str) -> dict[str, Any] | None:
        """What a GET of this path says."""
        name = self.profile.model
        model = {"id": name, "object": "model", "created": self._created, "owned_by": "oss-eval"}
        found: dict[str, dict[str, Any]] = {
            "/v1/models": {"object": "list", "data": [model]},
            f"/v1/models/{name}": model,
            "/api/tags": {"models": [{"name": name, "model": name}]},
            "/health": {"status": "ok"},
        }
        return found.get(path)

    def _completion(self, client: ClientConnection, body: bytes, received_ns: int, wanted: type[Format]) -> None:
        """Answer a request for a completion, or fail as the faults say."""
        request_id = client.headers.get(b"x-client-request-id") or client.headers.get(b"x-request-id")
        truth = TruthRow(request_id.decode("latin-1") if request_id else None, received_ns)
        try:
            request = self._read(wanted, body)
        except RequestRefused as error:
            truth.status = "refused"
            self.truth.write(truth)
            client.send_json(error.status, wanted.error(int(error.status[:3]), error.message))
            return
        fault = self.faults.of_request()
        if fault is not None and not request.stream and not FAULTS[fault].whole:
            fault = None
        truth.fault = fault
        if self._fails_at_once(client, fault, truth):
            return
        completion, output = self._plan_answer(client, request, truth, wanted)
        sequence = Sequence(completion.prompt_tokens, output, prefilled=completion.cached_tokens or 0)
        self.jobs[sequence] = completion
        client.on_gone = lambda: self._client_left(sequence)
        if fault == "slow-headers":
            client.send(HEAD if request.stream else b"HTTP/1.1 200")
            self.later(fault_injection.SLOW_SECONDS, lambda: self._begin(sequence, completion))
        else:
            self._begin(sequence, completion)

    def _fails_at_once(self, client: ClientConnection, fault: str | None, truth: TruthRow) -> bool:
        """Whether the fault has ended the request before any answer."""
        if fault in fault_injection.SAID:
            truth.status = "refused"
            self.truth.write(truth)
            fault_injection.refuse(client, fault)
            return True
        if fault == "silence":
            truth.status = "broken"
            self.truth.write(truth)
            return True
        return False

    def _read(self, wanted: type[Format], body: bytes) -> CompletionRequest:
        """Read a request. Raises RequestRefused for one that the server does not take."""
        try:
            fields = orjson.loads(body)
            request = wanted.read(fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RequestRefused("400 Bad Request", f"malformed request: {error!r}") from None
        if fields.get("model") not in (None, self.profile.model):
            raise RequestRefused("404 Not Found", f"The model `{fields['model']}` does not exist.")
        if request.limit is not None and request.limit < 1:
            raise RequestRefused("400 Bad Request", f"max_tokens must be at least 1, got {request.limit}")
        return request

    def _plan_answer(
        self, client: ClientConnection, request: CompletionRequest, truth: TruthRow, wanted: type[Format]
    ) -> tuple[Completion, int]:
        """The answer that a request will get, and its length in tokens."""
        reasoning, length, answer_words = self._answer_words(request, truth, wanted.templated)
        natural = max(reasoning + length, request.floor)
        if request.ignore_eos and request.limit is not None:
            natural = request.limit
        output = natural if request.limit is None else min(natural, request.limit)
        tokens = request.prompt.split()
        truth.prompt_tokens = len(tokens) + (TEMPLATE_TOKENS if wanted.templated else 0)
        cached = None if self.prefixes is None else self.prefixes.cached(tokens)
        truth.effort = request.effort
        self._served += 1
        reply = ReplyInfo(self.profile.model, self._served, self._created, request.stream)
        completion = Completion(
            client, truth, wanted(reply),
            usage_wanted=request.usage_wanted,
            reasoning=min(reasoning, output),
            cut=request.limit is not None and (natural > request.limit or request.ignore_eos),
            words=answer_words, text=[], prompt_tokens=truth.prompt_tokens,
            usage_in_chunks=request.usage_in_chunks, chunk=Chunk(self._chunk_size()), fault=truth.fault,
            cached_tokens=cached,
        )  # fmt: skip
        return completion, output

    def _answer_words(
        self, request: CompletionRequest, truth: TruthRow, reasons: bool
    ) -> tuple[int, int, Iterator[str]]:
        """(reasoning tokens, answer tokens, the words of both and more) of an answer without any limit."""
        known = self.key.find(request.prompt)
        seed = request.prompt_seed
        if known is None:
            reasoning, length = lengths(self.profile, request.effort, seed)
            reasoning = reasoning if reasons else 0
            return reasoning, length, chain(islice(words(seed), reasoning), words(seed))
        # Without a seed every attempt differs, as with a model that samples.
        attempt = request.seed or truth.request_id or self._served
        reasoning, text = solution(self.profile, known, request.prompt, request.effort, attempt)
        reasoning = reasoning if reasons else 0
        return reasoning, len(text), chain(islice(words(seed), reasoning), text, words(seed))

    def _begin(self, sequence: Sequence, completion: Completion) -> None:
        """Send the head of a stream; the tokens follow at their times."""
        if sequence not in self.jobs:
            return  # who had to wait for it has left
        if completion.stream:
            kind = completion.format.content_type + b"\r\n"
            head = HEAD + kind + self._server + completion.framing() + b"\r\n"
            completion.client.send(head[len(HEAD) :] if completion.fault == "slow-headers" else head)
            completion.send(completion.format.opening())
        if completion.fault == "role-only":
            completion.client.send(self._last(completion, b""))
            completion.truth.status = "broken"
            self._forget(sequence, completion)
            return
        self.engine.submit(sequence)
        if self._timer is None:
            self._next_step = self._loop.time()
            self._plan()

    # -- time ------------------------------------------------------------------------------------------

    def _plan(self) -> None:
        """Schedule the end of the next step.

        Ends are planned from the last planned end, not from when the timer fired, so that lateness of this process
        does not add up.
        """
        duration = self.engine.plan()
        if duration is None:
            self._timer = None
            return
        self._next_step += duration / 1000 / self.speed
        if self._next_step < self._loop.time() - 1.0:
            self._next_step = self._loop.time()  # too far behind: the machine is too slow for this speed
        if self._next_step <= self._loop.time():
            self._timer = self._loop.call_soon(self._step)
        else:
            self._timer = self._loop.call_at(self._next_step, self._step)

    def _step(self) -> None:
        for sequence in self.engine.commit():
            completion = self.jobs.get(sequence)
            if completion is not None:
                self.emit(sequence, completion)
        self._plan()

    # -- output ----------------------------------------------------------------------------------------

    def emit(self, sequence: Sequence, completion: Completion) -> None:
        """A token is due."""
        word = next(completion.words)
        if completion.stream:
            self._stream(sequence, completion, word)
        else:
            completion.truth.token_ns.append(time.time_ns())
            completion.text.append(word)
        if completion.fault in fault_injection.MIDDLE and completion.stream:
            struck = sequence.emitted == min(fault_injection.AT_TOKEN, sequence.output_tokens)
            if struck and fault_injection.MIDDLE[completion.fault](self, sequence, completion):
                self._break_off(sequence, completion)
        if sequence.finished and sequence in self.jobs:
            self.finish(sequence, completion)

    def _stream(self, sequence: Sequence, completion: Completion, word: str) -> None:
        """Put a token into a chunk, and send it when it is full."""
        chunk, due = completion.chunk, sequence.emitted
        chunk.add(word, due <= completion.reasoning)
        at_fault = completion.fault in fault_injection.MIDDLE and due == fault_injection.AT_TOKEN
        if chunk.tokens < chunk.size and due < sequence.output_tokens and not at_fault:
            completion.truth.token_ns.append(time.time_ns())
            return
        usage = None
        if completion.usage_in_chunks:
            usage = TokenCounts(completion.prompt_tokens, due, min(due, completion.reasoning))
        answer, reasoning = orjson.dumps(chunk.answer)[1:-1], orjson.dumps(chunk.reasoning)[1:-1]
        completion.truth.token_ns.append(completion.send(completion.format.tokens(answer, reasoning, usage)))
        completion.truth.chunk_tokens.append(chunk.tokens)
        completion.chunk = Chunk(self._chunk_size())

    def _chunk_size(self) -> int:
        low, high = self.tokens_per_chunk
        return low if low == high else self._random.randint(low, high)

    def finish(self, sequence: Sequence, completion: Completion) -> None:
        """The last token has been written: send the finish reason and the counts, and end the response."""
        ok = completion.fault is None or None in FAULTS[completion.fault].seen
        reason = "length" if completion.cut else "stop"
        usage = TokenCounts(
            completion.prompt_tokens, sequence.emitted, completion.reasoning, completion.cached_tokens
        )
        written = completion.format
        if completion.stream:
            times = 2 if completion.fault == "usage-twice" else 1
            ending = written.ending(reason, usage, times if completion.usage_wanted else 0)
            completion.client.send(self._last(completion, ending))
        else:
            reasoning, answer = completion.text[: completion.reasoning], completion.text[completion.reasoning :]
            payload = written.whole("".join(answer), "".join(reasoning), reason, usage)
            completion.client.on_gone = None
            if completion.fault == "slow-headers":
                completion.client.send_json("200 OK", payload, sent=len(b"HTTP/1.1 200"))
            else:
                ok = fault_injection.whole(completion.client, completion.fault, self._server, written, payload)
        completion.truth.status = "ok" if ok else "broken"
        if ok:
            self.metrics.add(completion.truth)
        self._forget(sequence, completion)
        if completion.fault in ("close-after", "length-over") or self._refusing:
            completion.client.close()

    @staticmethod
    def _last(completion: Completion, events: bytes) -> bytes:
        """The last bytes of a stream, with these events before them."""
        events += completion.format.done
        return (completion.frame(events) if events else b"") + completion.end()

    def _break_off(self, sequence: Sequence, completion: Completion) -> None:
        """The answer ends here because of a fault."""
        self.engine.drop(sequence)
        completion.truth.status, completion.truth.fault = "broken", completion.fault
        self._forget(sequence, completion)

    def _client_left(self, sequence: Sequence) -> None:
        completion = self.jobs.get(sequence)
        if completion is not None:
            self.engine.drop(sequence)
            completion.truth.status = "left"
            self._forget(sequence, completion)

    def _forget(self, sequence: Sequence, completion: Completion) -> None:
        del self.jobs[sequence]
        completion.client.on_gone = None
        self.truth.write(completion.truth)
