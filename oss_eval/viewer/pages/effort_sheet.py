"""The effort sheet of a benchmark: which reasoning effort to use, as `oss-eval effort` prints it."""

from __future__ import annotations

from collections.abc import Sequence

from oss_eval.analysis.effort_choice import NEEDED, EffortChoice, choose_by
from oss_eval.errors import OssEvalError
from oss_eval.report import effort
from oss_eval.viewer.page import Cell, Page, esc
from oss_eval.viewer.pages.common import Words
from oss_eval.viewer.run_index import StoredRun


def effort_sheets(page: Page, shown: Sequence[StoredRun], tasks: Sequence[str], t: Words) -> None:
    """A section for each run with several efforts; `tasks`: those shown."""
    for run in shown:
        if len(run.efforts) < 2:
            continue
        letter = f"{run.label}: " if len(shown) > 1 else ""
        try:
            choices = _choices(run)
        except (OssEvalError, TypeError, ValueError) as error:
            page.say(f"{letter}{t('No effort sheet')}: {error}")
            continue
        for choice in choices:
            if choice.task in tasks:
                _sheet(page, choice, letter, t)


def _choices(run: StoredRun) -> list[EffortChoice]:
    """The choices of a run, by the settings of its sheet. Raises OssEvalError where it has none, and ValueError or
    TypeError for a damaged manifest."""
    settings = run.manifest.get("effort")
    return choose_by(settings if isinstance(settings, dict) else {}, run.groups, run.samples(NEEDED))


def _sheet(page: Page, choice: EffortChoice, letter: str, t: Words) -> None:
    title = t("Which effort: {task}, margin {margin}").format(task=choice.task, margin=f"{choice.margin:g}")
    first, *others = effort.sentences(choice)
    page.heading(letter + title, first)
    printed = effort.sheet_table(choice)
    head = [str(column.header).replace("\n", " ") for column in printed.columns]
    rows = zip(*(column.cells for column in printed.columns), strict=True)
    page.table(
        [t(name) for name in head],
        [[Cell(esc(str(cell)), str(cell), index > 0) for index, cell in enumerate(row)] for row in rows],
        name="effort",
    )
    page.add("<ul>" + "".join(f"<li>{esc(line)}</li>" for line in others) + "</ul>" if others else "")
    for note in effort.notes(choice):
        page.say(note)
