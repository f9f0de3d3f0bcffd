"""`oss-eval plan`: numbers of answers against an independent simulation, from a stated guess and from a stored run."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import special
from statsmodels.stats.contingency_tables import StratifiedTable

from oss_eval.analysis.plan_answers import null_p_values, observed, stated
from oss_eval.analysis.stratified import p_value, strata
from tests.helpers.commands import ROOT, Command

EXAMPLES = ("--out", str(ROOT / "results" / "examples"))


def test_a_stated_guess_has_the_power_that_it_says(oss_eval: Command) -> None:
    words = ("plan", "aime25", "--problems", "30", "--score", "0.9", "--spread", "3", "--detect", "0.07")
    [plan] = json.loads(oss_eval(*words, "--power", "0.8", "--json").stdout)["plans"]
    repeats = plan["repeats"]
    assert plan["effort"] is None
    rng = np.random.default_rng(77)
    seen = []
    for _ in range(400):
        chances = rng.beta(2.7, 0.3, 30)
        logits = special.logit(np.clip(chances, 1e-9, 1 - 1e-9))
        shift = 0.86  # lowers the mean by 0.07
        right = [rng.binomial(repeats, p) for p in (chances, special.expit(logits - shift))]
        tables = [
            np.array([[a, repeats - a], [b, repeats - b]])
            for a, b in zip(*right, strict=True)
            if 0 < a + b < 2 * repeats
        ]
        seen.append(StratifiedTable(tables).test_null_odds(correction=False).pvalue < 0.05)
    drop = (special.expit(special.logit(rng.beta(2.7, 0.3, 200_000).clip(1e-9, 1 - 1e-9)) - 0.86)).mean() - 0.9
    assert drop == pytest.approx(-0.07, abs=0.003)
    assert 0.74 < np.mean(seen) < 0.88
    [row] = [a for a in plan["alternatives"] if a["repeats"] == repeats]
    assert row["detectable"] == pytest.approx(0.07, abs=0.006)
    assert row["answers"] == 30 * repeats
    assert row["hours"] is None
    more = [a["detectable"] for a in plan["alternatives"]]
    assert more == sorted(more, reverse=True)
    text = oss_eval(*words, COLUMNS="80").stdout
    assert "--repeats" in text
    assert max(map(len, text.splitlines())) <= 80


def test_p_values_at_once_are_those_one_by_one() -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.binomial(8, rng.beta(2, 1, (50, 12))) for _ in range(2))
    b[0] = a[0]
    one_by_one = [p_value(strata(x, 8, y, 8)) for x, y in zip(a, b, strict=True)]
    assert null_p_values(a, b, 8) == pytest.approx(one_by_one)


def test_the_spread_of_stored_answers() -> None:
    rng = np.random.default_rng(5)
    chances = rng.beta(1.8, 0.2, 4000)
    found = observed([list((rng.random(4) < p).astype(float)) for p in chances])
    assert found is not None
    guess = stated(0.9, 2.0)
    assert (found.score, found.within, found.between) == pytest.approx(
        (guess.score, guess.within, guess.between), abs=0.012
    )
    assert found.concentration == pytest.approx(2.0, rel=0.15)
    assert observed([[1.0], [0.0]]) is None


def test_from_a_run(oss_eval: Command) -> None:
    done = oss_eval("plan", "demo", "--from", "demo-a", "--detect", "0.1", *EXAMPLES)
    assert done.returncode == 0, done.stderr
    assert "demo high: 12 problems, score 0.889" in done.stdout
    assert "To find a difference of 0.1 between two runs 90% of the time: --repeats" in done.stdout
    document = json.loads(oss_eval("plan", "demo", "--from", "demo-a", "--json", *EXAMPLES).stdout)
    assert [plan["effort"] for plan in document["plans"]] == ["low", "medium", "high"]
    low = document["plans"][0]
    first = low["alternatives"][0]
    assert first["tokens"] == pytest.approx(low["tokens_per_answer"] * 12)
    assert first["hours"] == pytest.approx(low["seconds_per_answer"] * 12 / 3600)


def test_what_a_plan_lacks(oss_eval: Command) -> None:
    for words, text in (
        (("aime25",), "the number of problems and the expected score are not known"),
        (("aime25", "--from", "demo-a", *EXAMPLES), "has no task 'aime25'"),
        (("aime25", "--problems", "0", "--score", "0.9"), "--problems 0 is not above 0"),
        (("aime25", "--problems", "30", "--score", "9"), "9 is not between 0 and 1"),
    ):
        done = oss_eval("plan", *words)
        assert done.returncode == 2
        assert text in done.stderr
    done = oss_eval("plan", "aime25", "--problems", "30", "--score", "0.04", "--detect", "0.05")
    assert "No reasonable number of answers finds a difference of 0.05." in done.stdout
