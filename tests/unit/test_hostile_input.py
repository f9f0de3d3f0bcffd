"""Bad input: nothing but OssEvalError, nothing that hangs, nothing that runs what it should read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from oss_eval.config.task_files import read_task
from oss_eval.endpoint.profiles import profile
from oss_eval.errors import OssEvalError, TaskError, UsageError
from tests.helpers.hostile_input import TARGETS, Hang, attempt, budget
from tests.helpers.hostile_input_helpers import HTTP, QUERY, TEXT, WIRE, YAML, soup

FAST = settings(deadline=None, max_examples=150, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


SLOW = settings(deadline=None, max_examples=25, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


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


@SLOW
@given(st.binary(max_size=40))
@example(b'\x03\x00\x2a"name": 5')
@example(b"\x00" + b"[" * 100_000)
@example(b'\x00{"schema_version": 1e999}')
def test_damaged_manifest(data: bytes) -> None:
    attempt("manifest", data)


@given(st.one_of(st.binary(max_size=60), st.sampled_from([b"[" * 100_000, b'"\\ud800"', b"1e999", b"null", b"5"])))
def test_model_list(data: bytes) -> None:
    attempt("models", data)


@given(st.binary(max_size=60))
@example(b"\x1b]52;c;eA==\x07\x1b[2J\x9b31m\xe2\x80\xae")
@example("\u2066\u0085\r\x7f".encode())
def test_terminal_output(data: bytes) -> None:
    attempt("terminal", data)


@given(st.one_of(st.binary(max_size=40), st.sampled_from([b"evil.example:7860", b"127.0.0.1.evil.example", b""])))
def test_host_header(data: bytes) -> None:
    attempt("host", data)


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

    monkeypatch.setitem(TARGETS, name, stumble)
    with pytest.raises(KeyError):
        attempt(name, b"")


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
        ("parallel: '" + "1" * 1_000_001 + "'", "it has more than 1,000,000 bytes"),
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


def test_errors_are_one_tree() -> None:
    assert issubclass(TaskError, OssEvalError)
    assert issubclass(UsageError, OssEvalError)
