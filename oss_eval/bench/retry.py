"""When a failed request is sent again, and after how long."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_WAIT = 600.0
"""Maximum wait in seconds; a request fails when the server asks for more."""


BACKOFF = 1.0
"""Seconds before the first retry, doubled each time, up to LONGEST_BACKOFF."""


LONGEST_BACKOFF = 60.0


FINAL_STATUS = (400, 401, 403, 404, 405, 413, 422)
"""HTTP statuses that are not retried: the same request would fail again."""


def retry_after(header: str | None) -> float | None:
    """Seconds in a Retry-After header, given as seconds or as a date; None without one."""
    if not header:
        return None
    if re.fullmatch(r"\s*\d{1,9}(\.\d*)?\s*", header):
        return float(header)
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
