"""One language's page: header, choice of runs, links, and the sheet of the page that is looked at."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import gradio as gr

from oss_eval.viewer.downloads import prepare
from oss_eval.viewer.filters import Filter
from oss_eval.viewer.i18n import LANGUAGES, words
from oss_eval.viewer.markdown import DELIMITERS
from oss_eval.viewer.page import Page, esc
from oss_eval.viewer.pages import about, compare, perf, requests, runs, samples, scores
from oss_eval.viewer.pages.common import Words
from oss_eval.viewer.query import PAGES, Query
from oss_eval.viewer.run_index import RunIndex

TITLES = {
    "runs": "Runs",
    "scores": "Scores",
    "samples": "Samples",
    "perf": "Load",
    "requests": "Requests",
    "compare": "Compare",
    "about": "About this run",
}
MODULES: dict[str, ModuleType] = {
    "runs": runs, "scores": scores, "samples": samples, "perf": perf, "requests": requests, "compare": compare,
    "about": about,
}  # fmt: skip
REFRESH_SECONDS = 2.0
REST = 5.0
"""After a refresh that took a second, the next one waits for so many."""
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""No spinners, and no description of our handlers, which would name the runs to whoever asks."""
TEXT_FIELDS = ("prompt", "answer_a", "answer_b")
"""Markdown fields of the samples page."""

ON_LOAD = """
const box = element.querySelector('.oss');
const visit = ossEvalSheet.visit;
ossEvalSheet.listen(box, visit);
let last = null;
const draw = () => {
  const value = props.value;
  if (!value || value === last) return;
  last = value;
  if (value.refresh && !ossEvalSheet.isAt(value.refresh)) return; // the reader has gone on meanwhile
  if (value.address) ossEvalSheet.locate(value.address); // first: patterns in figures refer to the address
  ossEvalSheet.draw(box, value, visit);
};
box.addEventListener('click', async (event) => {
  const file = event.target.closest('[data-download]');
  if (!file) return;
  event.preventDefault();
  const url = await server.download([file.dataset.run, file.dataset.download]);
  if (!url) return;
  const a = document.createElement('a');
  a.href = url; a.download = url.split('/').pop();
  document.body.append(a); a.click(); a.remove();
});
watch('value', draw);
draw();
"""

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
    """Everything of one language."""
    t = words(language)

    def download(wanted: list[str]) -> str | None:
        key, name = (str(word) for word in wanted)
        run = run_index.find(key)
        path = None if run is None else prepare(run, name, scratch)
        return None if path is None else f"gradio_api/file={path}"

    next_language = next(name for code, name in LANGUAGES.items() if code != language)
    folders = ", ".join(str(folder) for folder in run_index.folders)
    header = HEADER.format(folders=esc(folders), other=other, language=next_language, theme=esc(t("light / dark")))
    gr.HTML(header, js_on_load=HEADER_JS, apply_default_css=False)
    chosen = gr.Dropdown(
        choices=[],  # told by the first answer: the page itself is served before anybody has logged in
        value=[],
        multiselect=True,
        allow_custom_value=False,
        elem_id="runs",
        label=t("Runs shown"),
        info=t("Nothing chosen: the latest. The first is A, the second B."),
    )
    here = gr.State(Query())
    trail = gr.State({})  # page -> its address when it was last shown, so that its filters are kept
    seen = gr.State(())
    # Where a link leads: a field's value, not an event's, because of links followed quickly one after the other
    # Gradio sends the last one's values with the first one's event.
    wanted = gr.Textbox(visible="hidden", elem_id="wanted", show_label=False)
    navigation = _sheet("navigation", [])
    sheets: dict[str, gr.HTML] = {}
    controls: dict[str, dict[str, Any]] = {}
    columns: dict[str, gr.Column] = {}
    texts: dict[str, gr.Markdown] = {}
    for page in PAGES:
        with gr.Column(visible=False, elem_id=f"page-{page}") as columns[page]:
            controls[page] = _controls(MODULES[page].CONTROLS, page, t)
            sheets[page] = _sheet(f"sheet-{page}", [download])
            if page == "samples":
                with gr.Row():
                    texts = {name: _text(name) for name in TEXT_FIELDS}
                details = _sheet("sheet-details", [])
    flat = [(page, name, control) for page in PAGES for name, control in controls[page].items()]
    outputs = [
        here,
        trail,
        seen,
        chosen,
        navigation,
        *columns.values(),
        *sheets.values(),
        *(c for _, _, c in flat),
        *texts.values(),
        details,
    ]

    def show(address: Query, past: dict[str, Query], typed: bool = False) -> list[Any]:
        """Updates of everything for an address; what the user is just typing is left alone."""
        sheet = drawn_sheet(run_index, address, t)
        value = sheet.value(address)
        drawn = [value if page == address.page else gr.skip() for page in sheets]
        updates = []
        for page, name, _ in flat:
            if page != address.page:
                updates.append(gr.skip())
            elif name in sheet.choices:
                choices, at = sheet.choices[name]
                updates.append(gr.update(choices=choices, value=at))
            else:
                updates.append(gr.skip() if typed else gr.update(value=_shown(_spec(page, name), address)))
        fields = [
            gr.update(value=sheet.texts.get(name, ""), visible=name in sheet.texts)
            if address.page == "samples"
            else gr.skip()
            for name in texts
        ]
        choices = _choices(run_index)
        known = {key for _, key in choices}
        picked = gr.update(choices=choices, value=[key for key in address.runs if key in known])
        past = {**past, address.page: address}
        visible = [gr.update(visible=page == address.page) for page in columns]
        links = {"html": _navigation(address, past, t), "figures": [], "address": ""}
        state = [address, past, (_signature(run_index, address), 0.0)]
        below = gr.skip() if sheet.below is None else sheet.below.value(address) | {"address": ""}
        return [*state, picked, links, *visible, *drawn, *updates, *fields, below]

    def opened(request: gr.Request) -> list[Any]:
        return show(Query.parse(str(request.query_params)), {})

    def visited(past: dict[str, Query], address: str) -> list[Any]:
        return show(Query.parse(address.partition("#")[0]), past)

    def chose(at: Query, past: dict[str, Query], runs: list[str]) -> list[Any]:
        return show(at.to(runs=tuple(runs), sample="", request=""), past, typed=True)

    def set_filter(page: str, spec: Filter) -> Callable[..., list[Any]]:
        def changed(at: Query, past: dict[str, Query], value: Any) -> list[Any]:
            changes: dict[str, Any] = {spec.name: _said(spec, value), "sample": "", "request": ""}
            fresh = at.to(**changes)  # what was opened under the old filter is closed
            if at.page != page or fresh.get(spec.name) == at.get(spec.name):
                return [gr.skip()] * len(outputs)  # our own update, not the reader's
            return show(fresh, past, typed=True)

        return changed

    def ticked(at: Query, before: tuple[Any, ...]) -> list[Any]:
        signature, rest_until = before or ((), 0.0)
        now = _signature(run_index, at)
        if now == signature or time.monotonic() < rest_until:
            return [gr.skip()] * (2 + len(sheets))
        begun = time.monotonic()
        value = drawn_sheet(run_index, at, t).value(at) | {"address": "", "refresh": str(at)}
        drawn = [value if page == at.page else gr.skip() for page in sheets]
        choices = _choices(run_index)
        known = {key for _, key in choices}
        picked = gr.update(choices=choices, value=[key for key in at.runs if key in known])
        # A page of a large run that is still going may take long: it must not take the run's own cores.
        rest = time.monotonic() + REST * (time.monotonic() - begun)
        return [(now, rest), picked, *drawn]

    gr.on(None, opened, None, outputs, **QUIET)
    wanted.change(visited, [trail, wanted], outputs, **QUIET, trigger_mode="always_last")
    chosen.input(chose, [here, trail, chosen], outputs, **QUIET, trigger_mode="always_last")
    for page, name, control in flat:
        # `input` passes over deleted characters and typed numbers; `change` also follows our own updates.
        listen = control.change if isinstance(control, gr.Textbox | gr.Slider) else control.input
        handler = set_filter(page, _spec(page, name))
        listen(handler, [here, trail, control], outputs, **QUIET, trigger_mode="always_last")
    timer = gr.Timer(REFRESH_SECONDS)
    timer.tick(ticked, [here, seen], [seen, chosen, *sheets.values()], **QUIET)


def drawn_sheet(run_index: RunIndex, address: Query, t: Words) -> Page:
    """A page's sheet; one that can't be drawn says so, and leaves the other pages alone."""
    try:
        sheet: Page = MODULES[address.page].draw(run_index, address, t)
    except Exception as error:  # a run can be damaged in more ways than can be foreseen
        logging.getLogger(__name__).exception("page %s", address)
        sheet = Page()
        words_ = t("This page can't be drawn for these runs: {error}")
        sheet.say(words_.format(error=f"{type(error).__name__}: {error}"[:300]), "bad")
    return sheet


def _sheet(name: str, functions: list[Callable[..., Any]]) -> gr.HTML:
    """A field that draws sheets and reports which link was followed."""
    return gr.HTML(
        value=None,
        html_template='<div class="oss"></div>',
        js_on_load=ON_LOAD,
        elem_id=name,
        server_functions=functions,
        apply_default_css=False,
    )


def _navigation(address: Query, past: dict[str, Query], t: Words) -> str:
    """Links to all pages, for the same runs and with the filters they were left with."""
    links = []
    for page, title in TITLES.items():
        to = past.get(page, Query(page)).to(runs=address.runs)
        current = ' aria-current="page"' if page == address.page else ""
        links.append(f'<a data-go href="{esc(to)}"{current}>{esc(t(title))}</a>')
    return f'<nav class="pages">{"".join(links)}</nav>'


def _controls(specs: Sequence[Filter], page: str, t: Words) -> dict[str, Any]:
    """The page's filters, in one row."""
    made: dict[str, Any] = {}
    if not specs:
        return made
    with gr.Row():
        for spec in specs:
            choices = [(t(label), value) for label, value in spec.choices]
            common: dict[str, Any] = {
                "label": t(spec.label),
                "elem_id": f"{page}-{spec.name}",
                "info": t(spec.info) if spec.info else None,
            }
            if spec.kind == "text":
                made[spec.name] = gr.Textbox(value=spec.default, max_lines=1, **common)
            elif spec.kind == "choice":
                made[spec.name] = gr.Dropdown(choices=choices or [("–", "")], value=spec.default, **common)
            elif spec.kind == "radio":
                made[spec.name] = gr.Radio(choices=choices, value=spec.default, **common)
            else:
                made[spec.name] = gr.Slider(0, spec.most, value=0, step=spec.step, **common)
    return made


def _text(name: str) -> gr.Markdown:
    return gr.Markdown(
        "",
        latex_delimiters=DELIMITERS,
        elem_id=f"text-{name}",
        elem_classes="oss-text",
        visible=False,
        sanitize_html=True,
        line_breaks=True,
        container=True,
    )


def _choices(run_index: RunIndex) -> list[tuple[str, str]]:
    """Runs by a name that says what they are."""
    return [
        (
            " · ".join(
                filter(None, (run.manifest.get("name"), run.task, run.model, run.created, run.path.name[-4:]))
            ),
            run.key,
        )
        for run in run_index.runs()
        if run.manifest
    ]


def _shown(spec: Filter, address: Query) -> Any:
    """A filter's value as its component takes it."""
    if spec.kind == "slider":
        return min(address.number(spec.name) or 0, spec.most)
    value = address.get(spec.name, spec.default)
    if spec.choices and value not in {option for _, option in spec.choices}:
        return spec.default
    return value


def _spec(page: str, name: str) -> Filter:
    """A page's filter by its name."""
    controls: tuple[Filter, ...] = MODULES[page].CONTROLS
    return next(control for control in controls if control.name == name)


def _said(spec: Filter, value: Any) -> str:
    """A component's value as it stands in an address; empty at its default."""
    if value in (None, "", 0, spec.default):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _signature(run_index: RunIndex, address: Query) -> tuple[Any, ...]:
    """Changes when what an address shows has been written to, or when there is a new run to list."""
    runs = run_index.runs()
    if address.page != "runs":
        runs = [run for run in runs if run.live and (not address.runs or run.key in address.runs)]
    return tuple((run.key, run.status, run.stamp) for run in runs)
