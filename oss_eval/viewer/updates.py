"""Event handlers of the viewer: from a query to the updates of the components that show it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import gradio as gr

from oss_eval.viewer.components import Components
from oss_eval.viewer.filters import Filter
from oss_eval.viewer.page import Page, esc
from oss_eval.viewer.pages import PAGE_MODULES, TITLES
from oss_eval.viewer.pages.common import Words
from oss_eval.viewer.query import Query
from oss_eval.viewer.run_index import RunIndex

PAUSE_FACTOR = 5.0
"""After a refresh that took a second, the next one waits this many seconds: a page of a large run in progress must
not use the run's own cores."""
Update = dict[Any, Any]
"""New values by component; components that are not in it stay as they are."""


class Updates:
    """The handlers of one language."""

    def __init__(self, run_index: RunIndex, t: Words, components: Components) -> None:
        self._run_index, self._t, self._components = run_index, t, components

    def opened(self, request: gr.Request) -> Update:
        """The page was loaded, with a query in its URL."""
        return self._show(Query.parse(str(request.query_params)), {})

    def followed(self, trail: dict[str, Query], link: str) -> Update:
        """A link was followed."""
        return self._show(Query.parse(link.partition("#")[0]), trail)

    def chose_runs(self, query: Query, trail: dict[str, Query], runs: list[str]) -> Update:
        """Other runs were chosen."""
        return self._show(query.to(runs=tuple(runs), sample="", request=""), trail, typed=True)

    def filter_changed(self, page: str, spec: Filter) -> Callable[[Query, dict[str, Query], Any], Update]:
        """The handler of one filter."""

        def changed(query: Query, trail: dict[str, Query], value: Any) -> Update:
            changes: dict[str, Any] = {spec.name: _as_query_value(spec, value), "sample": "", "request": ""}
            new = query.to(**changes)  # what was opened under the old filter is closed
            if query.page != page or new.get(spec.name) == query.get(spec.name):
                return self._nothing()  # our own update, not the reader's
            return self._show(new, trail, typed=True)

        return changed

    def ticked(self, query: Query, before: tuple[Any, ...]) -> Update:
        """Refresh what is shown, if it has changed."""
        old_signature, paused_until = before or ((), 0.0)
        signature = _signature(self._run_index, query)
        if signature == old_signature or time.monotonic() < paused_until:
            return self._nothing()
        started = time.monotonic()
        value = draw(self._run_index, query, self._t).value(query) | {"address": "", "refresh": str(query)}
        pause = time.monotonic() + PAUSE_FACTOR * (time.monotonic() - started)
        components = self._components
        return {
            components.signature: (signature, pause),
            components.runs: self._run_choices(query),
            components.pages[query.page]: value,
        }

    def _nothing(self) -> Update:
        """Leave all components as they are: Gradio takes an empty dictionary for a value."""
        return {self._components.runs: gr.skip()}

    def _show(self, query: Query, trail: dict[str, Query], typed: bool = False) -> Update:
        """Everything for a query. `typed`: leave filters alone, one of them is being typed into."""
        page = draw(self._run_index, query, self._t)
        trail = {**trail, query.page: query}
        components = self._components
        updates: Update = {
            components.query: query,
            components.trail: trail,
            components.signature: (_signature(self._run_index, query), 0.0),
            components.runs: self._run_choices(query),
            components.navigation: {
                "html": _navigation(query, trail, self._t), "figures": [], "address": "",
            },
            components.pages[query.page]: page.value(query),
            **{column: gr.update(visible=name == query.page) for name, column in components.columns.items()},
            **self._filter_updates(query, page, typed),
        }  # fmt: skip
        if query.page == "samples":
            for name, field in components.texts.items():
                updates[field] = gr.update(value=page.texts.get(name, ""), visible=name in page.texts)
        if page.below is not None:
            updates[components.details] = page.below.value(query) | {"address": ""}
        return updates

    def _filter_updates(self, query: Query, page: Page, typed: bool) -> Update:
        updates: Update = {}
        for spec in PAGE_MODULES[query.page].CONTROLS:
            component = self._components.filters[query.page, spec.name]
            if spec.name in page.choices:
                choices, value = page.choices[spec.name]
                updates[component] = gr.update(choices=choices, value=value)
            elif not typed:
                updates[component] = gr.update(value=_component_value(spec, query))
        return updates

    def _run_choices(self, query: Query) -> Any:
        """Runs by a name that says what they are, those of the query selected."""
        choices = []
        for run in self._run_index.runs():
            if run.manifest:
                parts = (run.manifest.get("name"), run.task, run.model, run.created, run.name[-4:])
                choices.append((" · ".join(filter(None, parts)), run.key))
        keys = {key for _, key in choices}
        return gr.update(choices=choices, value=[key for key in query.runs if key in keys])


def draw(run_index: RunIndex, query: Query, t: Words) -> Page:
    """The page of a query. One that can't be drawn says so, and leaves the other pages alone."""
    try:
        page: Page = PAGE_MODULES[query.page].draw(run_index, query, t)
    except Exception as error:  # a run can be damaged in more ways than can be foreseen
        logging.getLogger(__name__).exception("page %s", query)
        page = Page()
        text = t("This page can't be drawn for these runs: {error}")
        page.say(text.format(error=f"{type(error).__name__}: {error}"[:300]), "bad")
    return page


def _navigation(query: Query, trail: dict[str, Query], t: Words) -> str:
    """Links to all pages, for the same runs and with the filters they were left with."""
    links = []
    for page, title in TITLES.items():
        to = trail.get(page, Query(page)).to(runs=query.runs)
        current = ' aria-current="page"' if page == query.page else ""
        links.append(f'<a data-go href="{esc(to)}"{current}>{esc(t(title))}</a>')
    return f'<nav class="pages">{"".join(links)}</nav>'


def _component_value(spec: Filter, query: Query) -> Any:
    """A filter's value as its component takes it."""
    if spec.kind == "slider":
        return min(query.number(spec.name) or 0, spec.most)
    value = query.get(spec.name, spec.default)
    if spec.choices and value not in {option for _, option in spec.choices}:
        return spec.default
    return value


def _as_query_value(spec: Filter, value: Any) -> str:
    """A component's value as the query holds it; empty at its default."""
    if value in (None, "", 0, spec.default):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _signature(run_index: RunIndex, query: Query) -> tuple[Any, ...]:
    """Changes when what a query shows has been written to, or when there is a new run to list."""
    runs = run_index.runs()
    if query.page != "runs":
        runs = [run for run in runs if run.live and (not query.runs or run.key in query.runs)]
    return tuple((run.key, run.status, run.stamp) for run in runs)
