"""`perf --trace`: which requests are replayed, and what is said and stored of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from oss_eval.config.perf_task import PerfTask
from oss_eval.config.task_files import shipped_dir
from oss_eval.load.schedule.trace import TraceRequest, read_trace, theoretical_hit_rate

DEMO = "demo"


def task_trace(task: PerfTask) -> list[TraceRequest] | None:
    """The requests of the task's trace; None without one. Raises UsageError."""
    if task.trace is None:
        return None
    path = shipped_dir() / "traces" / "demo.jsonl" if task.trace == DEMO else Path(task.trace)
    return read_trace(path, task.limit)


def level_of(trace: list[TraceRequest], scale: float) -> tuple[float, int]:
    """(mean requests per second, their number) of a replayed trace."""
    seconds = trace[-1].offset_s / scale
    return float(f"{(len(trace) - 1) / seconds:.4g}") if seconds else float(len(trace)), len(trace)


def trace_entry(trace: list[TraceRequest], task: PerfTask) -> dict[str, Any]:
    """The manifest's entry."""
    return {
        "file": task.trace,
        "requests": len(trace),
        "seconds": trace[-1].offset_s / task.time_scale,
        "input_tokens": sum(one.input_tokens for one in trace),
        "output_tokens": sum(one.output_tokens or 0 for one in trace),
        "theoretical_hit_rate": theoretical_hit_rate(trace),
    }


def describe_trace(trace: list[TraceRequest], task: PerfTask) -> str:
    """A line about the trace."""
    entry = trace_entry(trace, task)
    rate = entry["theoretical_hit_rate"]
    text = (
        f"trace {task.trace}: {len(trace):,} requests in {entry['seconds']:,.1f} s, "
        f"{entry['input_tokens']:,} tokens in, {entry['output_tokens']:,} out"
    )
    return text + ("" if rate is None else f", a prefix cache without limit would hit {rate:.1%} of the tokens in")
