"""The pages of the viewer: one module a page. They know nothing of Gradio, so the HTML report uses them too."""

from __future__ import annotations

from types import ModuleType

from oss_eval.viewer.pages import about, compare, machines, perf, requests, runs, samples, scores

PAGE_MODULES: dict[str, ModuleType] = {
    "runs": runs, "scores": scores, "samples": samples, "perf": perf, "requests": requests, "compare": compare,
    "machines": machines, "about": about,
}  # fmt: skip
TITLES = {
    "runs": "Runs",
    "scores": "Scores",
    "samples": "Samples",
    "perf": "Load",
    "requests": "Requests",
    "compare": "Compare",
    "machines": "Machines",
    "about": "About this run",
}
