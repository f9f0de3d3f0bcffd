"""Whatever breaks, finished work stays and the run can go on."""

from __future__ import annotations

import threading
from pathlib import Path

import pyarrow.parquet as pq

from oss_eval import api
from oss_eval.results.manifest import read_manifest


def test_prompts_of_missing_requests_are_the_first_ones(tmp_path: Path) -> None:
    """The words that make a token are measured once, and the seed is the run's."""
    bodies: dict[str, list[bytes]] = {}
    from tests.helpers.scripted_server import MODELS, ScriptedServer, saying

    stop = threading.Event()

    def script(number: int, request: bytes) -> list[bytes | str]:
        if request.startswith(b"GET"):
            return [MODELS]
        head, _, body = request.partition(b"\r\n\r\n")
        name = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"x-client")).split(b"/", 1)[1]
        bodies.setdefault(name.decode(), []).append(body)
        if name.startswith(b"00-c1/") and len(bodies) > 6 and not stop.is_set():
            return ["close"]
        # The second time it counts otherwise, as another build of a server may.
        return [saying("word", tokens=((2 if stop.is_set() else 1) * len(body.split()), 1))]

    with ScriptedServer(script) as server:
        run = api.run_perf(url=server.url, parallel=1, number=8, out=tmp_path / "results", max_prompt_length=64,
                           min_prompt_length=64)  # fmt: skip
        manifest = read_manifest(run.path)
        first = {name: sent[0] for name, sent in bodies.items()}
        # As if the last three had never been stored.
        part = next((run.path / "requests").glob("*.parquet"))
        table = pq.read_table(part)
        keep = [name not in ("00-c1/5", "00-c1/6", "00-c1/7") for name in table["request_id"].to_pylist()]
        pq.write_table(table.filter(keep), part)
        stop.set()
        bodies.clear()
        api.resume(run.path, missing=True)
        assert read_manifest(run.path)["words_per_token"] == manifest["words_per_token"]
        assert {name for name in bodies if name.startswith("00")} == {"00-c1/5", "00-c1/6", "00-c1/7"}
        assert all(first[name] == sent[0] for name, sent in bodies.items() if name.startswith("00"))
