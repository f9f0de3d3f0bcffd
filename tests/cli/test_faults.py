"""Faulty servers: every fault is called what it is, others are undisturbed, and the run comes to its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from oss_eval.simulator.faults import FAULTS
from oss_eval.simulator.process import running
from tests.helpers.commands import ROOT, Command

pytestmark = pytest.mark.alone


def test_the_table_tells(tmp_path: Path, oss_eval: Command) -> None:
    url = "sim://paced?rate=300&ttft=10&fault=reset:0.2,503:0.2,bad-json:0.2"
    done = oss_eval("perf", "--url", url, "--parallel", "8", "--number", "60", "--max-tokens", "20")
    assert done.returncode == 0, done.stderr
    for kind in ("stream_broken", "http_5xx 503 Service Unavailable", "decode an event that is not JSON"):
        assert kind in done.stdout
    assert "100%" not in done.stdout.split("Succ.")[1].split("Percentiles")[0]


def test_a_certificate_that_nobody_should_trust(oss_eval: Command, tmp_path: Path) -> None:
    with running("sim://paced?rate=200&ttft=10&fault=tls") as url:
        assert url.startswith("https://")
        done = oss_eval("perf", "--url", url, "--parallel", "1", "--number", "2", "--max-tokens", "5")
        assert done.returncode == 2
        assert "certificate is not trusted" in done.stderr
        asked = oss_eval("ask", "hello", "--url", url, "--max-tokens", "5", "--insecure")
        assert asked.returncode == 0, asked.stderr
        bench = oss_eval("bench", "demo", "--url", url, "--limit", "1")
        assert bench.returncode == 2
        assert not (tmp_path / "results").exists()


def test_the_command_takes_faults(oss_eval: Command) -> None:
    done = oss_eval("simulate", "--fault", "rset")
    assert done.returncode == 2
    assert "did you mean reset?" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_matrix_of_the_docs() -> None:
    """Measured again, every fault is called what docs/reliability.md says. Its times are not compared."""

    def calls(text: str) -> dict[str, tuple[set[str], set[str]]]:
        found = {}
        for line in text.splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if line.startswith("| `") and len(cells) == 8:
                found[cells[0].strip("`")] = set(cells[2].split(", ")), set(cells[5].split(", "))
        return found

    documented = calls((ROOT / "docs" / "reliability.md").read_text())
    assert set(documented) == set(FAULTS)
    done = subprocess.run(
        [sys.executable, "benchmarks/faults.py"], cwd=ROOT, capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0, done.stdout[-2000:]
    measured = calls(done.stdout)
    # Which of several faults' consequences came up, and whether four attempts were enough, is chance.
    for name, (sweep, bench) in measured.items():
        assert sweep & documented[name][0], name
        assert bench & documented[name][1], name
