"""`bench --workers ray`: samples asked, scored and judged on the nodes of a real Ray cluster."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from oss_eval.bench.plan import SampleJob
from oss_eval.bench.ray_pool import _Node, _shares
from oss_eval.config.bench_task import BenchTask
from oss_eval.results.manifest import read_manifest
from tests.helpers.bench_helpers import add, question_of, right
from tests.helpers.commands import ROOT, Command, bad, launched, only_run, until
from tests.helpers.ray_cluster import MEMORY, new_cluster
from tests.helpers.scripted_server import ScriptedServer, body_of, json_reply, saying, talking

pytest.importorskip("ray")
SIM = "sim://gpt-oss-20b-h20?speed=40"
DATA = ROOT.parent / "shared" / "data"


def on(address: str) -> tuple[str, ...]:
    return "--workers", "ray", "--ray-address", address


def samples_of(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "samples").sort_values("request_id", key=lambda ids: ids.astype(str))


def requests_of(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "requests")


def test_the_same_answers_as_on_this_machine(oss_eval: Command, cluster: str, tmp_path: Path) -> None:
    words = ("bench", "demo", "--url", SIM, "--reasoning-effort", "low", "high", "--seed", "7", "--parallel", "8")
    runs = {}
    for name, more in (("ray", on(cluster)), ("local", ())):
        done = oss_eval(*words, *more, "--name", name, timeout=120)
        assert done.returncode == 0, done.stderr
        [runs[name]] = (tmp_path / "results").glob(f"*-{name}-*")
        assert bad(runs[name]) == []
    ray, local = samples_of(runs["ray"]), samples_of(runs["local"])
    for column in ("request_id", "prompt", "target", "response", "score", "answer", "route", "attempts"):
        assert list(ray[column]) == list(local[column]), column
    sent = requests_of(runs["ray"])
    assert set(sent.request_id) == set(requests_of(runs["local"]).request_id)
    by_node = sent.groupby("worker").size()
    assert set(by_node.index) == {0, 1}
    assert by_node.min() > len(sent) / 4, "both nodes have asked"
    assert set(sent.parallel) == {8}
    told = read_manifest(runs["ray"])
    assert len({worker["node_id"] for worker in told["ray"]["workers"]}) == 2
    assert 2 <= told["parallel"]["most_in_flight"] <= 8
    points = [sent[sent.point_id == point] for point in dict.fromkeys(sent.point_id)]
    assert points[0].end_ns.max() <= points[1].start_ns.min(), "efforts do not share the server"


def test_a_node_that_dies_has_its_samples_asked_elsewhere(oss_eval: Command, tmp_path: Path, sums: Path) -> None:
    found = new_cluster()
    slowly = lambda body: [0.5, saying(f"It is \\boxed{{{add(body)}}}.")]  # noqa: E731
    try:
        node = found.add_node(num_cpus=1, object_store_memory=MEMORY)
        with ScriptedServer(talking(slowly)) as server:
            words = ("bench", str(sums), "--url", server.url, "--repeats", "2", *on(found.address))
            with launched(tmp_path, *words) as process:
                until(lambda: (tmp_path / "results").exists() and len(server.requests) > 10, 90)
                found.remove_node(node, allow_graceful=False)
                out, err = process.communicate(timeout=90)
        assert process.returncode == 0, err
        assert "are asked again elsewhere" in err
        run = only_run(tmp_path)
        samples, sent = samples_of(run), requests_of(run)
        assert len(samples) == 40, "nothing is missing"
        assert set(samples.status) == {"ok"}
        assert set(samples.score) == {1.0}
        lost = sent[sent.status != "ok"]
        assert 1 <= len(lost) <= 2, "its two requests in flight"
        assert set(lost.error_kind) == {"client"}
        assert lost.error_message.str.contains("was lost").all()
        assert lost.worker.nunique() == 1
        again = samples[samples.attempts > 1]
        assert set(again.request_id) >= {f"{name}/a2" for name in lost.request_id}, "a second attempt for each"
        assert set(again.attempts) == {2}
        assert len(again) <= 4, "and for what had been answered there, but not scored"
        assert sent.request_id.is_unique
        [check] = [one for one in read_manifest(run)["run_checks"] if one["kind"] == "lost_worker"]
        assert f"{len(lost)} requests failed" in check["message"]
        assert "asked again" in " ".join(out.split())
        assert bad(run) == []
    finally:
        found.shutdown()


def test_judges_on_the_nodes_have_the_key_of_this_machine(
    oss_eval: Command, cluster: str, tmp_path: Path, sums: Path
) -> None:
    def judge(body: dict[str, Any]) -> bytes:
        verdict = "VERDICT: CORRECT" if "Answer to grade:\nyes" in question_of(body) else "VERDICT: INCORRECT"
        whole = {"id": "1", "object": "chat.completion", "created": 1, "model": "j",
                 "choices": [{"index": 0, "message": {"role": "assistant", "content": verdict},
                              "finish_reason": "stop"}]}  # fmt: skip
        return json_reply(json.dumps(whole).encode())

    with (
        ScriptedServer(talking(lambda b: saying("yes" if add(b) % 4 else "no"))) as server,
        ScriptedServer(talking(judge)) as judging,
    ):
        done = oss_eval("bench", str(sums), "--url", server.url, "--scorer", "judge", "--judge-model", "j",
                        "--judge-url", judging.url, *on(cluster), OSS_EVAL_JUDGE_KEY="judge-secret-1")  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert len(judging.requests) == 20
        assert all(b"Bearer judge-secret-1" in request for request in judging.requests)
        assert b"judge-secret-1" not in b"".join(server.requests)
    run = only_run(tmp_path)
    assert samples_of(run).score.tolist().count(1.0) == 10
    assert all(b"judge-secret-1" not in file.read_bytes() for file in run.rglob("*") if file.is_file())


def test_a_command_that_is_killed_goes_on_where_it_was(
    oss_eval: Command, cluster: str, tmp_path: Path, sums: Path
) -> None:
    with ScriptedServer(talking(lambda body: [0.3, right(body)])) as server:
        words = ("bench", str(sums), "--url", server.url, "--repeats", "3", *on(cluster))
        with launched(tmp_path, *words) as process:
            until(lambda: (tmp_path / "results").exists() and len(server.requests) > 12, 90)
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
        run = only_run(tmp_path)
        before = len(pd.read_parquet(run / "samples")) if list((run / "samples").glob("part*")) else 0
        again = oss_eval("resume", run.name, timeout=90)
        assert again.returncode == 0, again.stderr
    assert len(samples_of(run)) == 60 > before
    assert set(samples_of(run).score) == {1.0}
    assert bad(run) == []


def test_ctrl_c_keeps_what_has_ended(oss_eval: Command, cluster: str, tmp_path: Path, sums: Path) -> None:
    with ScriptedServer(talking(lambda body: [0.4, right(body)])) as server:
        words = ("bench", str(sums), "--url", server.url, "--repeats", "3", "--grace", "5", *on(cluster))
        with launched(tmp_path, *words) as process:
            until(lambda: (tmp_path / "results").exists() and len(server.requests) > 12, 90)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        run = only_run(tmp_path)
        samples, sent = samples_of(run), requests_of(run)
        asked = [request for request in server.requests if request.startswith(b"POST")]
        assert len(samples) == len(asked) == len(sent), "what was in flight could end"
        assert set(samples.status) == {"ok"}
        assert oss_eval("bench", "--resume", run.name, timeout=90).returncode == 0
    assert len(samples_of(run)) == 60
    assert bad(run) == []


@pytest.mark.skipif(not (DATA / "gsm8k").is_dir(), reason="the public data is not beside this checkout")
def test_evalscope_benchmarks_are_scored_on_the_nodes(oss_eval: Command, cluster: str, tmp_path: Path) -> None:
    words = ("bench", "gsm8k", "--url", SIM, "--data", str(DATA), "--limit", "40", "--seed", "7")
    for name, more in (("ray", on(cluster)), ("local", ())):
        assert oss_eval(*words, *more, "--name", name, timeout=120).returncode == 0
    ray, local = (samples_of(next((tmp_path / "results").glob(f"*-{name}-*"))) for name in ("ray", "local"))
    for column in ("prompt", "response", "score", "second_score"):
        assert ray[column].fillna(-1).tolist() == local[column].fillna(-1).tolist(), column


def test_a_file_that_only_this_machine_has(oss_eval: Command, cluster: str, tmp_path: Path) -> None:
    """The nodes get the samples with the request, not the path of the data."""
    (tmp_path / "few.jsonl").write_text(json.dumps({"question": "1 + 1?", "answer": 2}))
    (tmp_path / "few.yaml").write_text(
        'kind: bench\ndataset: few.jsonl\nprompt: "{question} Box it: \\boxed{}."\nscorer: integer\n'
    )
    with ScriptedServer(talking(lambda body: saying("\\boxed{2}"))) as server:
        done = oss_eval("bench", "few.yaml", "--url", server.url, *on(cluster))
        assert done.returncode == 0, done.stderr
        assert body_of(server.requests[-1])["messages"][-1]["content"].startswith("1 + 1?")
    assert samples_of(only_run(tmp_path)).score.tolist() == [1.0]


def test_fewer_requests_in_flight_than_nodes(oss_eval: Command, cluster: str, tmp_path: Path, sums: Path) -> None:
    inside, most = [0], [0]

    def one_at_a_time(body: dict[str, Any]) -> list[Any]:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.05)
        inside[0] -= 1
        return [right(body)]

    with ScriptedServer(talking(one_at_a_time)) as server:
        done = oss_eval("bench", str(sums), "--url", server.url, "--parallel", "1", *on(cluster))
        assert done.returncode == 0, done.stderr
        assert most == [1]
        again = oss_eval("bench", "--resume", "last", "--repeats", "2", "--workers", "local", *on(cluster)[2:])
        assert again.returncode == 0, again.stderr
    assert len(samples_of(only_run(tmp_path))) == 40


def test_a_node_without_a_share_ends_what_it_has() -> None:
    job = SampleJob("p", BenchTask(dataset="d", prompt="{q}", scorer="exact"), None, None, None, 1)  # type: ignore[arg-type]
    assert _shares(2, 4) == [1, 1, 0, 0]
    assert _shares(7, 3) == [3, 2, 2]
    node = _Node(0, None, "host", 0, 0)
    assert (node.limit, node.room) == (0, 0)
    node.jobs[("p", "s", "1", 1)] = job
    assert (node.limit, node.room) == (1, 0), "one after the other, and no new ones"
    node.share = 4
    assert (node.limit, node.room) == (4, 6)


def test_numbers_of_local_workers_are_refused(oss_eval: Command) -> None:
    done = oss_eval("bench", "demo", "--url", SIM, "--workers", "4")
    assert done.returncode == 2
    assert "--workers" in done.stderr
    assert "ray" in done.stderr
