"""`oss-eval report`: a run as one HTML file without other files, for mail and CI artefacts."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import oss_eval
from oss_eval.errors import StoreError
from oss_eval.viewer.assets import ASSETS, PLOTLY
from oss_eval.viewer.i18n import words
from oss_eval.viewer.page import Page, esc, script_json
from oss_eval.viewer.pages import about, perf, requests, scores
from oss_eval.viewer.query import Query
from oss_eval.viewer.run_index import RunIndex, StoredRun

_INNER_LINK = re.compile(r'<a data-(?:go|download="[^"]*" data-run="[^"]*")((?: [a-z-]+="[^"]*")*)>([^<]*)</a>')
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
"""Nothing is loaded, whatever a model's answer contains."""

PAGE = """<!doctype html>
<html lang="{language}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{title}</title>
<style>{css}
body {{ margin: 0 auto; max-width: 1200px; padding: 18px 24px 40px; font-family: system-ui, sans-serif;
  --body-text-color: #1f2937; background: var(--oss-paper); }}
body.dark {{ --body-text-color: #e5e7eb; }}
ul.shown {{ padding-left: 18px; }}
.hint, section + section .sim, section + section ul.shown {{ display: none; }}</style></head>
<body class="oss"><h1>{title}</h1><p class="note">{made}</p>
{sections}
<script>{plotly}</script><script>{script}</script>
<script>
document.body.classList.toggle("dark", matchMedia("(prefers-color-scheme: dark)").matches);
const sheets = {sheets};
document.querySelectorAll("section").forEach((box, place) => {{
  ossEvalPage.listen(box, null);
  ossEvalPage.draw(box, sheets[place], null);
}});
</script></body></html>
"""


def write(path: Path, target: Path, language: str, effort: dict[str, Any] | None = None) -> None:
    """Write the report of the run in `path`; `effort`: settings of its effort sheet, instead of the stored ones.
    Raises StoreError for a run without results, and for a file that can't be written."""
    run = RunIndex([path]).runs()[0]
    if not run.points:
        raise StoreError(f"{path.name} holds nothing to report", *run.problems[:1])
    t = words(language)
    made = t("Made by oss-eval {version}, {when} UTC; everything is in this file.").format(
        version=oss_eval.__version__, when=f"{datetime.now(UTC):%Y-%m-%d %H:%M}"
    )
    sheets = _sheets(run, language, effort)
    text = PAGE.format(
        language=language,
        policy=_POLICY,
        title=esc(f"oss-eval: {run.task} · {run.model} · {run.name}"),
        css=(ASSETS / "page.css").read_text(encoding="utf-8"),
        made=esc(made),
        sections="".join("<section></section>" for _ in sheets),
        plotly=PLOTLY.read_text(encoding="utf-8"),
        script=(ASSETS / "page.js").read_text(encoding="utf-8"),
        sheets=script_json(sheets),
    )
    try:
        target.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise StoreError(f"can't write {target}: {error.strerror}", "choose another file: -o FILE") from None


def _sheets(run: StoredRun, language: str, effort: dict[str, Any] | None) -> list[dict[str, object]]:
    """The pages of its kind; of the requests, those of the point with most in flight."""
    run_index, t = RunIndex([run.path]), words(language)
    if effort is not None:
        run_index.runs()[0].manifest["effort"] = effort
    query = Query("runs", (run.key,))
    pages: list[Page] = [(scores if run.kind == "bench" else perf).draw(run_index, query, t)]
    pages.append(requests.draw(run_index, query.to("requests"), t))
    pages.append(about.draw(run_index, query.to("about"), t))
    found = []
    for sheet in pages:
        value = sheet.value(query)
        value["html"] = _INNER_LINK.sub(r"<span\1>\2</span>", str(value["html"]))
        found.append(value)
    return found
