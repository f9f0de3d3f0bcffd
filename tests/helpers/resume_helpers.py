"""What the tests of resume share."""

from __future__ import annotations

from pathlib import Path

from oss_eval.errors import StoreError
from oss_eval.records import RequestRecord
from oss_eval.results.reader import read_requests
from tests.helpers.commands import only_run


def begun(folder: Path, point: str, rows: int) -> bool:
    """Whether a point of the only run has so many rows on disk."""
    try:
        return read_requests(only_run(folder), point).num_rows >= rows
    except (OSError, ValueError, StoreError):
        return False


def row(number: int, start: int, end: int, session: int, status: str = "ok") -> RequestRecord:
    second = 1_000_000_000
    return RequestRecord(
        run_id="r", point_id="p", request_id=f"p/{number}", worker=0, warmup=False, attempt=1, model="m",
        reasoning_effort=None, parallel=1, rate=None, scheduled_ns=None, start_ns=start * second,
        first_token_ns=end * second, last_token_ns=end * second, end_ns=end * second, event_ns=[(end - start) * second],
        n_events=1, completion_tokens=10, prompt_tokens=1, status=status, session=session,
    )  # fmt: skip
