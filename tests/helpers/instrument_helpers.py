"""What the tests of instrument share."""

from __future__ import annotations

from oss_eval.diagnose.calibrate import CalibrationPoint
from oss_eval.load.client_stats import ClientStats
from oss_eval.load.plan import Point


def level(workers: int, parallel: int, error: float) -> CalibrationPoint:
    import numpy as np

    true = {m: np.array([1.0, 2.0, 3.0]) for m in ("ttft", "tpot", "itl", "latency")}
    point = Point(point_id="p", index=0, parallel=parallel, number=4, workers=workers)
    return CalibrationPoint(
        point, true, {m: v * (1 + error) for m, v in true.items()}, 4, 0, 100, 66.0 * parallel, 0.0, 1.0, 9.0, 1.0
    )


def client(**changes: float) -> ClientStats:
    base = {
        "workers": 2, "cores": 8, "slots": 64, "connections": 64, "reconnects": 0, "wall_seconds": 10.0, "cpu_seconds": 5.0, "main_cpu_seconds": 1.0,
        "waited_share": 0.01, "longest_stall_seconds": 0.004, "longest_flush_seconds": 0.0003, "held_back_seconds": 0.0,
    }  # fmt: skip
    return ClientStats(**{**base, **changes})  # type: ignore[arg-type]
