"""One language's page: header, choice of runs, navigation and the pages, and the events that connect them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from oss_eval.viewer.components import Components, build_components
from oss_eval.viewer.downloads import prepare
from oss_eval.viewer.i18n import LANGUAGES, words
from oss_eval.viewer.page import esc
from oss_eval.viewer.pages import PAGE_MODULES
from oss_eval.viewer.run_index import RunIndex
from oss_eval.viewer.updates import Updates

REFRESH_SECONDS = 2.0
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""No spinners, and no description of our handlers, which would tell run names to everyone who asks."""

HEADER = """<div class="oss oss-head"><h1>oss-eval</h1><span class="lead">{folders}</span>
<span class="right-side"><a href="{other}" data-language>{language}</a>
<button type="button" data-theme>◐ {theme}</button></span></div>"""

HEADER_JS = """
element.addEventListener('click', (event) => {
  const language = event.target.closest('[data-language]');
  if (language) { event.preventDefault(); location.href = language.getAttribute('href') + location.search; }
  if (event.target.closest('[data-theme]')) {
    const dark = document.body.classList.toggle('dark');
    localStorage.setItem('oss-eval-theme', dark ? 'dark' : 'light');
  }
});
const kept = localStorage.getItem('oss-eval-theme');
if (kept) document.body.classList.toggle('dark', kept === 'dark');
"""


def build_page(run_index: RunIndex, language: str, other: str, scratch: Path) -> None:
    """Everything of one language. `other` is the path of the other one; downloads are written to `scratch`."""
    t = words(language)

    def download(requested: list[str]) -> str | None:
        key, name = (str(part) for part in requested)
        run = run_index.find(key)
        path = None if run is None else prepare(run, name, scratch)
        return None if path is None else f"gradio_api/file={path}"

    next_language = next(name for code, name in LANGUAGES.items() if code != language)
    folders = ", ".join(str(folder) for folder in run_index.folders)
    header = HEADER.format(folders=esc(folders), other=other, language=next_language, theme=esc(t("light / dark")))
    gr.HTML(header, js_on_load=HEADER_JS, apply_default_css=False)
    components = build_components(t, download)
    _connect(components, Updates(run_index, t, components))


def _connect(components: Components, updates: Updates) -> None:
    """Connect events with their handlers."""
    everything = components.all()
    state = [components.query, components.trail]
    latest: dict[str, Any] = {**QUIET, "trigger_mode": "always_last"}
    gr.on(None, updates.opened, None, everything, **QUIET)
    components.link.change(updates.followed, [components.trail, components.link], everything, **latest)
    components.runs.input(updates.chose_runs, [*state, components.runs], everything, **latest)
    for (page, name), component in components.filters.items():
        spec = next(spec for spec in PAGE_MODULES[page].CONTROLS if spec.name == name)
        # `input` misses deleted characters and typed numbers; `change` also follows our own updates.
        event = component.change if isinstance(component, gr.Textbox | gr.Slider) else component.input
        event(updates.filter_changed(page, spec), [*state, component], everything, **latest)
    gr.Timer(REFRESH_SECONDS).tick(
        updates.ticked,
        [components.query, components.signature],
        [components.signature, components.runs, *components.pages.values()],
        **QUIET,
    )
