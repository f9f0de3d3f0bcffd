"""The Gradio components of one language: built once, filled by `updates`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from oss_eval.viewer.filters import Filter
from oss_eval.viewer.markdown import DELIMITERS
from oss_eval.viewer.pages import PAGE_MODULES
from oss_eval.viewer.pages.common import Words
from oss_eval.viewer.query import PAGES, Query

TEXT_FIELDS = ("prompt", "answer_a", "answer_b")
"""Markdown fields of the samples page."""

ON_LOAD = """
const box = element.querySelector('.oss');
const visit = ossEvalPage.visit;
ossEvalPage.listen(box, visit);
let last = null;
const draw = () => {
  const value = props.value;
  if (!value || value === last) return;
  last = value;
  if (value.refresh && !ossEvalPage.isAt(value.refresh)) return; // the reader has gone on meanwhile
  if (value.address) ossEvalPage.locate(value.address); // first: patterns in figures refer to the address
  ossEvalPage.draw(box, value, visit);
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


@dataclass(slots=True)
class Components:
    """What event handlers read and update, by name."""

    query: gr.State
    """The Query that is shown."""
    trail: gr.State
    """The Query with which each page was last shown, by page: its filters are kept."""
    signature: gr.State
    """(signature of what is shown, time before which it is not refreshed)."""
    runs: gr.Dropdown
    link: gr.Textbox
    """Where a followed link leads. The value of a field and not of an event, because of links followed quickly one
    after the other Gradio sends the last one's values with the first one's event."""
    navigation: gr.HTML
    columns: dict[str, gr.Column]
    pages: dict[str, gr.HTML]
    filters: dict[tuple[str, str], Any]
    """By page and name of the filter."""
    texts: dict[str, gr.Markdown]
    details: gr.HTML
    """Below the texts of the samples page."""

    def all(self) -> list[Any]:
        """Everything that an update may change."""
        return [
            self.query, self.trail, self.signature, self.runs, self.navigation, self.details,
            *self.columns.values(), *self.pages.values(), *self.filters.values(), *self.texts.values(),
        ]  # fmt: skip


def build_components(t: Words, download: Callable[[list[str]], str | None]) -> Components:
    """Create the components, all pages hidden. `download` returns the URL of a file, or None."""
    runs = gr.Dropdown(
        choices=[],  # filled by the first update: the page itself is served before the login
        value=[],
        multiselect=True,
        allow_custom_value=False,
        elem_id="runs",
        label=t("Runs shown"),
        info=t("Nothing chosen: the latest. The first is A, the second B."),
    )
    query, trail, signature = gr.State(Query()), gr.State({}), gr.State(())
    link = gr.Textbox(visible="hidden", elem_id="wanted", show_label=False)
    navigation = _page("navigation", [])
    columns: dict[str, gr.Column] = {}
    pages: dict[str, gr.HTML] = {}
    filters: dict[tuple[str, str], Any] = {}
    for page in PAGES:
        with gr.Column(visible=False, elem_id=f"page-{page}") as columns[page]:
            for name, component in _filters(PAGE_MODULES[page].CONTROLS, page, t).items():
                filters[page, name] = component
            pages[page] = _page(f"content-{page}", [download])
            if page == "samples":
                with gr.Row():
                    texts = {name: _text(name) for name in TEXT_FIELDS}
                details = _page("content-details", [])
    return Components(query, trail, signature, runs, link, navigation, columns, pages, filters, texts, details)


def _page(name: str, functions: list[Callable[..., Any]]) -> gr.HTML:
    """A field that draws a Page and reports which link was followed."""
    return gr.HTML(
        value=None,
        html_template='<div class="oss"></div>',
        js_on_load=ON_LOAD,
        elem_id=name,
        server_functions=functions,
        apply_default_css=False,
    )


def _filters(specs: Sequence[Filter], page: str, t: Words) -> dict[str, Any]:
    """The page's filters, in one row."""
    if not specs:
        return {}
    with gr.Row():
        return {spec.name: _filter(spec, page, t) for spec in specs}


def _filter(spec: Filter, page: str, t: Words) -> Any:
    choices = [(t(label), value) for label, value in spec.choices]
    common: dict[str, Any] = {
        "label": t(spec.label),
        "elem_id": f"{page}-{spec.name}",
        "info": t(spec.info) if spec.info else None,
    }
    match spec.kind:
        case "text":
            return gr.Textbox(value=spec.default, max_lines=1, **common)
        case "choice":
            return gr.Dropdown(choices=choices or [("–", "")], value=spec.default, **common)
        case "radio":
            return gr.Radio(choices=choices, value=spec.default, **common)
        case "slider":
            return gr.Slider(0, spec.most, value=0, step=spec.step, **common)


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
