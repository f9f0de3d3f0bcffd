"""What is read beside a sweep: GPU telemetry and the server's own metrics, stored by point."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from oss_eval.config.perf_task import PerfTask
from oss_eval.endpoint import gpu_telemetry, server_metrics
from oss_eval.endpoint.gpu_telemetry import GpuReader
from oss_eval.endpoint.server import Server
from oss_eval.endpoint.server_metrics import MetricsReader, metrics_endpoints
from oss_eval.results.part_files import GPU, SERVER, write_readings
from oss_eval.results.writer import RunWriter


class Readings:
    """The readers of a sweep. `say` is told of what can't be read or stored: that can't end a measurement."""

    def __init__(self, task: PerfTask, server: Server, writer: RunWriter, say: Callable[[str], None]) -> None:
        self.gpu = GpuReader(server, task.gpu_telemetry)
        self._metrics = MetricsReader(metrics_endpoints(server.endpoints, task.server_metrics), server.model)
        self._task, self._writer, self._say = task, writer, say

    def start_gpu(self, point_id: str) -> None:
        """Start GPU telemetry; what is read until the next point counts to `point_id`."""
        if not self.gpu.start(point_id) and self._task.gpu_telemetry not in ("auto", "off"):
            self._say(f"no GPU telemetry: {self.gpu.problem}")

    def start_metrics(self) -> None:
        """Find the server's metrics."""
        if not self._metrics.start() and self._task.server_metrics not in ("auto", "off"):
            self._say(f"no server metrics: {self._metrics.problem}")

    def begin(self, point_id: str) -> None:
        """A point begins."""
        self._metrics.begin(point_id)
        self.gpu.begin(point_id)

    def end(self, point_id: str, requests: int) -> None:
        """Store a point's readings; `requests`: how many the server is expected to have counted, 0 if unknown."""
        run_id, session = self._writer.run_id, self._writer.session
        self._store(GPU, gpu_telemetry.as_columns(self.gpu.end(), run_id, session))
        self._store(SERVER, server_metrics.as_columns(self._metrics.end(point_id, requests), run_id, session))

    def stop(self) -> None:
        """Stop both."""
        self._metrics.stop()
        self.gpu.stop()

    def _store(self, name: str, columns: dict[str, list[Any]]) -> None:
        if not columns["time_ns"]:
            return
        try:
            write_readings(self._writer.path, name, columns)
        except OSError as error:
            self._say(f"{name} can't be stored: {error.strerror}")
