"""Benchmarks from the command line against real servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from oss_eval.bench.concurrency import ConcurrencyLimit, ConcurrencyTuner
from oss_eval.bench.retry import retry_after
from oss_eval.records import SampleRecord
from oss_eval.results.reader import read_samples
from oss_eval.results.writer import RunWriter


class Bottleneck:
    """A server in virtual time whose throughput stops growing at a knee."""

    def __init__(self, knee: int) -> None:
        self.gate, self.knee, self.now, self.tokens = ConcurrencyLimit(ConcurrencyTuner.START), knee, 0.0, 0.0
        self.tuner = ConcurrencyTuner(self.gate, lambda: int(self.tokens), lambda: self.now)
        self.gate._inside = 10**6  # always enough to ask

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds * 10)):
            self.now += 0.1
            self.tokens += 0.1 * 100 * min(self.gate.limit, self.knee)
            self.tuner.look()


@pytest.mark.parametrize(("knee", "expected"), [(30, 32), (100, 128), (4, 8), (10_000, ConcurrencyTuner.MOST)])
def test_auto_finds_the_knee(knee: int, expected: int) -> None:
    server = Bottleneck(knee)
    server.run(40)
    assert server.gate.limit == expected


def test_auto_shrinks_when_the_server_says_so() -> None:
    server = Bottleneck(10_000)
    server.run(12)
    before = server.gate.limit
    for _ in range(8):  # a burst: all of it was sent before the first refusal came
        server.tuner.refused()
        server.tuner.look()
    server.run(1)
    assert server.gate.limit == before // 2
    server.run(30)
    assert server.gate.limit == before // 2  # and does not grow again at once


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [("3", 3, 3), (" 2.5 ", 2.5, 2.5), ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0), ("Fri, 31 Dec 2100 23:59:59 GMT", 1e9, 1e10)],
)  # fmt: skip
def test_retry_after(header: str, low: float, high: float) -> None:
    found = retry_after(header)
    assert found is not None
    assert low <= found <= high


@pytest.mark.parametrize("header", [None, "", "soon", "-3", "nan", "99999999999999999999"])
def test_a_retry_after_that_says_nothing(header: str | None) -> None:
    assert retry_after(header) is None


def test_half_a_line_in_the_journal(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, "r1", {"kind": "bench"})
    writer.close()
    (tmp_path / "r1" / ".samples.jsonl").write_bytes(b'{"run_id": "r1", "point')
    again = RunWriter.reopen(tmp_path / "r1")
    again.add_sample(
        SampleRecord(run_id="r1", point_id="p", request_id="q", task="t", subset="s", sample_id="1", epoch=1,
                     reasoning_effort=None, model="m", prompt="[]", target="1", score=1.0)
    )  # fmt: skip
    assert read_samples(tmp_path / "r1").num_rows == 1  # not flushed: the journal alone holds it
    again.close()
