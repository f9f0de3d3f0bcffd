"""What reaches a terminal, and what becomes of output that can't be written."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from oss_eval.results.manifest import read_manifest
from oss_eval.results.reader import find_run
from tests.helpers.commands import ROOT, Command
from tests.helpers.scripted_server import ScriptedServer, Step, json_reply, saying

ATTACK = (
    "\x1b]52;c;ZXZpbA==\x07\x1b]8;;http://evil.example\x1b\\link\x1b[2J\x9b31m\u202egpj.exe\u2066\x00\x7f\r\x08"
)
STYLES = re.compile(rb"\x1b\[[0-9;]*m|\x1b\[2K|\x1b\[1A|\x1b\[\?25[lh]")
"""What rich writes: styles and, for the live line, erase line, line up, hide and show the cursor."""
FORBIDDEN = re.compile(r"[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def hostile(number: int, request: bytes) -> Sequence[Step]:
    if request.startswith(b"GET"):
        return [json_reply(json.dumps({"object": "list", "data": [{"id": f"m{ATTACK}"}]}).encode())]
    if b"refuse" in request:
        return [json_reply(json.dumps({"error": {"message": f"no{ATTACK}"}}).encode(), "403 Forbidden")]
    return [saying(f"Hello{ATTACK} world", f"think{ATTACK}", f"stop{ATTACK}")]


def on_terminal(folder: Path, *words: str) -> bytes:
    """What a command writes on a terminal."""
    main, side = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "oss_eval", *words], cwd=folder, stdin=side, stdout=side, stderr=side,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120", "TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(side)
    written = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:
            break
        if not piece:
            break
        written += piece
    os.close(main)
    process.wait(timeout=60)
    return written


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """(folder with a run of a hostile server, what the commands wrote on a terminal)."""
    folder = tmp_path_factory.mktemp("hostile")
    with ScriptedServer(hostile) as server:
        words = ["--url", server.url]
        written = [
            on_terminal(folder, "perf", *words, "--parallel", "2", "--number", "4"),
            on_terminal(folder, "ask", "Hi", *words),
            on_terminal(folder, "ask", "refuse", *words),
            on_terminal(folder, "doctor", *words),
            on_terminal(folder, "bench", "demo", "--limit", "2", *words),
        ]
    manifest = find_run("last", folder / "results") / "manifest.json"
    stored = json.loads(manifest.read_text())
    stored["name"] = f"label{ATTACK}"
    manifest.write_text(json.dumps(stored))
    written += [on_terminal(folder, "show", "last"), on_terminal(folder, "fsck", "last")]
    return folder, written


def test_no_control_character_of_a_server_reaches_a_terminal(run: tuple[Path, list[bytes]]) -> None:
    _, outputs = run
    for written in outputs:
        assert len(written) > 20
        text = STYLES.sub(b"", written).replace(b"\r\n", b"\n").decode()
        assert not FORBIDDEN.findall(text), repr(text[:2000])
        assert "\r" not in re.sub(r"\r(?=\n|$)|\r+", "", text)
    together = b"".join(outputs)
    assert b"]52;c;" in together, "what is left of a sequence is shown as text"
    assert b"Hello" in together


def test_json_escapes_what_a_terminal_would_obey(run: tuple[Path, list[bytes]], oss_eval: Command) -> None:
    folder, _ = run
    done = oss_eval("show", "last", "--out", str(folder / "results"), "--json")
    assert not FORBIDDEN.findall(done.stdout)
    assert json.loads(done.stdout)


def test_a_full_device_loses_no_run(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    words = [sys.executable, "-m", "oss_eval"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    sweep = [*words, "perf", "--url", "sim://instant", "--parallel", "2", "--number", "4", "--json"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            sweep, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=env, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "the output could not be written: No space left on device" in done.stderr
        assert read_manifest(find_run("last", tmp_path / "results"))["status"] == "finished"
        show = subprocess.run([*words, "show", "last"], stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
                              env=env, check=False)  # fmt: skip
        assert show.returncode == 1, "nothing but its output was asked for"
        assert "Traceback" not in done.stderr + show.stderr


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-", "| true"])
def test_closed_output_loses_no_run(closed: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -m oss_eval perf --url sim://instant --parallel 2 --number 4 {closed}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = find_run("last", tmp_path / "results")
    assert read_manifest(run)["status"] == "finished"
    for part in run.rglob("*.parquet"):
        assert part.read_bytes()[:4] == b"PAR1", "no line of output was written into a file of the run"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ascii:strict", "cp1252"])
def test_plain_characters_where_the_encoding_lacks_others(encoding: str, oss_eval: Command) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "oss_eval", "show", str(next((ROOT / "results/examples").glob("*-perf-*")))],
        capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(encoding.partition(":")[0])
    assert "Recommendations\n" in text
    assert "?" not in text.replace("h20?speed", "").partition("Recommendations")[0]


def test_an_answer_in_another_script_in_an_ascii_terminal(tmp_path: Path) -> None:
    with ScriptedServer(
        lambda number, request: [saying("你好 → ok")] if b"POST" in request[:5] else hostile(0, b"GET")
    ) as server:
        done = subprocess.run(
            [sys.executable, "-m", "oss_eval", "ask", "Hi", "--url", server.url], capture_output=True, cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"?? -> ok\n"
