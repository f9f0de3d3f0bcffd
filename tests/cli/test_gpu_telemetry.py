"""Sweeps with a DCGM exporter or NVML beside the server, whose power follows a known law."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from oss_eval.results.reader import find_run
from oss_eval.simulator.process import running
from oss_eval.viewer.pages import perf
from oss_eval.viewer.query import Query
from oss_eval.viewer.run_index import RunIndex
from tests.helpers.commands import ROOT, Command
from tests.helpers.scripted_server import GOOD, MODELS, ScriptedServer, Step, text_reply

pytestmark = pytest.mark.alone

WORDS = ("perf", "--parallel", "4", "--number", "12", "--prompt", "Hi", "--max-tokens", "300", "--json")


def power(when: float) -> float:
    """Watts of a GPU at a time: waves of 2 s."""
    return 400 + 100 * math.sin(math.pi * when)


def energy(when: float) -> float:
    """Joules up to a time."""
    return 400 * when - 100 / math.pi * math.cos(math.pi * when) + 1e5


class Exporter:
    """Two GPUs' metrics as NVIDIA's dcgm-exporter 4.6 writes them; the second one has no work."""

    def __init__(self, kind: str = "") -> None:
        self.kind = kind
        self.zero = time.time()
        self.asked = 0

    def __call__(self, number: int, request: bytes) -> Sequence[Step]:
        self.asked += 1
        if self.kind == "stalls":
            time.sleep(30)
        if self.kind == "500" or (self.kind == "stops" and self.asked > 3):
            return [text_reply(b"oops", b"500 Internal Server Error")]
        if self.kind == "html":
            return [text_reply(b"<html>")]
        now = time.time() - self.zero
        lines = ["# TYPE DCGM_FI_DEV_POWER_USAGE gauge"]
        for gpu in (0, 1):
            label = (
                f'{{gpu="{gpu}",UUID="GPU-{gpu}",device="nvidia{gpu}",modelName="NVIDIA H100",Hostname="node"}}'
            )
            values = {
                "POWER_USAGE": power(now) if gpu == 0 else 70, "GPU_UTIL": 90 if gpu == 0 and self.asked > 6 else 0,
                "FB_USED": 60000, "SM_CLOCK": 1755, "GPU_TEMP": 55, "MEMORY_TEMP": 9223372036854775794,
                "CLOCKS_EVENT_REASONS": 4 if gpu == 0 else 1,
            }  # fmt: skip
            if self.kind != "no counter":
                values["TOTAL_ENERGY_CONSUMPTION"] = round(1000 * (energy(now) if gpu == 0 else 70 * now))
            lines += [f"DCGM_FI_DEV_{name}{label} {value}" for name, value in values.items()]
        return [text_reply("\n".join(lines).encode() + b"\n")]


@pytest.mark.parametrize("kind", ["", "no counter"])
def test_energy_is_that_of_the_law(oss_eval: Command, tmp_path: Path, kind: str) -> None:
    exporter = Exporter(kind)
    with running("sim://gpt-oss-20b-h20") as url, ScriptedServer(exporter) as metrics:
        done = oss_eval(*WORDS, "--url", url, "--gpu-telemetry", f"dcgm:{metrics.url}", "--gpu-price", "2.5/h")
    assert done.returncode == 0, done.stderr
    run = find_run("last", tmp_path / "results")
    figures = json.loads(done.stdout)["points"][0]["metrics"]
    rows = pd.read_parquet(run / "requests")
    rows = rows[~rows.warmup]
    begin, end = rows.start_ns.min() / 1e9 - exporter.zero, rows.end_ns.max() / 1e9 - exporter.zero
    assert end - begin > 3
    true = energy(end) - energy(begin)
    found = figures["gpu_energy_j"]
    low, high = found["ci95"]["value"]
    assert found["value"] == pytest.approx(true, rel=0.05)
    assert low < true < high
    assert high - found["value"] > 0.05 * found["value"]
    tokens = figures["completion_tokens"]["total"]
    assert figures["energy_per_token_j"]["value"] == pytest.approx(found["value"] / tokens)
    assert figures["tokens_per_joule"]["value"] == pytest.approx(tokens / found["value"])
    assert figures["gpu_power_w"]["mean"] == pytest.approx(found["value"] / figures["duration"]["value"])
    idle = figures["gpu_idle_power_w"]["value"]
    above = (found["value"] - idle * figures["duration"]["value"]) / tokens
    assert figures["energy_per_token_above_idle_j"]["value"] == pytest.approx(above)
    assert figures["gpu_count"]["value"] == 1
    assert figures["gpu_throttled"]["value"] == 1
    assert figures["gpu_memory_mb"]["max"] == 60000
    stored = pd.read_parquet(run / "gpu_telemetry")
    assert set(stored.gpu) == {0, 1}
    assert idle == pytest.approx(stored[(stored.point_id == "idle") & (stored.gpu == 0)].power_w.mean())
    assert stored.temperature_c.max() == 55
    manifest = json.loads((run / "manifest.json").read_text())
    assert [gpu["name"] for gpu in manifest["gpu_telemetry"]["gpus"]] == ["NVIDIA H100"] * 2
    for text in ("GPUs: 2 × NVIDIA H100", "1 of 2 GPUs had work", "± bounds of the error"):
        assert text in done.stderr
    assert oss_eval("fsck", "last").returncode == 0, oss_eval("fsck", "last").stdout
    page = load_page(tmp_path / "results", run.name)
    for text in ("<h2>Server metrics</h2>", "<h2>GPUs: 2 × NVIDIA H100</h2>", "1 of 2 GPUs had work"):
        assert text in page
    assert f">{figures['server_ttft_ms']['mean']:.2f}<" in page
    assert f">{figures['gpu_power_w']['mean']:.1f}<" in page


def load_page(results: Path, run: str, **options: str) -> str:
    """The viewer's Load page of a run."""
    query = Query("perf", (run,), options)
    return str(perf.draw(RunIndex([results]), query, lambda words: words).value(query)["html"])


def test_price_within_the_limits(oss_eval: Command, tmp_path: Path) -> None:
    done = oss_eval(
        "perf", "--url", "sim://paced?rate=400&ttft=20", "--parallel", "4", "16", "--number", "120", "--prompt", "Hi",
        "--max-tokens", "8", "--gpu-price", "2.5/h", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = find_run("last", tmp_path / "results").name
    price, level = min(
        (p["metrics"]["price_per_mtok"]["value"], p["parallel"]) for p in json.loads(done.stdout)["points"]
    )
    words = f"lowest price within the limits {price:.4g} for 1M output tokens, at concurrency {level}"
    assert words in load_page(tmp_path / "results", run, ttft="2000")
    missed = load_page(tmp_path / "results", run, ttft="1")
    assert "lowest price" not in missed
    assert "Price of 1M out" in missed


@pytest.mark.parametrize("kind", ["stalls", "500", "html", "stops"])
def test_an_exporter_that_fails_changes_nothing(oss_eval: Command, tmp_path: Path, kind: str) -> None:
    with running("sim://gpt-oss-20b-h20") as url, ScriptedServer(Exporter(kind)) as metrics:
        short = () if kind == "stops" else ("--max-tokens", "60")
        done = oss_eval(*WORDS, *short, "--url", url, "--gpu-telemetry", f"dcgm:{metrics.url}")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["points"][0]["metrics"]
    assert figures["success_rate"]["value"] == 1
    assert "gpu_energy_j" not in figures
    assert ("no GPU telemetry" in done.stderr) == (kind != "stops")
    if kind == "stops":
        manifest = json.loads((find_run("last", tmp_path / "results") / "manifest.json").read_text())
        assert "500" in manifest["gpu_telemetry"]["problem"]
    assert oss_eval("fsck", "last").returncode == 0


NVML = """
import time
NVML_CLOCK_SM = NVML_TEMPERATURE_GPU = 1
class NVMLError(Exception): ...
class NVMLError_NotSupported(NVMLError): ...
class Of:
    gpu, used, total = 50, 2**34, 2**36
def nvmlInit(): ...
def nvmlDeviceGetCount(): return 1
def nvmlDeviceGetHandleByIndex(number): return number
def nvmlDeviceGetName(h): return "NVIDIA Test"
def nvmlDeviceGetUUID(h): return "GPU-7"
def nvmlDeviceGetEnforcedPowerLimit(h): return 700_000
def nvmlDeviceGetPowerUsage(h): return 300_000
def nvmlDeviceGetTotalEnergyConsumption(h): return int(time.time() * 300_000)
def nvmlDeviceGetUtilizationRates(h): return Of
def nvmlDeviceGetMemoryInfo(h): return Of
def nvmlDeviceGetClockInfo(h, kind): return 1980
def nvmlDeviceGetTemperature(h, kind): raise NVMLError_NotSupported
def nvmlDeviceGetCurrentClocksEventReasons(h): return 0
"""


def test_nvml_of_this_machine_is_for_servers_on_it(oss_eval: Command, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "pynvml.py").write_text(NVML)
    path = f"{ROOT}{os.pathsep}{tmp_path / 'lib'}"

    def script(number: int, request: bytes) -> Sequence[Step]:
        return [MODELS] if request.startswith(b"GET") else [GOOD]

    words = ("perf", "--parallel", "1", "--number", "3", "--prompt", "Hi", "--json")
    with ScriptedServer(script) as server:
        done = oss_eval(*words, "--url", server.url, PYTHONPATH=path)
        off = oss_eval(*words, "--url", server.url, "--gpu-telemetry", "off", PYTHONPATH=path)
    simulated = oss_eval(*words, "--url", "sim://gpt-oss-20b-h20", "--max-tokens", "20", PYTHONPATH=path)
    assert (done.returncode, off.returncode, simulated.returncode) == (0, 0, 0), done.stderr
    found = json.loads(done.stdout)["points"][0]["metrics"]
    assert found["gpu_power_w"]["mean"] == pytest.approx(300, rel=0.02)
    assert "gpu_temperature_c" not in found
    assert "gpu_idle_power_w" not in found  # it was in use before
    assert "gpu_power_w" not in off.stdout + simulated.stdout


def test_a_setting_that_is_none_is_refused(oss_eval: Command) -> None:
    refused = oss_eval(*WORDS, "--url", "http://127.0.0.1:9/v1", "--gpu-telemetry", "dcgm:gpu-host:9400")
    assert refused.returncode == 2
    assert "dcgm:http://gpu-host:9400/metrics" in refused.stderr
