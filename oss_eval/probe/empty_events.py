"""Events of a stream whose text is empty: tokens, or signs of life."""

from __future__ import annotations

from array import array


def with_empty(
    events: array[int], empty: array[int], at_the_end: int | None, tokens: int | None
) -> array[int] | None:
    """Offsets of the token events with those of the empty ones, if together they are the server's count of tokens.

    `at_the_end` is the offset of an empty event with the stop reason. A server sends an empty event for a token
    whose text is not complete (half a character in UTF-8) or can't be shown. Without them a first token would come
    late, and the gaps and the TPOT would be wrong. Elsewhere they are signs of life during hidden reasoning: then
    None. The stop token, which has no event, may be in the server's count.
    """
    missing = (tokens or 0) - len(events)
    found = array("q", empty)
    if at_the_end is not None and missing > len(found):
        found.append(at_the_end)
    if not found or missing - len(found) not in (0, 1):
        return None
    return array("q", sorted([*events, *found]))
