"""Power, utilization, memory and clocks of the server's GPUs: from NVML on this machine, or a DCGM exporter.

NVML: https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html. DCGM exporter:
https://docs.nvidia.com/datacenter/dcgm/latest/reference/dcgm-exporter-metrics.html.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from oss_eval.endpoint.auth import Auth
from oss_eval.endpoint.background_reader import TIMEOUT_SECONDS, BackgroundReader
from oss_eval.endpoint.http import get
from oss_eval.endpoint.network import is_remote
from oss_eval.endpoint.server import Server
from oss_eval.system.redact import public_url

DCGM = "dcgm:"
NVML_SECONDS, DCGM_SECONDS = 0.5, 1.0
"""Between readings; NVML: times the number of GPUs, as a reading takes 3.5 ms of CPU a GPU (H200, driver 580). An
exporter updates its values at an interval of its own, 30 s unless told otherwise."""
IDLE_SECONDS = 2.0
"""The GPUs are read for so long before the first request."""
BLANK = 9.2e18
"""DCGM writes values from here on for what a GPU does not have."""


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU at one time; what it does not tell is None."""

    power_w: float | None = None
    energy_j: float | None = None
    """Counter since the driver was loaded."""
    utilization: float | None = None
    """Share of the time with a kernel running, 0 to 1."""
    memory_mb: float | None = None
    """Used, in MiB."""
    clock_mhz: float | None = None
    """Of the SMs."""
    temperature_c: float | None = None
    throttle_reasons: int | None = None
    """NVML's bit mask of clocks event reasons."""


Source = Callable[[], dict[int, GpuReading]]
"""Reads all GPUs, by number."""
Gpus = list[dict[str, Any]]
"""What does not change: `gpu` (number), `name`, `uuid`, `memory_mb`, `power_limit_w`; absent is None."""


@dataclass(frozen=True, slots=True)
class TelemetryRow:
    """A stored row."""

    point_id: str | None
    gpu: int
    time_ns: int
    reading: GpuReading


class GpuReader(BackgroundReader):
    """Reads the GPUs.

    `setting`: `auto` (NVML, where the server is on this machine and is no simulator), `off`, or `dcgm:URL`.
    """

    name = "gpu-telemetry"

    def __init__(self, server: Server, setting: str) -> None:
        super().__init__()
        self._server, self._setting = server, setting
        self._read: Source | None = None
        self._interval = NVML_SECONDS
        self._rows: list[TelemetryRow] = []
        self.source = ""
        """`nvml`, or the URL of the exporter."""
        self.gpus: Gpus = []

    def start(self, idle: str) -> bool:
        """Find the GPUs and read them as the point `idle` for IDLE_SECONDS; whether there are any."""
        if self._setting == "off":
            return False
        try:
            self.open()
            found = self._read() if self._read else {}
        except Exception as error:  # noqa: BLE001 (no driver, no exporter, no such field: all the same to the run)
            self._note_failure(self._told(error))
            return False
        if not found:
            return False
        self._start(self._interval)
        self.begin(idle)
        time.sleep(IDLE_SECONDS)
        self._point = None
        return True

    def begin(self, point_id: str) -> None:
        """A point begins: read now, and from now on for this point."""
        self._note(point_id)
        self._point = point_id

    def end(self) -> list[TelemetryRow]:
        """The point has ended; all readings since the last call. They go on, for no point."""
        point_id, self._point = self._point, None
        self._note(point_id)
        with self._lock:
            rows, self._rows = self._rows, []
        return rows

    def as_manifest(self) -> dict[str, Any]:
        """The manifest's `gpu_telemetry`."""
        return {"source": self.source, "gpus": self.gpus, "problem": self.problem}

    def open(self) -> None:
        """Find the GPUs. Raises whatever the driver or the exporter raises."""
        if self._setting.startswith(DCGM):
            self._interval = DCGM_SECONDS
            self.source = public_url(self._setting.removeprefix(DCGM))
            self._read, self.gpus = _open_dcgm(self._server, self._setting.removeprefix(DCGM))
        elif self._server.simulator is None and not any(map(is_remote, self._server.endpoints)):
            self.source = "nvml"
            self._read, self.gpus = _open_nvml()
            self._interval = NVML_SECONDS * max(1, len(self.gpus))

    def _read_next(self) -> None:
        self._note(self._point)

    def _note(self, point_id: str | None) -> None:
        if self._read is None or not self._reading:
            return
        try:
            before = time.time_ns()
            found = self._read()
            now = (before + time.time_ns()) // 2
        except Exception as error:  # noqa: BLE001
            self._note_failure(self._told(error))
            return
        self._note_success()
        with self._lock:
            self._rows += [TelemetryRow(point_id, gpu, now, reading) for gpu, reading in found.items()]

    def _told(self, error: Exception) -> str:
        return self._server.redact(f"{type(error).__name__}: {error}"[:300])


def gpu_names(server: Server) -> list[str | None]:
    """The GPUs of this machine, where the server runs on it; none without a driver."""
    reader = GpuReader(server, "auto")
    with contextlib.suppress(Exception):  # no driver, no GPU
        reader.open()
    return [gpu["name"] for gpu in reader.gpus]


def as_columns(rows: list[TelemetryRow], run_id: str, session: int) -> dict[str, list[Any]]:
    """Rows as columns of the stored table."""
    readings = [asdict(row.reading) for row in rows]
    columns: dict[str, list[Any]] = {
        name: [getattr(r, name) for r in rows] for name in ("point_id", "gpu", "time_ns")
    }
    columns |= {name: [reading[name] for reading in readings] for name in asdict(GpuReading())}
    return {"run_id": [run_id] * len(rows), "session": [session] * len(rows), **columns}


# -- NVML -------------------------------------------------------------------------------------------------------


def _open_nvml() -> tuple[Source, Gpus]:
    """The GPUs of this machine. Raises NVMLError without a driver."""
    import pynvml  # type: ignore[import-untyped]

    pynvml.nvmlInit()
    handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
    if hasattr(pynvml, "nvmlDeviceGetCurrentClocksEventReasons"):
        reasons = pynvml.nvmlDeviceGetCurrentClocksEventReasons
    else:
        reasons = pynvml.nvmlDeviceGetCurrentClocksThrottleReasons
    missing: set[tuple[str, int]] = set()

    def ask(name: str, number: int, query: Callable[[Any], Any]) -> Any:
        """A value, or None for what the GPU does not have: it is not asked for that again."""
        if (name, number) in missing:
            return None
        try:
            return query(handles[number])
        except pynvml.NVMLError_NotSupported:
            missing.add((name, number))
            return None

    def scaled(value: float | None, divisor: float) -> float | None:
        return None if value is None else value / divisor

    def read() -> dict[int, GpuReading]:
        return {
            number: GpuReading(
                power_w=scaled(ask("power", number, pynvml.nvmlDeviceGetPowerUsage), 1e3),
                energy_j=scaled(ask("energy", number, pynvml.nvmlDeviceGetTotalEnergyConsumption), 1e3),
                utilization=scaled(
                    ask("utilization", number, lambda h: pynvml.nvmlDeviceGetUtilizationRates(h).gpu), 100
                ),
                memory_mb=scaled(ask("memory", number, lambda h: pynvml.nvmlDeviceGetMemoryInfo(h).used), 2**20),
                clock_mhz=scaled(
                    ask("clock", number, lambda h: pynvml.nvmlDeviceGetClockInfo(h, pynvml.NVML_CLOCK_SM)), 1
                ),
                temperature_c=scaled(
                    ask(
                        "temperature", number,
                        lambda h: pynvml.nvmlDeviceGetTemperature(h, pynvml.NVML_TEMPERATURE_GPU),
                    ), 1
                ),
                throttle_reasons=ask("reasons", number, reasons),
            )
            for number in range(len(handles))
        }  # fmt: skip

    gpus = [
        {
            "gpu": number,
            "name": ask("name", number, pynvml.nvmlDeviceGetName),
            "uuid": ask("uuid", number, pynvml.nvmlDeviceGetUUID),
            "memory_mb": scaled(ask("size", number, lambda h: pynvml.nvmlDeviceGetMemoryInfo(h).total), 2**20),
            "power_limit_w": scaled(ask("limit", number, pynvml.nvmlDeviceGetEnforcedPowerLimit), 1e3),
        }
        for number in range(len(handles))
    ]
    return read, gpus


# -- DCGM exporter ----------------------------------------------------------------------------------------------

_FIELDS = {
    "DCGM_FI_DEV_POWER_USAGE": ("power_w", 1.0),
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": ("energy_j", 1e3),
    "DCGM_FI_DEV_GPU_UTIL": ("utilization", 100.0),
    "DCGM_FI_DEV_FB_USED": ("memory_mb", 1.0),
    "DCGM_FI_DEV_SM_CLOCK": ("clock_mhz", 1.0),
    "DCGM_FI_DEV_GPU_TEMP": ("temperature_c", 1.0),
    "DCGM_FI_DEV_CLOCKS_EVENT_REASONS": ("throttle_reasons", 1.0),
    "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS": ("throttle_reasons", 1.0),
}
"""Name in the exporter's text: name here, and what to divide by."""
_LINES = re.compile(r"(?m)^(?:" + "|".join(_FIELDS) + r")[ {].*$")


def read_dcgm(text: str) -> tuple[dict[int, GpuReading], Gpus]:
    """The GPUs in an exporter's text, numbered in the order of host and number. Raises ValueError if it is none.

    A GPU that is divided (MIG) is read once: power and energy are those of the whole.
    """
    from prometheus_client.parser import text_string_to_metric_families

    values: dict[tuple[str, int], dict[str, float]] = {}
    labels: dict[tuple[str, int], dict[str, str]] = {}
    for family in text_string_to_metric_families("\n".join(_LINES.findall(text)) + "\n"):
        for sample in family.samples:
            gpu = sample.labels.get("gpu", "")
            name, divisor = _FIELDS[sample.name]
            if not gpu.isdigit() or not 0 <= sample.value < BLANK:
                continue
            key = sample.labels.get("Hostname", ""), int(gpu)
            labels.setdefault(key, sample.labels)
            values.setdefault(key, {}).setdefault(name, sample.value / divisor)
    readings: dict[int, GpuReading] = {}
    gpus: Gpus = []
    for number, key in enumerate(sorted(values)):
        reasons = values[key].pop("throttle_reasons", None)
        numbers: dict[str, Any] = dict(values[key])
        readings[number] = GpuReading(**numbers, throttle_reasons=None if reasons is None else int(reasons))
        known = labels[key]
        gpus.append(
            {
                "gpu": number, "name": known.get("modelName"), "uuid": known.get("UUID"),
                "memory_mb": None, "power_limit_w": None,
            }
        )  # fmt: skip
    if not readings:
        raise ValueError("no GPU in these metrics")
    return readings, gpus


def _open_dcgm(server: Server, url: str) -> tuple[Source, Gpus]:
    """The GPUs of an exporter. The server's key is not sent there."""
    endpoint = replace(server.endpoint, base=urlsplit(url), auth=Auth(), headers=())

    def fetch() -> tuple[dict[int, GpuReading], Gpus]:
        return read_dcgm(get(endpoint, url, TIMEOUT_SECONDS).body.decode("utf-8", "replace"))

    return lambda: fetch()[0], fetch()[1]
