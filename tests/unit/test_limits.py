"""What runs out on this machine: ports, files, memory; and clocks that are set."""

from __future__ import annotations

import resource

import pytest

from oss_eval.config.perf_task import PerfTask
from oss_eval.errors import UsageError
from oss_eval.load.plan import grid
from oss_eval.load.workers.pool import check_descriptors


def test_several_servers_need_several_connections_a_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (1024, 1024))
    points = grid(PerfTask(parallel=(400,)), 1)
    check_descriptors(points)
    check_descriptors(points, 2)
    with pytest.raises(UsageError, match="1200 connections"):
        check_descriptors(points, 3)
