"""Keys reach no file and no output, whatever a server repeats and wherever a user writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from oss_eval.endpoint.auth import Auth, header
from oss_eval.endpoint.endpoint import parse_url
from oss_eval.endpoint.profiles import profile_access
from oss_eval.errors import UsageError
from oss_eval.system.redact import Redactor, command_line, looks_secret, public_args, public_url, secret_forms
from tests.helpers.commands import Command
from tests.helpers.scripted_server import MODELS, ScriptedServer, Step, saying

KEY, TEAM, QUERY, PASSWORD = "sk-proj-Zq81kLmP0x", "team-secret-77", "q-secret-4711", "pass-word-9"


def echo(number: int, request: bytes) -> Sequence[Step]:
    """A server that repeats the whole request in its answer, its reasoning and its finish reason."""
    if request.startswith(b"GET"):
        return [MODELS]
    head = request.partition(b"\r\n\r\n")[0].decode()
    return [saying(f"You sent {head}. Answer: 7", f"I saw {head}", f"stop {KEY}")]


def everything_below(folder: Path) -> str:
    """All that is stored, Parquet files as text."""
    found = []
    for file in folder.rglob("*"):
        if file.suffix == ".parquet":
            found.append(json.dumps(pq.read_table(file).to_pylist(), default=str))
        elif file.is_file():
            found.append(file.read_text(errors="replace"))
    return "\n".join(found)


def test_what_a_server_repeats_is_neither_stored_nor_shown(oss_eval: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"q": "1+6?", "a": "7"}\n')
    (tmp_path / "mine.yaml").write_text(
        "kind: bench\ndataset: mine.jsonl\nprompt: '{q}'\ntarget: a\nscorer: integer\n"
    )
    with ScriptedServer(echo) as server:
        url = server.url.replace("://", f"://user:{PASSWORD}@") + f"?token={QUERY}"
        words = ["--url", url, "--header", f"X-Team: {TEAM}", "--extra-args", json.dumps({"foo": "bar-baz-qux-1"})]
        env = {"OPENAI_API_KEY": KEY}
        shown = ""
        for command in (["bench", "mine.yaml"], ["perf", "--parallel", "1", "--number", "2"], ["ask", "Hi"],
                        ["ask", "Hi", "--verbose"], ["doctor"], ["doctor", "--json"]):  # fmt: skip
            done = oss_eval(*command, *words, **env)
            shown += done.stdout + done.stderr
        shown += oss_eval("show", "last").stdout
    assert any(f"Bearer {KEY}".encode() in request for request in server.requests), "they were sent"
    assert any(QUERY.encode() in request for request in server.requests)
    stored = everything_below(tmp_path / "results")
    assert "You sent" in stored
    assert "You sent" in shown
    for secret in (KEY, TEAM, QUERY, PASSWORD, "bar-baz-qux-1"):
        assert secret not in stored, secret
    for secret in (KEY, TEAM, QUERY, PASSWORD):
        assert secret not in shown, secret


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h/v1#sk-1234567890", "http://h/v1#***"),
        ("http://h/v1;key=abcdef/x", "http://h/v1;***/x"),
        ("https://h/k/sk-1234567890abc/v1", "https://h/k/***/v1"),
        ("https://gateway/v1/0123456789abcdef0123456789abcdef/openai", "https://gateway/v1/***/openai"),
        ("http://u:p@h/v1?x=1&api-version=2025", "http://***@h/v1?x=***&api-version=2025"),
        ("http://h/v1?sk-1234567890abc", "http://h/v1?***"),
        (
            "http://h/openai/deployments/gpt-oss-120b-2025/chat",
            "http://h/openai/deployments/gpt-oss-120b-2025/chat",
        ),
        ("sim://gpt-oss-20b-h20?speed=2", "sim://gpt-oss-20b-h20?speed=2"),
    ],
)
def test_urls_are_shown_without_keys(url: str, shown: str) -> None:
    assert public_url(url) == shown
    if not url.startswith("sim://"):
        endpoint = parse_url(url, "openai", Auth())
        for secret in ("1234567890", "abcdef", "p@"):
            assert secret not in endpoint.url
            assert secret not in command_line(["oss-eval", "perf", "--url", url])[-1]


def test_extra_arguments_are_stored_without_texts_that_may_be_keys() -> None:
    given = {"foo": "hunter2-hunter2", "user_pw": "x", "top_k": 5, "deep": {"a": ["s3cret", 1, True, None]},
             "chat_template_kwargs": {"reasoning_effort": "high", "mystery": "k"}, "stop": ["END"],
             "model": "sk-1234567890"}  # fmt: skip
    assert public_args(given) == {
        "foo": "***", "user_pw": "***", "top_k": 5, "deep": {"a": ["***", 1, True, None]},
        "chat_template_kwargs": {"reasoning_effort": "high", "mystery": "***"}, "stop": ["END"], "model": "***",
    }  # fmt: skip
    for words in (["--extra-args", json.dumps(given)], [f"--extra-args={json.dumps(given)}"],
                  ["--extra-args", "hunter2-hunter2"], ["--auth", "reader:hunter2-hunter2"]):  # fmt: skip
        assert "hunter2" not in " ".join(command_line(["oss-eval", "perf", *words]))


def test_a_secret_that_arrives_in_pieces_is_not_shown() -> None:
    forms = secret_forms(["Bearer sk-abcdef123"])
    for cut in range(1, 30):
        text = "before sk-abcdef123 after sk-abc"
        redactor = Redactor(forms)
        pieces = [text[at : at + cut] for at in range(0, len(text), cut)]
        said = "".join(redactor.feed(piece) for piece in pieces) + redactor.end()
        assert said == "before *** after sk-abc"


def test_what_looks_like_a_key() -> None:
    for text in ("sk-abcdef", "hf_abcdefgh", "0123456789abcdef", "eyJhbGciOiJIUzI1NiJ9", "Bearer abcdefgh"):
        assert looks_secret(text), text
    for text in ("gpt-oss-120b", "v1", "deployments", "my-long-deployment-name", "openai", "2024-10-21", "api"):
        assert not looks_secret(text), text


@pytest.mark.parametrize("name", ["X\r\nEvil", "X Y", "", "X:", "ü", "a" * 3 + "\x00", "X\tY"])
def test_names_of_headers_are_names(name: str) -> None:
    with pytest.raises(UsageError):
        profile_access("p", {"url": "x", "headers": {name: "v"}}).for_host("h")
    with pytest.raises(UsageError):
        Auth(key="k", key_header=name or " ").for_host("h")


@pytest.mark.parametrize("name", ["Content-Length", "transfer-encoding", "Host", "CONNECTION"])
def test_headers_that_frame_a_request_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="belongs to the request itself"):
        Auth(headers=(header(f"{name}: 5"),)).for_host("h")
