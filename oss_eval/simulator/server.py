"""The simulator's HTTP face: models, chat completions and completions, streamed or whole."""

from __future__ import annotations

import asyncio
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import orjson

from oss_eval.probe import file_limits, timestamps
from oss_eval.simulator import fault_injection, tls
from oss_eval.simulator.answers import AnswerKey, prompt_text, solution
from oss_eval.simulator.completion import Job
from oss_eval.simulator.engine import Sequence, engine_for, lengths, words
from oss_eval.simulator.faults import FAULTS, Faults
from oss_eval.simulator.http import Peer
from oss_eval.simulator.profiles import SERVER, Profile
from oss_eval.simulator.truth_log import Truth, TruthLog

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
DOWN_SECONDS = 1.0
"""How long a server that restarts or refuses can't be reached."""
TEMPLATE_TOKENS = 68
"""What the chat template adds to a prompt (gpt-oss's system and developer framing)."""


class Simulator:
    """Serves one profile on a listening socket until the loop ends."""

    def __init__(
        self,
        profile: Profile,
        speed: float = 1.0,
        truth: Path | None = None,
        answers: Path | None = None,
        faults: Faults | None = None,
    ) -> None:
        self.profile = profile
        self.speed = speed
        self.truth = TruthLog(truth)
        self.key = AnswerKey(answers)
        self.faults = faults or Faults()
        self.engine = engine_for(profile)
        self.jobs: dict[Sequence, Job] = {}
        self._next_step = 0.0
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._served = 0
        self._peers: set[Peer] = set()
        self._refusing = False
        self._created = int(time.time())
        self._server = f"Server: {SERVER}{profile.name}?speed={speed:g}\r\n".encode()

    def listen(self, host: str, port: int) -> socket.socket:
        """A listening socket that asks for receive stamps, which accepted connections inherit."""
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
        """A fault of the server as a whole: nobody gets in, and with a restart, everybody is thrown out."""
        self._loop.remove_reader(listener.fileno())
        listener.close()
        self._refusing = True
        self.truth.write(Truth(None, time.time_ns(), status="broken", fault=fault))
        if fault == "restart":
            for sequence, job in list(self.jobs.items()):
                job.fault = job.fault or fault
                self._break_off(sequence, job)
            for peer in list(self._peers):
                peer.reset()

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call something in a while."""
        self._loop.call_later(seconds, call)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(64):
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = Peer(self._loop, sock, self._on_request, self._server)
            peer.on_close = self._peers.discard
            self._peers.add(peer)
            if len(self._peers) % 64 == 0:
                file_limits.allow(len(self._peers) + 64)

    # -- requests --------------------------------------------------------------------------------------

    def _on_request(self, peer: Peer, body: bytes, received_ns: int) -> None:
        path = peer.url.split(b"?")[0].decode("latin-1").rstrip("/")
        if peer.method == b"GET" and path == "/v1/models":
            model = {
                "id": self.profile.model,
                "object": "model",
                "created": self._created,
                "owned_by": "oss-eval",
            }
            peer.send_json("200 OK", {"object": "list", "data": [model]})
        elif peer.method == b"GET" and path == "/health":
            peer.send_json("200 OK", {"status": "ok"})
        elif peer.method == b"POST" and path in ("/v1/chat/completions", "/v1/completions"):
            self._completion(peer, body, received_ns, chat=path == "/v1/chat/completions")
        else:
            self._refuse(peer, "404 Not Found", f"no such address: {path}")

    def _refuse(self, peer: Peer, status: str, message: str, truth: Truth | None = None) -> None:
        if truth is not None:
            truth.status = "refused"
            self.truth.write(truth)
        error = {"message": message, "type": "invalid_request_error", "code": int(status[:3])}
        peer.send_json(status, {"error": error})

    def _completion(self, peer: Peer, body: bytes, received_ns: int, chat: bool) -> None:
        given = peer.headers.get(b"x-client-request-id") or peer.headers.get(b"x-request-id")
        truth = Truth(given.decode("latin-1") if given else None, received_ns)
        try:
            request = orjson.loads(body)
            prompt = prompt_text(request["messages"] if chat else request["prompt"])
            limit = request.get("max_completion_tokens") or request.get("max_tokens")
            limit = None if limit is None else int(limit)
            floor = int(request.get("min_tokens") or 0)
        except (ValueError, KeyError, TypeError) as error:
            self._refuse(peer, "400 Bad Request", f"malformed request: {error!r}", truth)
            return
        if request.get("model") not in (None, self.profile.model):
            self._refuse(peer, "404 Not Found", f"The model `{request['model']}` does not exist.", truth)
            return
        if limit is not None and limit < 1:
            self._refuse(peer, "400 Bad Request", f"max_tokens must be at least 1, got {limit}", truth)
            return
        stream = bool(request.get("stream"))
        fault = self.faults.of_request()
        if fault is not None and not stream and not FAULTS[fault].whole:
            fault = None
        truth.fault = fault
        if fault in fault_injection.SAID:
            truth.status = "refused"
            self.truth.write(truth)
            fault_injection.refuse(peer, fault)
            return
        if fault == "silence":
            truth.status = "broken"
            self.truth.write(truth)
            return
        effort = request.get("reasoning_effort")
        seed = zlib.crc32(prompt.encode()) ^ zlib.crc32(str(request.get("seed", "")).encode())
        known = self.key.find(prompt)
        said: Iterator[str] = words(seed)
        if known is None:
            reasoning, answer = lengths(self.profile, effort, seed)
        else:
            # Without a seed every attempt is another one, as with a model that samples.
            reasoning, text = solution(
                self.profile, known, prompt, effort, request.get("seed") or truth.request_id or self._served
            )
            answer = len(text)
        if not chat:
            reasoning = 0
        if known is not None:
            said = chain(islice(said, reasoning), text, said)
        natural = max(reasoning + answer, floor)
        if request.get("ignore_eos") and limit is not None:
            natural = limit
        output = natural if limit is None else min(natural, limit)
        prompt_tokens = len(prompt.split()) + (TEMPLATE_TOKENS if chat else 0)
        truth.prompt_tokens, truth.effort = prompt_tokens, effort
        self._served += 1
        name, kind = ("chatcmpl", "chat.completion") if chat else ("cmpl", "text_completion")
        described = {
            "id": f"{name}-{self._served:08x}",
            "object": f"{kind}.chunk" if chat and stream else kind,
            "created": self._created,
            "model": self.profile.model,
        }
        options = request.get("stream_options")
        job = Job(
            peer, truth, chat, stream,
            usage_wanted=isinstance(options, dict) and bool(options.get("include_usage")),
            reasoning=min(reasoning, output),
            cut=limit is not None and (natural > limit or bool(request.get("ignore_eos"))),
            head=orjson.dumps(described)[:-1],
            words=said, text=[], prompt_tokens=prompt_tokens, fault=fault,
        )  # fmt: skip
        sequence = Sequence(prompt_tokens, output)
        self.jobs[sequence] = job
        peer.on_gone = lambda: self._client_left(sequence)
        if fault == "slow-headers":
            peer.send(HEAD[:40] if stream else b"HTTP/1.1 200")
            self.later(fault_injection.SLOW_SECONDS, lambda: self._begin(sequence, job))
        else:
            self._begin(sequence, job)

    def _begin(self, sequence: Sequence, job: Job) -> None:
        """The head of a stream, then everything else in its time."""
        if sequence not in self.jobs:
            return  # who had to wait for it has left
        if job.stream:
            head = HEAD + self._server + job.framing() + b"\r\n"
            job.peer.send(head[40:] if job.fault == "slow-headers" else head)
            if job.chat:
                self._send_chunk(job, {"role": "assistant", "content": ""}, None)
        if job.fault == "role-only":
            job.peer.send(job.frame(b"data: [DONE]\n\n") + job.end())
            job.truth.status = "broken"
            self._forget(sequence, job)
            return
        self.engine.submit(sequence)
        if self._timer is None:
            self._next_step = self._loop.time()
            self._plan()

    # -- time ------------------------------------------------------------------------------------------

    def _plan(self) -> None:
        """Arrange for the next step's end. Ends are planned from the last planned end, not from when the
        timer fired, so that lateness of this process does not add up."""
        duration = self.engine.plan()
        if duration is None:
            self._timer = None
            return
        self._next_step += duration / 1000 / self.speed
        if self._next_step < self._loop.time() - 1.0:
            self._next_step = self._loop.time()  # hopelessly behind: the machine is too slow for this speed
        if self._next_step <= self._loop.time():
            self._timer = self._loop.call_soon(self._step)
        else:
            self._timer = self._loop.call_at(self._next_step, self._step)

    def _step(self) -> None:
        for sequence in self.engine.commit():
            job = self.jobs.get(sequence)
            if job is not None:
                self.emit(sequence, job)
        self._plan()

    # -- output ----------------------------------------------------------------------------------------

    def emit(self, sequence: Sequence, job: Job) -> None:
        """A token is due."""
        word = next(job.words)
        if job.stream:
            thinking = sequence.emitted <= job.reasoning
            job.truth.token_ns.append(job.send(job.token(orjson.dumps(word)[1:-1], thinking)))
        else:
            job.truth.token_ns.append(time.time_ns())
            job.text.append(word)
        if job.fault in fault_injection.MIDDLE and job.stream:
            struck = sequence.emitted == min(fault_injection.AT_TOKEN, sequence.output_tokens)
            if struck and fault_injection.MIDDLE[job.fault](self, sequence, job):
                self._break_off(sequence, job)
        if sequence.finished and sequence in self.jobs:
            self.finish(sequence, job)

    def _send_chunk(self, job: Job, delta: dict[str, Any], finish_reason: str | None) -> None:
        part: dict[str, Any] = {"delta": delta} if job.chat else {"text": delta.get("content", "")}
        choice = {"index": 0, **part, "logprobs": None, "finish_reason": finish_reason}
        job.send(job.head + b',"choices":' + orjson.dumps([choice]) + b"}")

    def finish(self, sequence: Sequence, job: Job) -> None:
        """The last token has been written: say why, count, and end the response."""
        ok = job.fault is None or None in FAULTS[job.fault].seen
        reason = "length" if job.cut else "stop"
        usage: dict[str, Any] = {
            "prompt_tokens": job.prompt_tokens,
            "completion_tokens": sequence.emitted,
            "total_tokens": job.prompt_tokens + sequence.emitted,
        }
        if job.chat:
            usage["completion_tokens_details"] = {"reasoning_tokens": job.reasoning}
        if job.stream:
            self._send_chunk(job, {}, reason)
            for _ in range(2 if job.fault == "usage-twice" else 1):
                if job.usage_wanted:
                    job.send(job.head + b',"choices":[],"usage":' + orjson.dumps(usage) + b"}")
            job.peer.send(job.frame(b"data: [DONE]\n\n") + job.end())
        else:
            thought, answer = "".join(job.text[: job.reasoning]), "".join(job.text[job.reasoning :])
            message = {"role": "assistant", "content": answer, "reasoning_content": thought or None}
            part: dict[str, Any] = {"message": message} if job.chat else {"text": answer}
            choice = {"index": 0, **part, "logprobs": None, "finish_reason": reason}
            payload = {**orjson.loads(job.head + b"}"), "choices": [choice], "usage": usage}
            job.peer.on_gone = None
            if job.fault == "slow-headers":
                job.peer.send_json("200 OK", payload, sent=len(b"HTTP/1.1 200"))
            else:
                ok = fault_injection.whole(job.peer, job.fault, self._server, payload)
        job.truth.status = "ok" if ok else "broken"
        self._forget(sequence, job)
        if job.fault in ("close-after", "length-over") or self._refusing:
            job.peer.close()

    def _break_off(self, sequence: Sequence, job: Job) -> None:
        """The answer ends here, spoiled."""
        self.engine.drop(sequence)
        job.truth.status, job.truth.fault = "broken", job.fault
        self._forget(sequence, job)

    def _client_left(self, sequence: Sequence) -> None:
        job = self.jobs.get(sequence)
        if job is not None:
            self.engine.drop(sequence)
            job.truth.status = "left"
            self._forget(sequence, job)

    def _forget(self, sequence: Sequence, job: Job) -> None:
        del self.jobs[sequence]
        job.peer.on_gone = None
        self.truth.write(job.truth)
