"""Events of a stream whose text is empty: tokens, or signs of life."""

from __future__ import annotations

from array import array


def with_empty(
    events: array[int], empty: array[int], at_the_end: int | None, tokens: int | None
) -> array[int] | None:
    """Offsets of the token events with those of the empty ones, if together they are the server's count of tokens.

    `at_the_end` is the offset of an event with the stop reason and no text: the stop token, where the server
    counts it. A server sends an empty event for a token whose text is not complete (half a character in UTF-8) or
    can't be shown. Without them a first token would come late, and the gaps and the TPOT would be wrong. Elsewhere
    they are signs of life during hidden reasoning: then None. A stop token that came with other text has no event.
    """
    missing = (tokens or 0) - len(events)
    found = array("q", empty)
    if at_the_end is not None and missing == len(found) + 1:
        found.append(at_the_end)
    without_event = missing - len(found)
    if not found or without_event not in ((0, 1) if at_the_end is None else (0,)):
        return None
    return array("q", sorted([*events, *found]))
