"""Traces of three formats, what they promise a prefix cache, and what of them can't be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oss_eval.errors import UsageError
from oss_eval.load.prompts.trace_prompts import trace_prompts
from oss_eval.load.schedule.trace import (
    TraceRequest,
    arrivals_ns,
    block_lengths,
    read_trace,
    theoretical_hit_rate,
)
from oss_eval.perf.trace import level_of

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319600,3180,8
2023-11-16 18:17:05,110,27
"""
BURST = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45.5,ChatGPT,1087,230,1317,Conversation log
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "trace"
    path.write_text(text)
    return path


def test_azure(tmp_path: Path) -> None:
    found = read_trace(written(tmp_path, AZURE))
    assert [(r.input_tokens, r.output_tokens) for r in found] == [(4808, 10), (3180, 8), (110, 27)]
    assert [r.offset_s for r in found] == pytest.approx([0, 0.052, 1.02004], abs=1e-6)
    assert arrivals_ns(found, 2.0)[1] == pytest.approx(26e6, abs=1e3)
    assert level_of(found, 2.0) == (pytest.approx(2 / 0.51, rel=1e-3), 3)


def test_burstgpt(tmp_path: Path) -> None:
    found = read_trace(written(tmp_path, BURST))
    assert [(r.offset_s, r.input_tokens, r.output_tokens) for r in found] == [(0, 472, 18), (40.5, 1087, 230)]


def test_mooncake_and_prompts_of_its_own(tmp_path: Path) -> None:
    rows = [
        {"timestamp": 3000, "input_length": 600, "output_length": 3, "hash_ids": [7, 9]},
        {"timestamp": 2500, "messages": [{"role": "user", "content": "Hi"}], "output_length": 5},
    ]
    found = read_trace(written(tmp_path, "\n".join(map(json.dumps, rows))))
    assert [r.offset_s for r in found] == [0, 0.5], "in order of time"
    assert found[0].prompt == [{"role": "user", "content": "Hi"}]
    assert block_lengths(found[1]) == [(7, 512), (9, 88)]
    assert len(read_trace(written(tmp_path, AZURE), limit=2)) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no request"),
        ("a,b\n1,2\n", "line 2: has no 'timestamp'|line 2: has neither"),
        ('{"timestamp": 1}', "line 1: has neither input_length nor messages"),
        ('{"timestamp": "x", "input_length": 3}', "line 1: could not convert"),
        ('{"timestamp": 1, "input_length": -3}', "line 1: -3 is no number of tokens"),
        ('{"timestamp": 1', "line 1: is not JSON"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,2\n", "line 2: Invalid isoformat"),
    ],
)
def test_what_is_no_trace(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_trace(written(tmp_path, text))


def test_what_a_cache_without_limit_would_have() -> None:
    """The second request has two blocks in common, the third one the same block at another place, which is no hit."""
    requests = [
        TraceRequest(0, 1536, 1, (1, 2, 3)),
        TraceRequest(1, 1500, 1, (1, 2, 4)),
        TraceRequest(2, 1024, 1, (2, 1)),
    ]
    assert theoretical_hit_rate(requests) == 1024 / (1536 + 1500 + 1024)
    assert theoretical_hit_rate([TraceRequest(0, 10, 1)]) is None


def test_equal_blocks_are_equal_text() -> None:
    requests = [
        TraceRequest(0, 1034, 1, (1, 2)),
        TraceRequest(1, 1034, 1, (1, 2)),
        TraceRequest(2, 1034, 1, (1, 3)),
    ]
    one, two, three = (sized.text.split() for sized in trace_prompts(requests, 5, "p", None, 1.0))
    assert [len(one), len(two), len(three)] == [1034] * 3
    assert one[:1024] == two[:1024]
    assert one[1024:] != two[1024:], "what has no id is the request's own"
    assert (one[:512] == three[:512], one[512:1024] == three[512:1024]) == (True, False)
    other = next(trace_prompts(requests, 5, "q", None, 1.0)).text.split()
    assert other[:512] != one[:512], "another point finds nothing in the cache"
