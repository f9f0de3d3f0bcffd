"""Make results/examples/ anew: two benchmark runs and two load sweeps by the simulator, under 1 MB together.

    python scripts/examples.py

They are what `oss-eval view` shows right after a clone, and what the viewer's tests look at.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "results" / "examples"
BENCH = "bench demo --limit 12 --repeats 3 --reasoning-effort low medium high --url sim://gpt-oss-20b-h20?speed=3"
PERF = "perf --reasoning-effort low medium --parallel 1 8 32 --number 4 16 64 --url sim://gpt-oss-20b-h20?speed=2"
RUNS = (
    f"{BENCH} --parallel 24 --max-tokens 2000 --name demo-a --label server=simulated",
    f"{BENCH} --parallel 24 --max-tokens 2000 --name demo-b --label server=simulated",
    f"{PERF} --max-tokens 144 --name sweep-a --label server=simulated",
    f"{PERF} --max-tokens 144 --name sweep-b --label prompts=long --min-prompt-length 1024 "
    "--max-prompt-length 1024",
)


def main() -> None:
    """Run the commands, and take out what only this machine can use."""
    shutil.rmtree(TARGET, ignore_errors=True)
    for words in RUNS:
        command = [sys.executable, "-m", "oss_eval", *words.split(), "--out", "results/examples"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    for run in TARGET.iterdir():
        for extra in ("truth.jsonl", "answers.jsonl"):
            (run / extra).unlink(missing_ok=True)
        file = run / "manifest.json"
        manifest = json.loads(file.read_text(encoding="utf-8"))
        manifest["environment"]["host"] = "example"
        for task in manifest.get("tasks", {}).values():
            task["folder"] = "tasks"
        file.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
