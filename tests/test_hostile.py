"""Bad input: nothing but OssEvalError, nothing that hangs, nothing that runs what it should read."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from oss_eval.config.task_files import read_task
from oss_eval.endpoint.profiles import profile
from oss_eval.errors import OssEvalError, TaskError, UsageError
from tests import hostile
from tests.conftest import Command, ask
from tests.hostile import TARGETS, Hang, attempt, budget
from tests.scripted import DONE, LAST_CHUNK, SSE_HEAD, STOP, ScriptedServer, answering, chunk, delta

FAST = settings(deadline=None, max_examples=150, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
SLOW = settings(deadline=None, max_examples=25, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

WIRE = [
    b"data: ", b"\n\n", b"\r\n", b"\r", b"\n", b": ping\n\n", b"[DONE]", b"event: x\n", b'{"choices":[', b'{"delta":',
    b'{"content":"', b'"}', b"}]}", b'"finish_reason":"stop"', b'"usage":{"completion_tokens":', b"null", b"-1", b"1e400",
    b"{", b"}", b"[", b"]", b'"error":', b"\xff\xfe", b"\xef\xbb\xbf", b"\x00", b"[" * 2000, b'{"a":' * 2000,
    b"9" * 5000, b"\\ud800", delta("hi"), STOP, DONE,
    b'{"type":"response.output_text.delta","delta":"', b'{"message":{"content":"', b'{"response":"', b'"done":true',
]  # fmt: skip
HTTP = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 429 No\r\n", b"HTTP/9.9 999 ?\r\n",
    b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Content-Length: 99999999999999999999\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n", b"Content-Type: text/event-stream\r\n",
    b"Content-Type: application/x-ndjson\r\n", b"\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b"ffffffffffffffff\r\n",
    b"zz\r\n", b"Connection: close\r\n", b"Upgrade: websocket\r\nConnection: upgrade\r\n", b"\x1f\x8b\x08\x00",
]  # fmt: skip
YAML = [
    b"name: x\n", b"kind: perf\n", b"kind: bench\n", b"parallel: ", b"[1, 2]\n", b"  - 1\n", b"a: &a [1, 2]\n",
    b"b: *a\n", b"{", b"}", b"!!python/object/apply:os.system ['true']\n", b"!!binary abc\n", b"2024-99-99\n",
    b"0x" + b"f" * 5000 + b"\n", b"9" * 5000 + b"\n", b"1e999\n", b".nan\n", b"? [a]\n: b\n", b"<<: *a\n", b"\t", b"%YAML 9\n",
    b"---\n", b"...\n", b"extra_args: ", b"url: ", b"headers:\n  A: b\n", b"a:\n  url: http://x\n", b"  api_key_env: ",
    b"null\n", b"~\n", b"[" * 1500, b"dataset: x\n", b"prompt: '{question}'\n", b"scorer: regex\n", b"pattern: '('\n",
    b"subsets: {a: 1-2}\n",
]  # fmt: skip
TEXT = [
    b"\\boxed{", b"}", b"{", b"42", b"**", b"ANSWER: ", b"<think>", b"</think>", b"<|channel|>final<|message|>",
    b"analysisWe", b"$", b"\\frac{1}{2}", b"\\text{", b"\x00", "٤٢".encode(), b"1" * 5000, b",", b".", b"-", b"(A)",
    b"[Answer]", b"= ", b"\\boxed{" * 500, b"{" * 3000, b"\n", b"%", b"\\",
]  # fmt: skip
QUERY = [
    b"runs=", b"point=", b"sample=", b"&", b"=", b"%", b"%00", b"%ff", b"..", b"/", b"ttft=", b"1e999", b"-1", b"nan",
    b"kind=", b"sort=", b"epoch=", b"effort=low", b"search=(", b"model=", b"task=", b"x=latency", b"y=ttft_ms",
    b"page=99999999999999999999", b"from=", b"to=", b"request=", b"%F0%9F%98%80", b"<script>", b"'", b"`", b"a" * 400,
]  # fmt: skip


def soup(words: list[bytes]) -> st.SearchStrategy[bytes]:
    """A first byte that steers, and then words of the language, or anything, in any order."""
    piece = st.sampled_from(words) | st.binary(max_size=12)
    return st.builds(
        lambda first, pieces: bytes([first]) + b"".join(pieces), st.integers(0, 255), st.lists(piece, max_size=25)
    )


@FAST
@given(soup(WIRE))
@example(b"\x00data: a\r\n\r\ndata: b\r\r")
def test_server_sent_events(data: bytes) -> None:
    attempt("sse", data)


@FAST
@given(soup(WIRE))
def test_json_lines(data: bytes) -> None:
    attempt("lines", data)


@FAST
@given(soup(WIRE))
@example(b"\x05data: " + b"[" * 100_000 + b"\n\n")
def test_bodies_of_streams(data: bytes) -> None:
    attempt("body", data)


@FAST
@given(soup(HTTP + WIRE))
def test_responses(data: bytes) -> None:
    attempt("response", data)


@FAST
@given(soup(YAML))
@example(b"a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\n"
         b"parallel: [*d,*d,*d,*d,*d,*d,*d,*d]\n")  # fmt: skip
@example(b"parallel: &a [*a]\n")
@example(b"parallel: 2024-99-99\n")
@example(b"parallel: 0x" + b"f" * 5000)
@example(b"parallel: " + b"[" * 3000)
def test_task_files(data: bytes) -> None:
    attempt("task_file", data)


@FAST
@given(soup(YAML))
@example(b"a:\n  url: http://x\n  headers: 5\n")
@example(b"a:\n  url: http://x\n  api_key_env: [1]\n")
def test_files_of_endpoints(data: bytes) -> None:
    attempt("endpoint_file", data)


@FAST
@given(soup(TEXT))
@example(b"4" + b"e" * 34 + b"/")
@example(b"4ee/" + b"e" * 31 + b"/")
def test_extraction_of_answers(data: bytes) -> None:
    attempt("answer", data)


@FAST
@given(soup([*QUERY, b"speed=", b"fault=", b"reset:", b"all:0.01", b"rate="]))
def test_simulator_urls(data: bytes) -> None:
    attempt("simulator_url", data)


@SLOW
@given(soup(QUERY))
def test_query_strings_of_the_viewer(data: bytes) -> None:
    attempt("address", data)


@SLOW
@given(st.binary(min_size=3, max_size=30))
@example(b"\x0e\x01\x80")
@example(b"\x0e\x01\x00")
def test_damaged_parquet(data: bytes) -> None:
    attempt("parquet", data)


def test_the_budget_ends_what_hangs() -> None:
    def hang() -> None:
        with budget(0.2):
            while True:
                pass

    with pytest.raises(Hang):
        hang()


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_can_fail(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The net under all of these: what is no OssEvalError gets through."""

    def stumble(data: bytes) -> None:
        raise KeyError("x")

    monkeypatch.setitem(hostile.TARGETS, name, stumble)
    with pytest.raises(KeyError):
        attempt(name, b"")


# -- over real sockets ------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(soup(HTTP + WIRE))
def test_whatever_a_server_sends_the_exchange_ends(data: bytes) -> None:
    with ScriptedServer(answering(data or b"x", "close")) as server:
        [asked] = ask(server)
    assert asked.record.status in ("ok", "error")


def test_a_good_stream_is_still_read() -> None:
    """That the targets above are not refusing everything."""
    with ScriptedServer(answering(SSE_HEAD, chunk(delta("hi") + STOP + DONE), LAST_CHUNK)) as server:
        [asked] = ask(server)
    assert (asked.record.status, asked.reply.text) == ("ok", "hi")


def test_text_that_is_no_utf8_is_found_in_plain_events_too() -> None:
    events = [delta("plain"), delta("plain"), delta("X").replace(b"X", b"\xff\xfe"), delta("é"), STOP, DONE]
    with ScriptedServer(answering(SSE_HEAD, chunk(b"".join(events)), LAST_CHUNK)) as server:
        [asked] = ask(server)
    assert asked.record.error_kind == "decode"
    assert "not JSON" in (asked.record.error_message or "")
    assert asked.reply.text == "plainplainé"


# -- files that lie ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("!!python/object/apply:os.system ['touch ran']", "is not valid YAML"),
        ("a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
         "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d]", "more than 20,000 values"),
        ("parallel: 2024-99-99", "a value that can't be read"),
        ("[" * 5000, "nested too deeply"),
        ("a: &a {k0: 0, k1: 0, k2: 0}\n" + "".join(
            f"x{n}: &x{n} {{<<: [{', '.join([f'*x{n - 1}' if n else '*a'] * 9)}]}}\n" for n in range(9)
        ), "more than 20,000 values"),
        ("parallel: " + "1:" * 200_000 + "1", "more than 100 digits"),
        ("- 1\n" * 200_000, "more than 20,000 values"),
        ("parallel: &p [1, *p]", "inside the value that it names"),
        ("parallel: !!int '" + "9" * 5000 + "'", "more than 100 digits"),
        ("parallel: '" + "1" * 1_000_001 + "'", "larger than 1,000,000 bytes"),
    ],
)  # fmt: skip
def test_task_files_that_are_meant_badly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "task.yaml").write_text(content)
    (tmp_path / "endpoints.yaml").write_text(content)
    with budget(), pytest.raises(TaskError, match=words):
        read_task(tmp_path / "task.yaml")
    with budget(), pytest.raises(UsageError, match=words):
        profile("a")
    assert not (tmp_path / "ran").exists()


def test_a_long_value_is_not_repeated_at_length(oss_eval: Command, tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text(
        "kind: perf\nparallel: 0x" + "f" * 5000 + "\nnumber: '" + "x" * 5000 + "'\n"
    )
    done = oss_eval("perf", "task.yaml", "--url", "sim://instant")
    assert done.returncode == 2
    assert len(done.stderr) < 1500


def test_data_and_prompts_are_only_read(oss_eval: Command, tmp_path: Path) -> None:
    """A folder of data, a prompt file and a task file are the same after a run as before it."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "mine.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n')
    (data / "mine.yaml").write_text(
        "kind: bench\ndataset: mine.jsonl\nprompt: '{question}'\ntarget: answer\nscorer: integer\n"
    )
    (data / "prompt.txt").write_text("Count.")

    def state() -> list[tuple[str, str, float]]:
        return [
            (str(path), hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime)
            for path in sorted(data.rglob("*"))
            if path.is_file()
        ]

    before = state()
    os.utime(data, (1, 1))
    assert oss_eval("bench", "data/mine.yaml", "--url", "sim://instant").returncode == 0
    assert oss_eval("perf", "--prompt", "@data/prompt.txt", "--url", "sim://instant", "--parallel", "1",
                    "--number", "2").returncode == 0  # fmt: skip
    assert state() == before
    assert data.stat().st_mtime == 1, "nothing was created or removed in it"


def test_a_task_file_reads_nothing_but_what_it_names(oss_eval: Command, tmp_path: Path) -> None:
    """A template is filled with the dataset's columns alone: no attributes, no items, no formats that compute."""
    (tmp_path / "d.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n')
    for prompt in (
        "{question.__class__.__mro__}",
        "{question.__init__.__globals__}",
        "{os}",
        "{question!r:>99999999999}",
    ):
        (tmp_path / "t.yaml").write_text(
            f"kind: bench\ndataset: d.jsonl\nprompt: '{prompt}'\ntarget: answer\nscorer: exact\n"
        )
        begun = time.monotonic()
        done = oss_eval("bench", "t.yaml", "--url", "sim://instant")
        assert time.monotonic() - begun < 30
        if done.returncode == 0:
            from oss_eval.results.reader import find_run, read_samples

            prompts = read_samples(find_run("last", tmp_path / "results"))["prompt"].to_pylist()
            assert "mro" not in prompts[0] or prompt in prompts[0], "left as it is, not looked up"
            assert "<class" not in prompts[0]
        else:
            assert done.returncode == 2


def test_errors_are_one_tree() -> None:
    assert issubclass(TaskError, OssEvalError)
    assert issubclass(UsageError, OssEvalError)
