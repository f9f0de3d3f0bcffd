"""One run whole: what was asked and in force, where, what the instrument found, how to do it again, its files."""

from __future__ import annotations

import json
import shlex
from typing import Any

from oss_eval.viewer.filters import Control
from oss_eval.viewer.page import Cell, Sheet, badge, esc, num, table, text
from oss_eval.viewer.pages.common import Words, command_line, introduce, nothing, problems
from oss_eval.viewer.query import Address
from oss_eval.viewer.run_index import Library, Run

CONTROLS: tuple[Control, ...] = ()


def draw(library: Library, address: Address, t: Words) -> Sheet:
    """The run chosen first, or the latest."""
    sheet = Sheet(t("Numbers"))
    run = next((found for key in address.runs if (found := library.find(key))), next(iter(library.runs()), None))
    if run is None:
        return nothing(
            sheet, t("There are no runs yet. One to begin with:"), "oss-eval perf --url sim://gpt-oss-20b-h20", t
        )
    introduce(sheet, [run], address, t)
    if not run.manifest:
        problems(sheet, [run], t)
        return sheet
    sheet.heading(t("Run it again"))
    for command in commands(run):
        sheet.add(command_line(command, t))
    if run.resume:
        sheet.say(t("Go on with what is missing:"))
        sheet.add(command_line(run.resume, t))
    if run.manifest.get("set_aside"):
        sheet.say(
            t("Set aside, because the run broke off in them, and measured again; their requests count nowhere:")
        )
        rows = [
            [text(point.get("point_id", "")), num(point.get("requests"), 0), num(point.get("number"), 0)]
            for point in run.manifest["set_aside"]
        ]
        sheet.table([t("Point"), t("Stored requests"), t("Planned")], rows, name="set-aside")
    sheet.heading(t("Checks"))
    _checks(sheet, run, t)
    sheet.heading(t("Where and with what"))
    environment = run.manifest.get("environment", {})
    rows = [[text(name), _value(value)] for name, value in {**run.endpoint, **environment}.items()]
    sheet.table(["", t("Value")], rows, name="environment")
    sheet.heading(t("Configuration"), t("As asked (typed or from the task file) and as in force."))
    _configuration(sheet, run, t)
    sheet.heading(
        t("Files"),
        t("Tables as Parquet (as stored) or CSV; the manifest as JSON. Figures have PNG and SVG below them."),
    )
    sheet.add(f'<p class="files">{" ".join(_download(run, name) for name in downloads(run))}</p>')
    shown = json.dumps(run.manifest, indent=2, ensure_ascii=False)
    sheet.fold("manifest", "manifest.json", f"<pre>{esc(shown[:400_000])}</pre>")
    problems(sheet, [run], t)
    return sheet


def commands(run: Run) -> list[str]:
    """What was typed, session by session, fit for a shell."""
    sessions = run.manifest.get("sessions") or [{"command": run.manifest.get("command") or []}]
    return list(
        dict.fromkeys(
            shlex.join(map(str, session.get("command") or [])) for session in sessions if session.get("command")
        )
    )


def downloads(run: Run) -> list[str]:
    """Names of the files that can be had."""
    tables = ["requests", "summary"] if run.kind != "bench" else ["samples", "requests", "summary"]
    there = [name for name in tables if (run.path / name).is_dir() or (run.path / f"{name}.parquet").is_file()]
    return [*(f"{name}.{kind}" for name in there for kind in ("csv", "parquet")), "manifest.json"]


def _download(run: Run, name: str) -> str:
    to = Address("about", (run.key,), {"file": name})
    what = f'data-download="{esc(name)}" data-run="{esc(run.key)}"'
    return f'<a {what} class="badge" href="{esc(to)}">⤓ {esc(name)}</a>'


def _checks(sheet: Sheet, run: Run, t: Words) -> None:
    found = [("", check) for check in run.manifest.get("run_checks") or []]
    for point_id, checks in (run.manifest.get("checks") or {}).items():
        view = run.point(point_id)
        found += [(view.title if view else point_id, check) for check in checks or ()]
    if run.warnings is None:
        sheet.say(t("Not checked: the run did not come to its end."))
    elif not found:
        sheet.say(t("Clean: the instrument found nothing that could mislead."))
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
        sheet.table([t("Point"), t("Level"), t("What was found, and what to do")], rows, name="checks")
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
        sheet.fold("client", t("The client itself"), inner)


def _configuration(sheet: Sheet, run: Run, t: Words) -> None:
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
            sheet.fold(f"task-{name}", name, inner, opened=True)
    else:
        asked = set(manifest.get("asked") or ())
        rows = [
            [text(key), Cell(badge(t("asked"), "good") if key in asked else esc(t("default"))), _value(value)]
            for key, value in (manifest.get("task") or {}).items()
            if key != "description"
        ]
        sheet.table([t("Setting"), t("Origin"), t("In force")], rows, name="configuration")
    if request:
        rows = [[text(key), _value(value)] for key, value in request.items()]
        sheet.table(["", t("As really sent")], rows, name="request")


def _value(value: Any) -> Cell:
    shown = value if isinstance(value, str) else "–" if value is None else json.dumps(value, ensure_ascii=False)
    return Cell(esc(shown[:2000]), shown[:200], wraps=True)
