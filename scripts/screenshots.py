"""Make the README's pictures of the viewer, from results/examples and a longer simulated run or two.

    python scripts/screenshots.py [FOLDER]

Needs Chromium (OSS_EVAL_CHROMIUM, default /usr/bin/chromium). FOLDER: where runs are (default results/examples).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "docs" / "images"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
HEIGHT = 860


def main(folder: Path) -> None:
    """Four pages, from the first heading or figure that matters."""
    bench = sorted(path.name for path in folder.iterdir() if "-bench-" in path.name)
    perf = sorted(path.name for path in folder.iterdir() if "-perf-" in path.name)
    pages = {
        "scores": ("#content-scores h2:nth-of-type(2)", f"?show=scores&runs={','.join(bench[:2])}"),
        "samples": ("#content-samples .list", f"?show=samples&runs={','.join(bench[:2])}&verdict=wrong"),
        "load": ("#content-perf h2:nth-of-type(2)", f"?show=perf&runs={','.join(perf[:2])}&ttft=300"),
        "requests": ("#content-requests h2", f"?show=requests&runs={perf[0]}"),
    }
    TARGET.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "oss_eval", "view", str(folder)]
    with (
        subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process,
        sync_playwright() as play,
    ):
        try:
            assert process.stderr is not None
            found = re.search(r"http://\S+/", process.stderr.readline())
            assert found
            chromium = play.chromium.launch(
                executable_path=os.environ.get("OSS_EVAL_CHROMIUM", "/usr/bin/chromium"), args=FLAGS
            )
            page = chromium.new_page(viewport={"width": 1280, "height": HEIGHT})
            for name, (begin, query) in pages.items():
                page.goto(found.group() + query)
                page.wait_for_selector(".main-svg")
                page.wait_for_timeout(1500)
                top = page.locator(begin).first.bounding_box()
                assert top is not None
                page.screenshot(
                    path=TARGET / f"{name}.png",
                    clip={"x": 0, "y": top["y"] - 10, "width": 1280, "height": HEIGHT},
                    full_page=True,
                )
        finally:
            process.terminate()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "results" / "examples")
