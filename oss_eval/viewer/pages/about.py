"""One run: task, settings, environment, checks, how to repeat it, its files."""

from __future__ import annotations

import json
import shlex
from typing import Any

from oss_eval.viewer.filters import Filter
from oss_eval.viewer.page import Cell, Page, badge, esc, num, table, text
from oss_eval.viewer.pages.common import Words, command_line, nothing, problems, run_header
from oss_eval.viewer.query import Query
from oss_eval.viewer.run_index import RunIndex, StoredRun

CONTROLS: tuple[Filter, ...] = ()


def draw(run_index: RunIndex, query: Query, t: Words) -> Page:
    """The first run chosen, or the latest."""
    page = Page(t("Numbers"))
    run = next((found for key in query.runs if (found := run_index.find(key))), next(iter(run_index.runs()), None))
    if run is None:
        return nothing(
            page, t("There are no runs yet. One to begin with:"), "oss-eval perf --url sim://gpt-oss-20b-h20", t
        )
    run_header(page, [run], query, t)
    if not run.manifest:
        problems(page, [run], t)
        return page
    page.heading(t("Run it again"))
    for command in commands(run):
        page.add(command_line(command, t))
    if run.resume:
        page.say(t("Resume: add what is missing:"))
        page.add(command_line(run.resume, t))
    if run.manifest.get("set_aside"):
        page.say(
            t("Set aside, because the run broke off in them, and measured again; their requests count nowhere:")
        )
        rows = [
            [text(point.get("point_id", "")), num(point.get("requests"), 0), num(point.get("number"), 0)]
            for point in run.manifest["set_aside"]
        ]
        page.table([t("Point"), t("Stored requests"), t("Planned")], rows, name="set-aside")
    page.heading(t("Checks"))
    _checks(page, run, t)
    page.heading(t("Where and with what"))
    environment = run.manifest.get("environment", {})
    rows = [[text(name), _value(value)] for name, value in {**run.endpoint, **environment}.items()]
    page.table(["", t("Value")], rows, name="environment")
    page.heading(t("Configuration"), t("As given (on the command line or in the task file) and as used."))
    _configuration(page, run, t)
    page.heading(
        t("Files"),
        t("Tables as Parquet (as stored) or CSV; the manifest as JSON. Figures have PNG and SVG below them."),
    )
    page.add(f'<p class="files">{" ".join(_download(run, name) for name in downloads(run))}</p>')
    shown = json.dumps(run.manifest, indent=2, ensure_ascii=False)
    page.fold("manifest", "manifest.json", f"<pre>{esc(shown[:400_000])}</pre>")
    problems(page, [run], t)
    return page


def commands(run: StoredRun) -> list[str]:
    """The command of each session, quoted for a shell."""
    sessions = run.manifest.get("sessions") or [{"command": run.manifest.get("command") or []}]
    return list(
        dict.fromkeys(
            shlex.join(map(str, session.get("command") or [])) for session in sessions if session.get("command")
        )
    )


def downloads(run: StoredRun) -> list[str]:
    """Names of the files for download."""
    tables = ["requests", "summary"] if run.kind != "bench" else ["samples", "requests", "summary"]
    there = [name for name in tables if (run.path / name).is_dir() or (run.path / f"{name}.parquet").is_file()]
    return [*(f"{name}.{kind}" for name in there for kind in ("csv", "parquet")), "manifest.json"]


def _download(run: StoredRun, name: str) -> str:
    to = Query("about", (run.key,), {"file": name})
    what = f'data-download="{esc(name)}" data-run="{esc(run.key)}"'
    return f'<a {what} class="badge" href="{esc(to)}">⤓ {esc(name)}</a>'


def _checks(page: Page, run: StoredRun, t: Words) -> None:
    found = [("", check) for check in run.manifest.get("run_checks") or []]
    for point_id, checks in (run.manifest.get("checks") or {}).items():
        view = run.point(point_id)
        found += [(view.title if view else point_id, check) for check in checks or ()]
    if run.warnings is None:
        page.say(t("Not checked: the run did not finish."))
    elif not found:
        page.say(t("Clean: the instrument found nothing that could mislead."))
    else:
        rows = [
            [
                text(where or t("whole run")),
                Cell(
                    badge(
                        t("warning") if c.get("level") == "warn" else t("note"),
                        "warned" if c.get("level") == "warn" else "",
                    )
                ),
                Cell(esc(c.get("message", "")), "", wraps=True),
            ]
            for where, c in found
        ]
        page.table([t("Point"), t("Level"), t("What was found, and what to do")], rows, name="checks")
    clients = run.manifest.get("client") or {}
    if clients:
        rows = [
            [
                text(view.title if (view := run.point(name)) else name),
                num(c.get("workers"), 0),
                num(c.get("connections"), 0),
                num(c.get("cpu_seconds")),
                num((c.get("longest_stall_seconds") or 0) * 1e3),
                num(c.get("waited_share"), 3),
            ]
            for name, c in clients.items()
        ]
        inner = table(
            [
                t("Point"),
                t("Workers"),
                t("Connections"),
                t("CPU (s)"),
                t("Longest stall (ms)"),
                t("Waited for a core (share)"),
            ],
            rows,
        )
        page.fold("client", t("The client itself"), inner)


def _configuration(page: Page, run: StoredRun, t: Words) -> None:
    manifest = run.manifest
    request = manifest.get("request") or {}
    if run.kind == "bench":
        for name, task in (manifest.get("tasks") or {}).items():
            rows = [
                [text(key), _value(value)]
                for key, value in task.items()
                if key != "description" and value not in (None, "", [], {})
            ]
            inner = table([t("Setting"), t("In force")], rows)
            page.fold(f"task-{name}", name, inner, opened=True)
    else:
        asked = set(manifest.get("asked") or ())
        rows = [
            [text(key), Cell(badge(t("asked"), "good") if key in asked else esc(t("default"))), _value(value)]
            for key, value in (manifest.get("task") or {}).items()
            if key != "description"
        ]
        page.table([t("Setting"), t("Origin"), t("In force")], rows, name="configuration")
    if request:
        rows = [[text(key), _value(value)] for key, value in request.items()]
        page.table(["", t("As really sent")], rows, name="request")


def _value(value: Any) -> Cell:
    shown = value if isinstance(value, str) else "–" if value is None else json.dumps(value, ensure_ascii=False)
    return Cell(esc(shown[:2000]), shown[:200], wraps=True)
