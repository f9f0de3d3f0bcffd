"""Your own benchmark: questions in JSONL, a task file, and the score with its interval."""

import json
import sys
from pathlib import Path

import oss_eval

url = sys.argv[1] if len(sys.argv) > 1 else "sim://instant"
rows = [{"question": f"What is {a} + {b}?", "answer": a + b} for a in range(3) for b in range(3)]
Path("sums.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
Path("sums.yaml").write_text(
    "kind: bench\ndataset: sums.jsonl\nscorer: integer\nprompt: '{question} Put the number within \\boxed{}.'\n",
    encoding="utf-8",
)
summary = oss_eval.run_bench("sums.yaml", url=url).summary()
score = summary[(summary.metric == "score") & summary.stat.str.startswith("avg@")].iloc[0]
print(f"score {score.value:.3f}, 95% {score.ci_low:.3f}-{score.ci_high:.3f}, n={score.n}")
