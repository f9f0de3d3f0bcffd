"""Traces: the arrivals and lengths of a real service's requests.

Formats, by what a file holds: Mooncake's JSON lines (timestamp in ms, input_length, output_length, hash_ids;
https://github.com/kvcache-ai/Mooncake), Azure's CSV (TIMESTAMP, ContextTokens, GeneratedTokens;
https://github.com/Azure/AzurePublicDataset), BurstGPT's CSV (Timestamp in s, Request tokens, Response tokens;
https://github.com/HPMLL/BurstGPT). A JSON line may have messages or a prompt instead of an input_length.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from oss_eval.errors import UsageError
from oss_eval.system.files import read_file

BLOCK_TOKENS = 512
"""Tokens that a hash id stands for, as in Mooncake's traces."""
MOST_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request of a trace."""

    offset_s: float
    """Seconds after the first one."""
    input_tokens: int
    output_tokens: int | None
    hash_ids: tuple[int, ...] = ()
    """Blocks of BLOCK_TOKENS that the prompt is made of; equal ids are equal text."""
    prompt: str | list[dict[str, Any]] | None = None
    """The prompt itself, where the trace has it."""


def read_trace(path: Path, limit: int | None = None) -> list[TraceRequest]:
    """The requests of a trace, or its first `limit` ones, in order of time. Raises UsageError."""
    try:
        text = read_file(path, MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"can't read the trace {path}: {error.strerror}", "give --trace FILE") from None
    except UnicodeDecodeError:
        raise UsageError(f"the trace {path} is not UTF-8 text") from None
    first = text.lstrip()[:1]
    rows: Iterable[tuple[int, dict[str, Any]]] = _json_lines(path, text) if first == "{" else _csv_rows(path, text)
    found = []
    for line, row in rows:
        try:
            found.append(_request(row))
        except (KeyError, TypeError, ValueError) as error:
            reason = f"has no {error}" if isinstance(error, KeyError) else str(error)
            raise UsageError(f"the trace {path}, line {line}: {reason}", f"the formats: {FORMATS}") from None
        if len(found) == limit:
            break
    if not found:
        raise UsageError(f"the trace {path} has no request", f"the formats: {FORMATS}")
    found.sort(key=lambda one: one.offset_s)
    zero = found[0].offset_s
    return [_shifted(one, zero) for one in found]


FORMATS = (
    "JSON lines with timestamp (ms), input_length, output_length, hash_ids; or CSV with the header "
    "TIMESTAMP,ContextTokens,GeneratedTokens or Timestamp,Request tokens,Response tokens"
)


def _shifted(one: TraceRequest, zero: float) -> TraceRequest:
    return TraceRequest(one.offset_s - zero, one.input_tokens, one.output_tokens, one.hash_ids, one.prompt)


def _json_lines(path: Path, text: str) -> Iterable[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError:
                raise UsageError(f"the trace {path}, line {number}: is not JSON") from None
            if not isinstance(row, dict):
                raise UsageError(f"the trace {path}, line {number}: is no JSON object")
            yield number, row


def _csv_rows(path: Path, text: str) -> Iterable[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text))
    try:
        yield from ((number, row) for number, row in enumerate(reader, 2))
    except csv.Error as error:
        raise UsageError(f"the trace {path} is not CSV: {error}") from None


def _request(row: dict[str, Any]) -> TraceRequest:
    if "ContextTokens" in row:  # Azure
        return TraceRequest(
            _utc_seconds(row["TIMESTAMP"]), _count(row["ContextTokens"]), _count(row["GeneratedTokens"])
        )
    if "Request tokens" in row:  # BurstGPT
        return TraceRequest(float(row["Timestamp"]), _count(row["Request tokens"]), _count(row["Response tokens"]))
    prompt = row.get("messages") or row.get("prompt")
    if prompt is None and "input_length" not in row:
        raise ValueError("has neither input_length nor messages nor prompt")
    output = row.get("output_length")
    return TraceRequest(
        float(row["timestamp"]) / 1000,
        _count(row["input_length"]) if "input_length" in row else 0,
        None if output is None else _count(output),
        tuple(int(one) for one in row.get("hash_ids") or ()),
        prompt,
    )


def _count(value: Any) -> int:
    count = int(float(value))
    if count < 0:
        raise ValueError(f"{value} is no number of tokens")
    return count


def _utc_seconds(text: str) -> float:
    """`2023-11-16 18:17:03.9799600`: Python reads up to six digits of a second."""
    whole, _, fraction = text.strip().partition(".")
    return datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp() + float(f"0.{fraction or 0}")


def arrivals_ns(requests: Sequence[TraceRequest], scale: float) -> list[int]:
    """Planned starts in ns after the start of the point, `scale` times as fast as in the trace."""
    return [round(one.offset_s / scale * 1e9) for one in requests]


def theoretical_hit_rate(requests: Iterable[TraceRequest]) -> float | None:
    """The share of prompt tokens that a prefix cache without limit would have: of each request, the blocks up to
    the first one that no request before it had at that place behind the same ones. None without hash ids."""
    seen: set[int] = set()
    hits = total = 0
    any_ids = False
    for one in requests:
        any_ids |= bool(one.hash_ids)
        total += one.input_tokens
        prefix, missed = 0, False
        for place, block in enumerate(one.hash_ids):
            prefix = hash((prefix, block))
            missed = missed or prefix not in seen
            if not missed:
                hits += max(0, min(BLOCK_TOKENS, one.input_tokens - place * BLOCK_TOKENS))
            seen.add(prefix)
    return hits / total if any_ids and total else None


def block_lengths(one: TraceRequest) -> list[tuple[int | None, int]]:
    """(hash id, tokens) of the blocks of a prompt; the last one without an id is its own, and None."""
    blocks: list[tuple[int | None, int]] = []
    left = one.input_tokens
    for block in one.hash_ids:
        if left <= 0:
            break
        blocks.append((block, min(BLOCK_TOKENS, left)))
        left -= BLOCK_TOKENS
    return [*blocks, (None, left)] if left > 0 else blocks
