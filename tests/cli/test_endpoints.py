"""Servers as they really answer: bodies sent and records decoded, byte for byte; access; ask and doctor.

Shapes after the servers' documentation and sources, named beside each."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import pandas as pd
import trustme

from oss_eval.results.manifest import read_manifest
from tests.helpers.commands import Command, bad
from tests.helpers.endpoints_helpers import (
    USAGE,
    last,
    piece,
    sse,
)
from tests.helpers.scripted_server import (
    MODELS,
    ScriptedServer,
    answering,
    body_of,
    json_reply,
    saying,
    talking,
)


def test_a_server_is_asked_in_its_own_terms(oss_eval: Command, tmp_path: Path) -> None:
    """OpenAI's reasoning models: max_completion_tokens, no temperature; another server: no stream_options."""

    def answer(body: dict[str, Any]) -> bytes:
        words = None
        if "max_tokens" in body:
            words = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
        elif "stream_options" in body:
            words = "Extra inputs are not permitted: stream_options"
        elif "temperature" in body:
            words = "Unsupported value: 'temperature' does not support 0.5 with this model."
        if words:
            return json_reply(json.dumps({"error": {"message": words}}).encode(), "400 Bad Request")
        return saying("\\boxed{2}")

    with ScriptedServer(talking(answer)) as server:
        words = ("--url", server.url, "--max-tokens", "50", "--temperature", "0.5")
        done = oss_eval("perf", *words, "--parallel", "2", "--number", "4", "--prompt", "Hi")
        assert done.returncode == 0, done.stderr
        assert "max_completion_tokens instead of max_tokens" in done.stderr
        graded = oss_eval("bench", "demo", *words, "--repeats", "1", "--limit", "6")
        assert graded.returncode == 0, graded.stderr
        final = body_of(server.requests[-1])
    assert final["max_completion_tokens"] == 50
    assert not {"max_tokens", "stream_options", "temperature"} & set(final)
    for run in (tmp_path / "results").iterdir():
        request = read_manifest(run)["request"]
        assert request["limit_field"] == "max_completion_tokens"
        assert request["left_out"] == ["temperature"]
        assert not bad(run)
    samples = next((tmp_path / "results").glob("*bench*/samples"))
    assert set(pd.read_parquet(samples).attempts) == {1}


def test_a_refused_effort_names_the_styles(oss_eval: Command) -> None:
    refusal = json_reply(b'{"error":{"message":"unknown field reasoning_effort"}}', "400 Bad Request")
    with ScriptedServer(talking(lambda body: refusal)) as server:
        done = oss_eval(
            "perf", "--url", server.url, "--parallel", "1", "--reasoning-effort", "low", "--prompt", "x"
        )
    assert done.returncode == 2
    assert "--effort-style" in done.stderr


def test_llama_cpp_is_asked_through_its_template(oss_eval: Command, tmp_path: Path) -> None:
    def script(number: int, request: bytes) -> list[bytes]:
        if request.startswith(b"GET /props"):
            return [json_reply(b'{"build_info":"b6123"}')]
        if request.startswith(b"GET"):
            return [MODELS if b"/models" in request else json_reply(b"{}", "404 Not Found")]
        return [saying("ok")]

    with ScriptedServer(script) as server:
        done = oss_eval("perf", "--url", server.url, "--parallel", "1", "--number", "2", "--reasoning-effort", "low",
                        "--prompt", "x")  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert body_of(server.requests[-1])["chat_template_kwargs"] == {"reasoning_effort": "low"}


def test_redirects_are_followed_for_set_up_and_refused_for_measured_requests(oss_eval: Command) -> None:
    def script(number: int, request: bytes) -> list[bytes]:
        if request.startswith(b"GET /v1/models"):
            return [b"HTTP/1.1 302 Found\r\nLocation: /other/models\r\nContent-Length: 0\r\n\r\n"]
        if request.startswith(b"GET /other/models"):
            assert b"Bearer sk-1234" in request  # the same host may have the key
            return [MODELS]
        return [b"HTTP/1.1 308 Permanent Redirect\r\nLocation: https://x/\r\nContent-Length: 0\r\n\r\n"]

    with ScriptedServer(script) as server:
        done = oss_eval("perf", "--url", server.url, "--parallel", "1", OPENAI_API_KEY="sk-1234")
    assert done.returncode == 2
    assert "redirects measured requests (HTTP 308)" in done.stderr


def test_a_key_does_not_follow_to_another_host(oss_eval: Command) -> None:
    with ScriptedServer(answering()) as other:
        away = b"HTTP/1.1 302 Found\r\nLocation: %s/models\r\nContent-Length: 0\r\n\r\n" % other.url.encode()
        with ScriptedServer(lambda number, request: [away]) as server:
            oss_eval("perf", "--url", server.url, "--parallel", "1", OPENAI_API_KEY="sk-1234")
        assert other.requests
        assert b"sk-1234" not in b"".join(other.requests)


def test_nothing_secret_is_kept(oss_eval: Command, tmp_path: Path) -> None:
    echo = talking(lambda body: json_reply(b'{"error":"sk-flag-77 and team-88 are wrong"}', "400 Bad") if body["max_tokens"] == 77
                   else saying("ok"))  # fmt: skip
    with ScriptedServer(echo) as server:
        done = oss_eval("perf", "--url", server.url.replace("http://", "http://user:pw-99@"), "--parallel", "1", "--number", "3",
                        "--prompt", "x", "--api-key", "sk-flag-77", "--header", "X-Team: team-88", "--max-tokens", "77")  # fmt: skip
        sent = server.requests[-1]
    assert b"Bearer sk-flag-77" in sent
    assert b"X-Team: team-88" in sent
    assert "can be seen by others" in done.stderr
    files = [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
    assert files
    everything = b"".join(path.read_bytes() for path in files) + (done.stdout + done.stderr).encode()
    for secret in (b"sk-flag-77", b"team-88", b"pw-99"):
        assert secret not in everything, secret


def test_certificates(oss_eval: Command, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with ScriptedServer(talking(lambda body: saying("ok")), context) as server:
        words = ("perf", "--url", server.url, "--parallel", "1", "--number", "2", "--prompt", "x")
        untrusted = oss_eval(*words)
        assert untrusted.returncode == 2
        assert "certificate" in untrusted.stderr
        assert oss_eval(*words, "--ca-bundle", "ca.pem").returncode == 0
        assert oss_eval(*words, "--insecure").returncode == 0
        assert "--ca-bundle none.pem" in oss_eval(*words, "--ca-bundle", "none.pem").stderr


def test_servers_take_turns(oss_eval: Command, tmp_path: Path) -> None:
    with (
        ScriptedServer(talking(lambda b: [0.02, saying("ok")])) as one,
        ScriptedServer(talking(lambda b: [0.02, saying("ok")])) as two,
    ):
        words = ("--url", one.url, "--url", two.url)
        done = oss_eval("perf", *words, "--parallel", "1", "--number", "20", "--prompt", "x")
        assert done.returncode == 0, done.stderr
        graded = oss_eval("bench", "demo", *words, "--repeats", "1", "--parallel", "4")
        assert graded.returncode == 0, graded.stderr
    for run in (tmp_path / "results").iterdir():
        rows = pd.read_parquet(run / "requests").query("not warmup")
        shares = rows.url.value_counts(normalize=True)
        assert set(shares.index) == {one.url, two.url}
        assert shares.min() >= 0.45


def test_named_endpoints(oss_eval: Command, tmp_path: Path) -> None:
    with ScriptedServer(talking(lambda body: saying("ok"))) as server:
        (tmp_path / "endpoints.yaml").write_text(
            f"prod-h100:\n  url: {server.url}\n  model: m\n  api_key_env: PROD_KEY\n  api-key-header: X-Key\n"
            "  effort_style: system\n  headers: {X-Team: red}\n  prices: {input: 0.1, output: 0.4}\n  labels: {gpu: H100}\n"
        )
        words = (
            "perf",
            "--endpoint",
            "prod-h100",
            "--parallel",
            "1",
            "--number",
            "2",
            "--prompt",
            "x",
            "--reasoning-effort",
            "low",
        )
        done = oss_eval(*words, PROD_KEY="k-prod-1")
        assert done.returncode == 0, done.stderr
        request = server.requests[-1]
        assert b"X-Key: k-prod-1" in request
        assert b"X-Team: red" in request
        assert body_of(request)["messages"][0] == {"role": "system", "content": "Reasoning: low"}
        manifest = read_manifest(next((tmp_path / "results").iterdir()))
        assert manifest["endpoint"]["name"] == "prod-h100"
        assert manifest["endpoint"]["prices"] == {"input": 0.1, "output": 0.4}
        assert manifest["labels"] == {"gpu": "H100"}
        assert "PROD_KEY is not set" in oss_eval(*words).stderr
        assert "did you mean prod-h100" in oss_eval("perf", "--endpoint", "prod-h10").stderr


def test_ask(oss_eval: Command) -> None:
    with ScriptedServer(talking(lambda body: saying("Four.", reasoning="two and two", tokens=(9, 6)))) as server:
        done = oss_eval("ask", "What is 2 + 2?", "--url", server.url, "--reasoning-effort", "low")
        assert done.returncode == 0, done.stderr
        assert done.stdout == "Four.\n"
        assert "two and two" in done.stderr
        assert "TTFT" in done.stderr
        assert "6 tokens" in done.stderr
        assert body_of(server.requests[-1])["reasoning_effort"] == "low"
        whole = json.loads(oss_eval("ask", "x", "--url", server.url, "-v").stdout)
        assert whole["response"]["answer"] == "Four."
        assert whole["record"]["completion_tokens"] == 6
        (refused,) = [oss_eval("ask", "x", "--url", server.url, "--api", "telepathy")]
        assert refused.returncode == 2
    models = json_reply(b'{"data":[{"id":"a"},{"id":"b"}]}')
    with ScriptedServer(lambda number, request: [models]) as server:
        several = oss_eval("ask", "x", "--url", server.url)
        assert several.returncode == 2
        assert "serves 2 models" in several.stderr
        assert "--model a" in several.stderr
    assert "can't reach" in oss_eval("ask", "x", "--url", "http://127.0.0.1:9").stderr


def test_doctor_on_a_good_server(oss_eval: Command) -> None:
    def script(number: int, request: bytes) -> list[bytes]:
        if request.startswith(b"GET /version"):
            return [json_reply(b'{"version":"0.11.2"}')]
        if request.startswith(b"GET"):
            listed = b'{"data":[{"id":"m","max_model_len":131072,"owned_by":"vllm"}]}'
            return [json_reply(listed) if b"/models" in request else json_reply(b"{}", "404 Not Found")]
        body = body_of(request)
        if body.get("ignore_eos"):
            return [saying("x " * 30, finish="length", tokens=(5, body["max_tokens"]))]
        if "messages" not in body:
            return [json_reply(b"{}", "404 Not Found")]
        assert body["max_tokens"] > 40
        words = {"low": 20, "high": 90}.get(body.get("reasoning_effort"), 40)
        return [saying("yes", reasoning="so", tokens=(5, words))]

    with ScriptedServer(script) as server:
        done = oss_eval("doctor", "--url", server.url, "--json")
        asked = sum(request.startswith(b"POST") for request in server.requests)
    assert done.returncode == 0, done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert checks["server"]["seen"].startswith("vLLM 0.11.2")
    assert "131,072" in checks["model"]["seen"]
    assert checks["effort"]["verdict"] == "pass"
    assert "4.5 times" in checks["effort"]["seen"]
    assert checks["fixed lengths"]["verdict"] == "pass"
    assert "reasoning_content" in checks["reasoning"]["seen"]
    assert checks["keep-alive"]["verdict"] == "pass"
    assert asked <= 20


def test_doctor_sees_a_buffered_stream(oss_eval: Command) -> None:
    whole = sse(*[piece(content="x") for _ in range(30)], last("stop", usage=USAGE))
    with ScriptedServer(
        talking(lambda body: [0.2, whole] if "messages" in body else json_reply(b"{}", "404 Not Found"))
    ) as server:
        done = oss_eval("doctor", "--url", server.url)
    assert done.returncode == 1
    assert "the stream comes in one piece" in " ".join(done.stdout.split())


def test_doctor_on_an_odd_server(oss_eval: Command) -> None:
    """No usage, the reasoning in the answer, effort ignored as a field and honoured as a system line."""

    def answer(body: dict[str, Any]) -> bytes:
        if "messages" not in body:
            return json_reply(b"{}", "404 Not Found")
        if "reasoning_effort" in body or "ignore_eos" in body:
            return json_reply(b'{"error":"unknown field"}', "400 Bad Request")
        system = body["messages"][0]["content"] if body["messages"][0]["role"] == "system" else ""
        count = {"Reasoning: low": 3, "Reasoning: high": 9}.get(system, 4)
        return sse(*[piece(content="<think>" if n == 0 else "x") for n in range(count)], last("stop"))

    with ScriptedServer(talking(answer)) as server:
        done = oss_eval("doctor", "--url", server.url)
        asked = sum(request.startswith(b"POST") for request in server.requests)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "no usage in the answer" in text
    assert "--split-think" in text
    assert "use --effort-style system" in text
    assert "ignore_eos are refused" in text
    assert asked <= 20
