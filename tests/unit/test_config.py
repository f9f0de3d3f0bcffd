"""Tasks, grids, endpoints and prompts: everything that is decided before a request is sent."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from oss_eval.config.bench_task import BenchTask
from oss_eval.config.perf_task import PerfTask
from oss_eval.config.task import validated
from oss_eval.config.task_files import find_task, read_task, shipped_dir, task_files
from oss_eval.endpoint.auth import Auth
from oss_eval.endpoint.discovery import find_endpoint
from oss_eval.endpoint.endpoint import parse_url
from oss_eval.errors import OssEvalError, TaskError, UsageError
from oss_eval.load.generation import generation
from oss_eval.load.plan import Point, grid
from oss_eval.load.prompts.prompts import body, random_prompts, source
from oss_eval.load.prompts.tokenizer import Counter, load_tokenizer
from oss_eval.load.workers.request_file import RequestCounter, RequestFile, write_request_file
from oss_eval.system.redact import command_line, public_url
from tests.helpers.commands import ROOT


def test_every_shipped_task_is_valid() -> None:
    for name, path in task_files(Path("nowhere")).items():
        values = read_task(path)
        task = validated(PerfTask if values["kind"] == "perf" else BenchTask, values, "oss-eval")
        assert task.name == name
        assert task.description


def test_a_local_task_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "sweep.yaml").write_text("kind: perf\nparallel: 3\nreasoning-effort: low\n")
    monkeypatch.chdir(tmp_path)
    task = validated(PerfTask, read_task(find_task("sweep")), "oss-eval perf")
    assert (task.parallel, task.reasoning_effort) == ((3,), ("low",))
    assert find_task("stress").parent == shipped_dir()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a\n- b", "key: value"),
        ("a: [", "not valid YAML at line"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
        ("", "key: value"),
        ("1: 2", "key: value"),
    ],
)
def test_bad_task_files(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(TaskError, match=words):
        read_task(path)


@given(
    st.dictionaries(
        st.text(max_size=12), st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers())
    )
)
def test_any_mapping_is_a_task_or_a_message(values: dict[str, object]) -> None:
    try:
        task = validated(PerfTask, values, "oss-eval perf")
    except OssEvalError as error:
        task = error.message
    assert task


def test_levels() -> None:
    assert PerfTask(parallel=(1, 10), number=(5, 20)).levels() == [(1, 5), (10, 20)]
    assert PerfTask(parallel=(1, 10), number=7).levels() == [(1, 7), (10, 7)]
    assert PerfTask(parallel=(1, 10)).levels() == [(1, 10), (10, 40)]


def test_efforts_are_an_axis() -> None:
    points = grid(PerfTask(parallel=(1, 2), number=5, reasoning_effort=("low", "high")), 2)
    assert [(p.reasoning_effort, p.parallel) for p in points] == [("low", 1), ("low", 2), ("high", 1), ("high", 2)]
    assert len({p.point_id for p in points}) == 4


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"parallel": [1, 2], "number": [1, 2, 3]}, "--parallel has 2 values and --number has 3"),
        ({"parallel": [0]}, "--parallel 0: must be greater"),
        ({"number": -1}, "--number -1: must be greater"),
        ({"max_tokens": 0}, "--max-tokens 0"),
        ({"extra_args": "{"}, "--extra-args '{': not valid JSON"),
        ({"extra_args": "[]"}, "a JSON object"),
        ({"paralel": 1}, "unknown key 'paralel': did you mean 'parallel'"),
        ({"min_prompt_length": 9, "max_prompt_length": 3}, "--min-prompt-length 9 is above"),
        ({"min_tokens": 9, "max_tokens": 3}, "--min-tokens 9 is above"),
        ({"api": "grpc"}, "--api 'grpc'"),
    ],
)
def test_messages_name_the_flag_and_the_value(values: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as error:
        validated(PerfTask, values, "oss-eval perf")
    assert words in error.value.message
    assert "oss-eval perf --help" in error.value.hint


@pytest.mark.parametrize(
    ("url", "api", "base", "path"),
    [
        ("http://h:8801", "chat", "http://h:8801/v1", "/v1/chat/completions"),
        ("http://h:8801/", "chat", "http://h:8801/v1", "/v1/chat/completions"),
        ("h:8801/v1", "chat", "http://h:8801/v1", "/v1/chat/completions"),
        ("http://h/v1/", "chat", "http://h/v1", "/v1/chat/completions"),
        ("http://h/v1/chat/completions", "chat", "http://h/v1", "/v1/chat/completions"),
        ("http://h/v1/completions", "completions", "http://h/v1", "/v1/completions"),
        ("https://h/api/v1", "chat", "https://h/api/v1", "/api/v1/chat/completions"),
        ("https://user:secret@h/v1", "chat", "https://h/v1", "/v1/chat/completions"),
        ("http://[::1]:80/v1", "chat", "http://[::1]:80/v1", "/v1/chat/completions"),
    ],
)
def test_spellings_of_a_url(url: str, api: str, base: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oss_eval.endpoint.endpoint.resolve", lambda host, port: ())
    endpoint = parse_url(url, "openai")
    assert (endpoint.api, endpoint.url, endpoint.target().path) == (api, base, path)


@pytest.mark.parametrize("url", ["", "ftp://h/v1", "http://", "http://h:0", "http://h:99999", "http://h:x", "//"])
def test_unusable_urls(url: str) -> None:
    with pytest.raises(UsageError, match="no usable address"):
        parse_url(url, "openai")


def test_api_and_path_must_agree() -> None:
    assert parse_url("http://h/v1", "completions").api == "completions"
    with pytest.raises(UsageError, match="contradicts"):
        parse_url("http://h/v1/chat/completions", "completions")


def test_the_environment_names_the_server_and_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://gpu1:8000/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    found = find_endpoint(None, "openai", Auth())
    assert (found.url, found.found) == ("http://gpu1:8000/v1", "OPENAI_BASE_URL")
    assert found.headers == (("Authorization", "Bearer sk-secret"),)
    assert "secret" not in repr(found)


POINT = Point(point_id="00-c1", index=0, parallel=1, number=4)


def test_random_prompts_are_repeatable_and_distinct() -> None:
    task = PerfTask(min_prompt_length=5, max_prompt_length=9, prefix_length=3)
    first = list(islice(random_prompts(task, 1, POINT, None, 1.0), 50))
    assert first == list(islice(random_prompts(task, 1, POINT, None, 1.0), 50))
    assert len(set(first)) == 50
    assert {len(p.split()) for p in first} == {8, 9, 10, 11, 12}
    assert len({" ".join(p.split()[:3]) for p in first}) == 1
    other = POINT.model_copy(update={"point_id": "01-c2"})
    assert not set(first) & set(islice(random_prompts(task, 1, other, None, 1.0), 50))


def toy_tokenizer(path: Path) -> Path:
    """One token a word, and one for each letter of a word it does not know."""
    from oss_eval.load.prompts.prompts import VOCABULARY

    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(["?", *VOCABULARY])}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path / "tokenizer.json"))
    return path


def test_a_tokenizer_makes_lengths_exact(tmp_path: Path) -> None:
    counter = load_tokenizer(str(toy_tokenizer(tmp_path)))
    assert isinstance(counter, Counter)
    task = PerfTask(min_prompt_length=17, max_prompt_length=17)
    for prompt in islice(random_prompts(task, 1, POINT, counter, 1.0), 20):
        assert counter.count(prompt) == 17


def test_tokenizers_that_cannot_be_had_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "is no tokenizer" in load_tokenizer(str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("MODELSCOPE_DOMAIN", "127.0.0.1:9")
    reason = load_tokenizer("openai-mirror/gpt-oss-20b")
    assert "Hugging Face can't be reached; ModelScope can't be reached" in reason


def test_request_bodies() -> None:
    task = PerfTask(max_tokens=9, temperature=0, extra_args='{"ignore_eos": true}')
    chat = orjson.loads(body("chat", "hi", generation(task, "m", "high")))
    assert chat == {
        "model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9, "temperature": 0,
        "reasoning_effort": "high", "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True,
    }  # fmt: skip
    whole = orjson.loads(body("completions", "hi", generation(PerfTask(stream=False), "m", None)))
    assert whole == {"model": "m", "prompt": "hi", "stream": False}
    given = {"messages": [{"role": "system", "content": "s"}], "max_tokens": 3}
    assert orjson.loads(body("chat", given, generation(task, "m", None)))["max_tokens"] == 3


def test_prompt_files(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("Explain.\n")
    prompts = source(PerfTask(prompt=f"@{path}"), "m", 1, None, 1.0)(POINT)
    assert list(islice(prompts, 2)) == ["Explain.", "Explain."]
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        source(PerfTask(prompt=f"@{path}"), "m", 1, None, 1.0)
    with pytest.raises(UsageError, match="No such file"):
        source(PerfTask(prompt="@/nowhere"), "m", 1, None, 1.0)


def test_evalscope_datasets(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text('one\n[{"role": "user", "content": "two"}]\n')
    prompts = source(PerfTask(dataset="line_by_line", dataset_path=str(path)), "m", 1, None, 1.0)(POINT)
    assert list(islice(prompts, 3)) == [
        [{"role": "user", "content": "one"}],
        [{"role": "user", "content": "two"}],
        [{"role": "user", "content": "one"}],
    ]
    with pytest.raises(UsageError, match="can't be loaded"):
        source(PerfTask(dataset="nothing_like_it"), "m", 1, None, 1.0)


@given(st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=30))
def test_the_deck(tmp_path_factory: pytest.TempPathFactory, bodies: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("deck") / "d"
    requests = [(body, due) for due, body in enumerate(bodies * 2)]
    assert write_request_file(path, requests) == 2 * len(bodies)
    deck = RequestFile(path)
    assert [deck[n] for n in range(len(deck))] == requests
    deck.close()
    assert path.stat().st_size == 8 + 48 * len(bodies) + sum(map(len, set(bodies)))


def test_a_budget_is_shared(tmp_path: Path) -> None:
    one, two = RequestCounter(tmp_path / "b"), RequestCounter(tmp_path / "b")
    assert [one.take(3), two.take(3), one.take(3), two.take(3)] == [0, 1, 2, None]
    one.close()
    two.close()


def test_keys_are_blotted_out_of_the_command() -> None:
    given = [
        "/usr/bin/oss-eval",
        "perf",
        "--api-key",
        "sk-1",
        "--api-key=sk-2",
        "--url",
        "http://u:sk-3@h/v1?api-key=sk-4",
    ]
    shown = ["oss-eval", "perf", "--api-key", "***", "--api-key=***", "--url", "http://***@h/v1?api-key=***"]
    assert command_line(given) == shown
    assert public_url("https://h/v1?api-version=2025-01-01&sig=x") == "https://h/v1?api-version=2025-01-01&sig=***"


def test_the_documented_benchmark_is_valid() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    example = text.partition("```yaml\n")[2].partition("```")[0]
    assert len(example.splitlines()) <= 15
    assert validated(BenchTask, {"name": "x", **yaml.safe_load(example)}, "oss-eval bench").scorer == "integer"


def test_the_documented_task_example_is_valid() -> None:
    text = (ROOT / "docs" / "perf.md").read_text(encoding="utf-8")
    example = text.partition("```yaml\n")[2].partition("```")[0]
    assert validated(PerfTask, {"name": "x", **yaml.safe_load(example)}, "oss-eval perf").parallel
