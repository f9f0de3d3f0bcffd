"""Make the trace that ships with oss-eval, tasks/traces/demo.jsonl, in the format of Mooncake's traces.

It is synthetic: conversations begin by a Poisson process over two minutes. Each has the system prompt of one of
three applications (one to three blocks of 512 tokens) and one to eight turns, each with one block more of
history and a pause of 4 to 20 s. Answers are log-normal with a median of 120 tokens."""

from __future__ import annotations

import json
import random
from pathlib import Path

BLOCK = 512
TARGET = Path(__file__).parents[1] / "tasks" / "traces" / "demo.jsonl"


def main() -> None:
    """Write the file."""
    rng = random.Random(20261127)
    systems = [list(range(1)), list(range(10, 12)), list(range(20, 23))]
    rows, block, at = [], 100, 0.0
    while len(rows) < 240:
        at += rng.expovariate(0.6)
        ids, when = list(rng.choice(systems)), at
        for _ in range(rng.randint(1, 8)):
            asked = rng.randint(20, BLOCK - 1)
            rows.append(
                {
                    "timestamp": round(when * 1000),
                    "input_length": len(ids) * BLOCK + asked,
                    "output_length": max(4, min(600, round(120 * rng.lognormvariate(0, 0.6)))),
                    "hash_ids": [*ids, block],
                }
            )
            ids.append(block + 1)  # the turn's question and answer, a whole block, are the next one's history
            block += 2
            when += rng.uniform(4, 20)
    rows = sorted(rows, key=lambda row: row["timestamp"])
    rows = [row for row in rows if row["timestamp"] <= 120_000]
    TARGET.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
