"""Laws of lengths, mixes of efforts, cancellation: drawn as they say, the same for the same seed."""

from __future__ import annotations

import random
from collections import Counter as Tally
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from oss_eval.config.perf_task import PerfTask
from oss_eval.errors import UsageError
from oss_eval.load.mix import parse_mix
from oss_eval.load.plan import Point
from oss_eval.load.prompts.length_law import length_law
from oss_eval.load.prompts.prompts import Sized, random_prompts
from oss_eval.load.schedule.cancellation import cancellation

POINT = Point(point_id="00-c1", index=0, parallel=1, number=1)


def drawn(text: str, count: int = 4000) -> np.ndarray:
    law, rng = length_law(text, "--prompt-length"), random.Random(1)
    return np.array([law.draw(rng, number) for number in range(count)])


def test_lengths_have_their_law(tmp_path: Path) -> None:
    assert set(drawn("77")) == {77}
    uniform = drawn("100-199")
    assert (uniform.min(), uniform.max()) == (100, 199)
    assert stats.kstest(uniform, stats.uniform(99.5, 100).cdf).pvalue > 0.001
    assert stats.kstest(drawn("normal:5000:500"), stats.norm(5000, 500).cdf).pvalue > 0.001
    assert stats.kstest(drawn("lognormal:5000:0.5"), stats.lognorm(0.5, scale=5000).cdf).pvalue > 0.001
    assert drawn("normal:3:50").min() == 1, "never less than one token"
    (tmp_path / "lengths.csv").write_text("10, 3\n\n20, 4\n")
    assert drawn(f"file:{tmp_path}/lengths.csv", 5).tolist() == [10, 20, 10, 20, 10]
    assert length_law(f"file:{tmp_path}/lengths.csv", "--output-length", 1).values == (3, 4)


@pytest.mark.parametrize(
    "text", ["", "0", "5-2", "normal:3", "lognormal:0:1", "weird:1:2", "file:/nowhere", "1.5"]
)
def test_what_is_no_law(text: str) -> None:
    with pytest.raises(UsageError, match=r"no law of lengths|can't read the lengths"):
        length_law(text, "--prompt-length")


def test_a_file_with_something_else(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("10\nlong\n")
    with pytest.raises(UsageError, match="line 2: 'long' is no number of tokens"):
        length_law(f"file:{tmp_path}/x", "--prompt-length")


def test_prompts_and_answers_have_the_lengths() -> None:
    task = PerfTask(prompt_length="20-30", output_length="5-6")
    some = list(islice(random_prompts(task, 3, POINT, None, 1.0), 200))
    assert all(isinstance(one, Sized) for one in some)
    assert {len(one.text.split()) for one in some} == set(range(20, 31))
    assert {one.max_tokens for one in some} == {5, 6}
    assert len({one.text for one in some}) == 200, "every prompt is another one"


def test_prefixes_come_in_turn() -> None:
    task = PerfTask(prefix_length=30, prefix_count=3, min_prompt_length=5, max_prompt_length=5)
    some = [str(text).split()[:30] for text in islice(random_prompts(task, 3, POINT, None, 1.0), 9)]
    assert some[0] == some[3] == some[6]
    assert len({" ".join(words) for words in some}) == 3
    one = PerfTask(prefix_length=30, min_prompt_length=5, max_prompt_length=5)
    assert str(next(random_prompts(one, 3, POINT, None, 1.0))).split()[:30] == some[0], (
        "the first is the only one's"
    )


def test_a_mix_has_its_shares() -> None:
    mix = parse_mix("low:0.7,high:0.3", "s")
    tally = Tally(mix.of(number) for number in range(4000))
    assert stats.binomtest(tally["low"], 4000, 0.7).pvalue > 0.001
    assert [mix.of(n) for n in range(20)] == [parse_mix("low:7,high:3", "s").of(n) for n in range(20)]
    for text in ("low", "low:0", "low:x", "low:1,low:2", ":1", "low:1,,"):
        with pytest.raises(UsageError, match="no mix of efforts"):
            parse_mix(text)


def test_a_share_is_cancelled() -> None:
    some = cancellation("0.25:1.5s", 3)
    after = [some.of(number) for number in range(4000)]
    assert stats.binomtest(sum(one is not None for one in after), 4000, 0.25).pvalue > 0.001
    assert set(after) == {None, 1.5}
    for text in ("", "0.1", "2:1s", "0.1:0s", "0.1:soon", "x:1"):
        with pytest.raises(UsageError, match="no share and time"):
            cancellation(text)
