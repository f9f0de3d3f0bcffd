"""Benchmarks from the command line against real servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from oss_eval.errors import OssEvalError
from tests.helpers.bench_helpers import question_of, right
from tests.helpers.scripted_server import (
    ScriptedServer,
    saying,
    talking,
)


def test_from_python(tmp_path: Path, sums: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import oss_eval

    monkeypatch.chdir(tmp_path)
    with ScriptedServer(
        talking(lambda body: right(body) if "What is" in question_of(body) else saying("x"))
    ) as server:
        run = oss_eval.run_bench(str(sums), url=server.url, repeats=2, out=tmp_path / "here")
        assert run.status == "finished"
        frame = run.to_pandas()
        assert (len(frame), frame.score.mean()) == (40, 1.0)
        assert "avg@2" in set(run.summary().stat)
        with pytest.raises(OssEvalError, match="unknown benchmark"):
            oss_eval.run_bench("nothing_like_it", url=server.url)
        swept = oss_eval.run_perf(url=server.url, parallel=[2], number=[6], prompt="What is 1 + 1?", out=tmp_path)
        assert len(swept.to_pandas().query("not warmup")) == 6
