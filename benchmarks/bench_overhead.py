"""What a graded answer costs the machine that asks: oss-eval bench beside EvalScope's run_task.

30 problems x 64 answers at 64 in flight against the built-in server at its quickest (`instant`), which knows the
answers. CPU time of the client and its processes; start-up, the loading of the data included, is measured with a
single sample and taken off. Everything on loopback.

    python benchmarks/bench_overhead.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from oss_eval.bench import answer_key
from oss_eval.bench.scoring.scorer_process import ScorerProcess
from oss_eval.bench.sources.custom import CustomBenchmark
from oss_eval.config.bench_task import BenchTask
from oss_eval.config.task_files import shipped_dir
from oss_eval.simulator.process import running

SAMPLES, EPOCHS, PARALLEL = 30, 64, 64
PROMPT = (
    "\nSolve the following math problem step by step. Put your answer inside \\boxed{{}}.\n\n{problem}\n\n"
    "Remember to put your answer inside \\boxed{{}}."
).replace("{{}}", "{}")

EVALSCOPE = """
from evalscope import run_task, TaskConfig
run_task(TaskConfig(model="instant", api_url={url!r}, eval_type="openai_api", datasets=["aime25"],
    dataset_args={{"aime25": {{"local_path": {data!r}}}}}, limit={limit}, repeats={repeats}, eval_batch_size={parallel},
    work_dir={out!r}, generation_config={{"temperature": 1.0, "stream": True}}))
"""


def problems(folder: Path) -> Path:
    """The demo's problems under EvalScope's column names for AIME 2025."""
    lines = (shipped_dir() / "demo.jsonl").read_text(encoding="utf-8").splitlines()[:SAMPLES]
    data = folder / "data"
    data.mkdir()
    with (data / "test.jsonl").open("w", encoding="utf-8") as file:
        for line in lines:
            row = json.loads(line)
            file.write(json.dumps({"problem": row["problem"], "answer": str(row["answer"])}) + "\n")
    return data


def cpu_seconds(command: list[str]) -> tuple[float, float]:
    """(CPU, wall) seconds of a command with all its processes."""
    begun, before = time.monotonic(), os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return cpu, time.monotonic() - begun


def report(name: str, small: tuple[float, float], whole: tuple[float, float]) -> float:
    count = SAMPLES * EPOCHS - 1
    each = (whole[0] - small[0]) / count
    print(f"{name:<22} {each * 1000:8.2f} ms CPU a sample   {whole[1] - small[1]:7.1f} s   "
          f"start-up {small[0]:.1f} s CPU")  # fmt: skip
    return each


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data, key = problems(folder), folder / "key.jsonl"
        task = BenchTask(name="x", dataset=str(data / "test.jsonl"), prompt=PROMPT, scorer="integer")
        answer_key.write(key, CustomBenchmark(task, None, ScorerProcess(), None).samples())
        with running("sim://instant", answers=key) as url:

            def ours(limit: int, repeats: int) -> list[str]:
                words = ["bench", "aime25", "--url", url, "--data", str(data), "--reasoning-effort", "medium",
                         "--parallel", str(PARALLEL), "--limit", str(limit), "--repeats", str(repeats),
                         "--out", str(folder / f"r{limit}")]  # fmt: skip
                return [sys.executable, "-m", "oss_eval", *words]

            def theirs(limit: int, repeats: int) -> list[str]:
                code = EVALSCOPE.format(url=url, data=str(data), limit=limit, repeats=repeats, parallel=PARALLEL,
                                        out=str(folder / f"e{limit}"))  # fmt: skip
                return [sys.executable, "-c", code]

            print(f"{SAMPLES} samples x {EPOCHS}, {PARALLEL} in flight, against an instant server\n")
            found = {}
            for name, command in (("oss-eval bench", ours), ("EvalScope run_task", theirs)):
                small = cpu_seconds(command(1, 1))
                found[name] = report(name, small, cpu_seconds(command(SAMPLES, EPOCHS)))
            ratio = found["oss-eval bench"] / found["EvalScope run_task"]
            print(f"\noss-eval bench costs {ratio:.3f} of EvalScope's CPU a sample")


if __name__ == "__main__":
    main()
