"""When a failed request is sent again, and after how long."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_WAIT = 600.0
"""Seconds: a server that asks for more patience has failed the request."""


BACKOFF = 1.0
"""Seconds before the first repetition, doubled each time, up to LONGEST_BACKOFF."""


LONGEST_BACKOFF = 60.0


FINAL_STATUS = (400, 401, 403, 404, 405, 413, 422)
"""HTTP statuses after which the same request would fail again."""


def retry_after(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, given as seconds or as a date; None when it says nothing."""
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
