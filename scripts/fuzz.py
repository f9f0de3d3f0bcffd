#!/usr/bin/env python
"""Fuzz what gets in from outside: `python scripts/fuzz.py [TARGET ...] [--seconds 60]`, atheris installed.

Coverage leads the inputs into the code (https://github.com/google/atheris). Each target runs in a process of its
own for its share of the time, with the same functions and the same budget an input as the property tests; what it
finds is a file `crash-*` with the input, and exit code 1.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))


def fuzz(name: str, seconds: int, corpus: str) -> None:
    """One target in this process; does not return."""
    import atheris

    with atheris.instrument_imports(include=["oss_eval"]):
        from tests.helpers import hostile_input
        from tests.helpers import hostile_input_helpers as text

    words = {
        "sse": text.WIRE, "lines": text.WIRE, "body": text.WIRE,
        "response": text.HTTP + text.WIRE, "task_file": text.YAML,
        "endpoint_file": text.YAML, "answer": text.TEXT, "address": text.QUERY,
        "simulator_url": [b"speed=", b"fault=", b"reset:", b"all:0.1", b"&", b"rate=1"], "parquet": [],
        "manifest": [b'"name": 5', b"1e999", b"[" * 50, b'"\\ud800"', b"null"],
        "models": [b"[[[", b'{"id": 5}', b"1e999"],
        "terminal": [b"\x1b]52;c;x\x07", b"\x1b[2J", b"\x9b2J", b"\xe2\x80\xae"],
        "host": [b"localhost:7860", b"[::1]:80", b"evil.example", b"127.0.0.1.evil", b"known.example"],
    }[name]  # fmt: skip
    for number, word in enumerate(words):
        (Path(corpus) / f"word-{number}").write_bytes(b"\x07" + word)
    flags = [
        f"-max_total_time={seconds}",
        "-timeout=20",
        "-rss_limit_mb=4096",
        "-max_len=4096",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *flags, corpus], lambda data: hostile_input.attempt(name, data))
    atheris.Fuzz()


def main() -> int:
    """Each target in turn; 1 if any input did what it must not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="targets of hostile_input.py (default all)")
    parser.add_argument("--seconds", type=int, default=60, help="in all (default 60)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        with tempfile.TemporaryDirectory() as corpus:
            fuzz(arguments.one, arguments.seconds, corpus)
    from tests.helpers.hostile_input import TARGETS  # not above: what is imported before atheris is not led into

    names = arguments.targets or list(TARGETS)
    failed = []
    for name in names:
        share = max(1, arguments.seconds // len(names))
        command = [sys.executable, __file__, "--one", name, "--seconds", str(share)]
        done = subprocess.run(
            command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONHASHSEED": "0"}
        )
        runs = [line.split()[-1] for line in done.stderr.splitlines() if "number_of_executed_units" in line]
        verdict = "FAILED" if done.returncode else "ok"
        print(f"{name:<15} {runs[0] if runs else '?':>9} inputs in {share} s: {verdict}", flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stderr[-3000:])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
