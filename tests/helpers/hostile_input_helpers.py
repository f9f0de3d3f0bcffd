"""What the tests of hostile input share."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.helpers.scripted_server import DONE, STOP, delta

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
