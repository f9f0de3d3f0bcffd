"""The viewer's rooms without a browser: addresses, the library, texts, figures, comparisons, files, reports."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oss_eval.analysis.compare import benchmarks, sweeps
from oss_eval.analysis.conditions import mismatches
from oss_eval.analysis.figures import Metric, PointMetrics
from oss_eval.analysis.fsck import LATER_METRICS, LATER_STATS
from oss_eval.analysis.point_name import effort_rank
from oss_eval.analysis.stratified import interval, p_value, strata
from oss_eval.errors import UsageError
from oss_eval.results.reader import LATER, read_samples
from oss_eval.viewer import figures, markdown, timeline
from oss_eval.viewer.auth import checked
from oss_eval.viewer.downloads import prepare
from oss_eval.viewer.i18n import LANGUAGES, words
from oss_eval.viewer.page import Cell, Figure, Page, esc, script_json, table
from oss_eval.viewer.pages import about, compare, perf, problem_grid, requests, samples, scores, slo
from oss_eval.viewer.published_scores import published
from oss_eval.viewer.query import LONGEST, MOST_RUNS, PAGES, Query
from oss_eval.viewer.run_index import RunIndex, StoredRun
from oss_eval.viewer.updates import draw
from tests.helpers.commands import ROOT
from tests.helpers.viewer_helpers import EXAMPLES, named, t

MODULES = {page: import_module(f"oss_eval.viewer.pages.{page}") for page in PAGES}


@pytest.fixture
def library() -> RunIndex:
    return RunIndex([EXAMPLES])


ADDRESSES = st.builds(
    Query,
    page=st.sampled_from(PAGES),
    runs=st.lists(st.from_regex(r"[A-Za-z0-9~._-]{1,30}", fullmatch=True), max_size=MOST_RUNS, unique=True).map(
        tuple
    ),
    filters=st.dictionaries(
        st.from_regex(r"[a-z]{1,8}", fullmatch=True).filter(lambda name: name not in ("show", "runs")),
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=LONGEST),
        max_size=4,
    ),
)


@given(ADDRESSES)
def test_an_address_comes_back_as_it_was(address: Query) -> None:
    assert Query.parse(str(address)) == address


@given(st.text(max_size=300))
def test_no_query_string_breaks_an_address(query: str) -> None:
    address = Query.parse(query)
    assert address.page in PAGES
    assert Query.parse(str(address)) == address


def test_another_page_begins_with_fresh_filters() -> None:
    here = Query("perf", ("a", "b"), {"stat": "p99"})
    assert str(here.to("requests", point="00-c1")) == "?show=requests&runs=a,b&point=00-c1"
    assert str(here.to(stat="")) == "?show=perf&runs=a,b"
    assert here.to(runs=tuple(map(str, range(20)))).runs == tuple(map(str, range(MOST_RUNS)))
    assert Query.parse("?show=perf&ttft=1e3").number("ttft") == 1000
    assert [Query.parse(f"?ttft={x}").number("ttft") for x in ("-1", "nan", "inf", "x", "")] == [None] * 5


def draw_all(library: RunIndex, runs: tuple[str, ...] = ()) -> dict[str, str]:
    """The HTML of every page."""
    return {
        page: str(module.draw(library, Query(page, runs), t).value(Query(page, runs))["html"])
        for page, module in MODULES.items()
    }


def test_runs_are_listed_newest_first_and_found_by_key(library: RunIndex) -> None:
    found = library.runs()
    assert len(found) >= 4
    assert [run.created for run in found] == sorted((run.created for run in found), reverse=True)
    assert all(run.status == "finished" and not run.problems for run in found)
    assert library.find(found[0].key) is found[0]
    assert library.find("../" + found[0].key) is None


def test_runs_one_folder_deeper_are_found_and_double_names_told_apart(tmp_path: Path) -> None:
    one = named("sweep-a")
    for place in ("a", "b/deeper"):
        shutil.copytree(EXAMPLES / one, tmp_path / place / one)
    library = RunIndex([tmp_path / "a", tmp_path / "b"])
    assert sorted(run.key for run in library.runs()) == [one, f"{one}~2"]
    assert RunIndex([EXAMPLES / one]).runs()[0].key == one


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "evil").symlink_to(EXAMPLES / named("sweep-a"))
    assert RunIndex([tmp_path / "results"]).runs() == []


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder"):
        RunIndex([tmp_path / "nothing"])


def test_an_empty_folder_says_how_to_fill_it(tmp_path: Path) -> None:
    pages = draw_all(RunIndex([tmp_path]))
    for page in ("runs", "scores", "samples", "perf", "requests", "about"):
        assert "oss-eval " in pages[page], page
        assert "data-copy" in pages[page]


@pytest.mark.parametrize("kind", ["cut", "empty", "noise"])
@pytest.mark.parametrize("table_", ["requests", "samples", "summary"])
def test_a_damaged_file_leaves_the_rest(folder: Path, table_: str, kind: str) -> None:
    run = folder / named("demo-a" if table_ == "samples" else "sweep-a")
    file = run / "summary.parquet" if table_ == "summary" else next((run / table_).glob("*.parquet"))
    whole = file.read_bytes()
    file.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "noise": os.urandom(len(whole))}[kind])
    library = RunIndex([folder])
    pages = draw_all(library, (run.name,))
    assert "demo-b" in pages["runs"]
    shown = pages["scores" if table_ == "samples" else "requests" if table_ == "requests" else "perf"]
    assert "Not everything could be read" in shown
    assert file.name in shown
    if table_ == "summary":  # the figures come from the requests instead
        assert pages["perf"].count("<tr>") > 6


def test_a_missing_summary_is_computed(folder: Path) -> None:
    for part in ("sweep-a", "demo-a"):
        run = folder / named(part)
        stored = {key: value.figures for key, value in RunIndex([run]).runs()[0].summary.items()}
        (run / "summary.parquet").unlink()
        computed = {key: value.figures for key, value in RunIndex([run]).runs()[0].summary.items()}
        assert computed.keys() == stored.keys()
        for key, figures_ in stored.items():
            new = {
                name
                for name in computed[key].keys() - figures_.keys()
                if name[0] not in LATER_METRICS and not LATER_STATS.fullmatch(name[1])
            }
            assert figures_.keys() <= computed[key].keys()
            assert not new
            for name, metric in figures_.items():
                assert computed[key][name].value == pytest.approx(metric.value), name


@pytest.mark.parametrize("content", ["", "{", '{"schema_version": "x"}', "[]"])
def test_a_damaged_manifest_is_a_row_with_a_note(folder: Path, content: str) -> None:
    (folder / named("sweep-a") / "manifest.json").write_text(content)
    page = draw_all(RunIndex([folder]))["runs"]
    assert "is damaged" in page
    assert "sweep-b" in page


def test_a_newer_schema_is_a_row_with_a_note(folder: Path) -> None:
    file = folder / named("sweep-a") / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema_version": 99}))
    assert "written by a newer oss-eval" in draw_all(RunIndex([folder]))["runs"]


ODD: list[dict[str, object]] = [
    {"status": None}, {"kind": 5}, {"points": None}, {"points": [{}]}, {"points": "x"}, {"endpoint": "x"},
    {"labels": ["x"]}, {"checks": [1]}, {"run_checks": {"x": 1}}, {"environment": None}, {"model": None},
    {"task": None, "tasks": None}, {"client": None}, {"sessions": "x"}, {"created": 5}, {"request": None},
]  # fmt: skip


@pytest.mark.parametrize("changes", ODD, ids=str)
@pytest.mark.parametrize("part", ["demo-a", "sweep-a"])
def test_an_odd_manifest_harms_no_other_run(folder: Path, part: str, changes: dict[str, object]) -> None:
    run = folder / named(part)
    file = run / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    (run / "summary.parquet").unlink()
    library = RunIndex([folder])
    for page in PAGES:
        assert draw(library, Query(page, (run.name,)), t).parts
        assert draw(library, Query(page), t).parts
    assert "sweep-b" in "".join(draw(library, Query("runs"), t).parts)


def test_a_page_that_cannot_be_drawn_says_so(library: RunIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*words: object) -> None:
        raise ZeroDivisionError("x < y")

    monkeypatch.setattr(scores, "draw", broken)
    html = "".join(draw(library, Query("scores"), t).parts)
    assert "This page can&#x27;t be drawn for these runs: ZeroDivisionError: x &lt; y" in html


def test_an_old_summary_of_a_resumed_run_is_not_believed(folder: Path) -> None:
    run = folder / named("demo-a")
    [part] = (run / "samples").glob("*.parquet")
    pq.write_table(pq.read_table(part).slice(0, 50), part)
    file = run / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "status": "running"}))  # and nobody holds its lock
    [found] = RunIndex([run]).runs()
    assert found.status == "broken off"
    assert sum(view.score().n for view in found.points) == 50  # type: ignore[union-attr]


def test_runs_of_one_name_stay_apart(folder: Path) -> None:
    for part in ("demo-a", "demo-b"):
        file = folder / named(part) / "manifest.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "name": "nightly"}))
    sheet = scores.draw(RunIndex([folder]), Query("scores", (named("demo-a"), named("demo-b"))), t)
    bars = sheet.figures[0]["data"]
    assert [bar["name"] for bar in bars] == [f"nightly {named(part)[-4:]}" for part in ("demo-a", "demo-b")]


def test_points_that_are_there_twice_are_compared_in_turn(library: RunIndex) -> None:
    run = library.find(named("sweep-a"))
    assert run is not None
    twice = StoredRun(run.key, run.path, run.stamp)
    twice.points = [*run.points, *run.points]  # type: ignore[misc]
    assert {c.verdict for c in compare.contrasts(twice, twice)} <= {"can't tell", "no interval"}
    assert len(compare.contrasts(twice, twice)) == 2 * len(compare.contrasts(run, run))


def test_problems_in_another_order_are_paired_by_their_prompts(library: RunIndex) -> None:
    run = library.find(named("demo-a"))
    assert run is not None
    columns = ["subset", "sample_id", "prompt", "score", "truncated", "completion_tokens", "ttft_ms", "latency_ms"]
    rows = run.samples(columns).select(columns)
    ids = rows["sample_id"].to_pylist()
    turned = pa.array([str(13 - int(name)) for name in ids]).cast(rows.schema.field("sample_id").type)
    other = rows.set_column(columns.index("sample_id"), rows.schema.field("sample_id"), turned)
    assert benchmarks("x", rows, other, same_order=True).differences[0].difference.low != 0
    assert {c.difference.value for c in benchmarks("x", rows, other, same_order=False).differences} == {0.0}


def test_the_token_rate_adds_up_to_the_tokens(library: RunIndex) -> None:
    run = library.find(named("sweep-a"))
    assert run is not None
    columns = ["warmup", "start_ns", "event_ns", "event_tokens", "completion_tokens", "status"]
    rows = run.requests(columns, run.points[-1].point_id)
    begin = min(rows["start_ns"].to_pylist())
    edges = np.linspace(0, 60, 601)
    rate = timeline.token_rate(rows, begin, edges)
    assert rate is not None
    assert (rate * 0.1).sum() == pytest.approx(sum(rows["completion_tokens"].to_pylist()))
    assert timeline.token_rate(run.requests(columns, "probe"), begin, edges) is None  # warm-ups count nowhere


def test_cancelled_requests_are_no_failures(folder: Path) -> None:
    [part] = (folder / named("sweep-a") / "requests").glob("*.parquet")
    table_ = pq.read_table(part)
    statuses = ["cancelled" if s == "ok" and i % 7 == 0 else s for i, s in enumerate(table_["status"].to_pylist())]
    field = table_.schema.field("status")
    pq.write_table(
        table_.set_column(table_.column_names.index("status"), field, pa.array(statuses).cast(field.type)), part
    )
    html = "".join(requests.draw(RunIndex([folder]), Query("requests", (named("sweep-a"),)), t).parts)
    assert "failed requests" not in html


def test_the_time_between_sessions_is_left_out(folder: Path) -> None:
    """A sweep that went on after a night has no night in its time line."""
    [part] = (folder / named("sweep-a") / "requests").glob("*.parquet")
    stored = pq.read_table(part)
    rows = stored.to_pylist()
    point = max(row["point_id"] for row in rows if not row["warmup"])
    times = [row["start_ns"] for row in rows if row["point_id"] == point]
    middle = (min(times) + max(times)) // 2
    night = 8 * 3600 * 10**9
    for row in rows:
        if row["point_id"] == point and row["start_ns"] > middle:
            row["session"] = 2
            for name in requests.INSTANTS:
                row[name] = None if row[name] is None else row[name] + night
    pq.write_table(pa.Table.from_pylist(rows, schema=stored.schema), part)
    address = Query("requests", (named("sweep-a"),), {"point": point})
    sheet = requests.draw(RunIndex([folder]), address, t)
    assert "Measured in 2 sessions" in "".join(sheet.parts)
    [flying] = [
        figure for figure in sheet.figures if figure["layout"]["yaxis"]["title"]["text"] == "requests in flight"
    ]
    assert max(flying["data"][0]["x"]) < 600
    assert "Measured in" not in "".join(
        requests.draw(RunIndex([folder]), Query("requests", (named("sweep-b"),)), t).parts
    )


def test_names_in_figures_are_texts() -> None:
    sheet = Page()
    name = '<a href="https://evil.example">x</a> & <b>'
    sheet.draw(figures_of(name))
    [drawn] = sheet.figures
    assert drawn["data"][0]["name"] == '&lt;a href="https://evil.example">x&lt;/a> &amp; &lt;b>'
    assert drawn["data"][0]["hovertemplate"] == "%{y}<extra></extra>"


def figures_of(name: str) -> Figure:
    data = [figures.line(name, 0, [name], [1.0], hovertemplate="%{y}<extra></extra>")]
    return Figure("x", name, data, figures.layout("x", "y"), "")


def test_a_manifest_with_nothing_but_its_beginning(folder: Path) -> None:
    run = folder / "20261122-000000-perf-begun-0000"
    (run / "requests").mkdir(parents=True)
    manifest = {"schema_version": 1, "run_id": run.name, "status": "running", "kind": "perf"}
    (run / "manifest.json").write_text(json.dumps(manifest))
    pages = draw_all(RunIndex([folder]), (run.name,))
    assert run.name in pages["runs"]
    assert "broken off" in pages["runs"]


def test_a_run_that_broke_off_says_how_to_go_on(folder: Path) -> None:
    file = folder / named("demo-a") / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "status": "running"}))
    pages = draw_all(RunIndex([folder]), (named("demo-a"),))
    command = f"oss-eval resume {named('demo-a')} --out {folder}"
    assert command in pages["runs"]
    assert command in pages["about"]
    assert "broken off" in pages["scores"]


def test_a_live_run_shows_its_progress(folder: Path) -> None:
    import fcntl

    run = folder / named("sweep-a")
    file = run / "manifest.json"
    manifest = json.loads(file.read_text())
    planned = sum(point["number"] for point in manifest["points"])
    manifest["points"][-1]["number"] += 17
    file.write_text(json.dumps({**manifest, "status": "running"}))
    with (run / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        library = RunIndex([folder])
        [live] = [found for found in library.runs() if found.live]
        assert live.progress == (planned, planned + 17)
        page = draw_all(library, (run.name,))
        assert "<progress" in page["runs"]
        assert f"is still going: {planned} of {planned + 17}" in page["perf"]


def test_what_is_written_meanwhile_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oss_eval.viewer.run_index.LOOK_AGAIN_SECONDS", 0)
    library = RunIndex([folder])
    before = library.find(named("sweep-a"))
    file = folder / named("sweep-a") / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "name": "renamed"}))
    after = library.find(named("sweep-a"))
    assert before is not after
    assert after is not None
    assert after.label == "renamed"
    assert library.find(named("sweep-b")) is library.find(named("sweep-b"))


HOSTILE = (
    '<script>alert(1)</script><img src=x onerror=alert(2)>"\'&</td></table><a href="javascript:alert(3)">x</a>'
)


class Tags(HTMLParser):
    """Every element and attribute of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


OURS = {
    "a", "b", "br", "button", "caption", "code", "details", "div", "figcaption", "figure", "h2", "h3", "li", "nav", "p",
    "pre", "progress", "small", "span", "summary", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip


def test_nothing_a_run_says_becomes_an_element(folder: Path) -> None:
    """Hostile words in every text of manifests, samples and requests."""
    for file in folder.rglob("manifest.json"):
        run = file.parent
        manifest = json.loads(file.read_text())
        manifest |= {
            "name": HOSTILE,
            "labels": {HOSTILE: HOSTILE},
            "model": HOSTILE,
            "command": ["oss-eval", HOSTILE],
        }
        manifest["endpoint"] |= {"url": HOSTILE, "simulator": HOSTILE, "name": HOSTILE}
        manifest["environment"]["cpu"] = HOSTILE
        manifest["run_checks"] = [{"kind": HOSTILE, "level": "warn", "message": HOSTILE}]
        file.write_text(json.dumps(manifest))
        for part in [*run.glob("samples/*.parquet"), *run.glob("requests/*.parquet")]:
            found = pq.read_table(part)
            for name in ("response", "reasoning", "prompt", "answer", "target", "route", "error_message"):
                if name in found.column_names:
                    index = found.column_names.index(name)
                    filled = pa.array([HOSTILE] * found.num_rows).cast(found.schema.field(name).type)
                    found = found.set_column(index, found.schema.field(name), filled)
            if "error_kind" in found.column_names:
                for name, word in (("status", "error"), ("error_kind", HOSTILE)):
                    kept = found[name].to_pylist()
                    kept[-1] = word
                    column = pa.array(kept).cast(found.schema.field(name).type)
                    found = found.set_column(found.column_names.index(name), found.schema.field(name), column)
            pq.write_table(found, part)
        (run / "summary.parquet").unlink()
    library = RunIndex([folder])
    for part in ("demo", "sweep"):
        keys = tuple(path.name for path in sorted(folder.iterdir()) if part in path.name)
        for page, html in draw_all(library, keys).items():
            tags = Tags()
            tags.feed(html)
            assert tags.found, page
            for tag, attributes in tags.found:
                assert tag in OURS, (page, tag)
                assert not any(name.startswith("on") for name in attributes), (page, attributes)
                assert (attributes.get("href") or "?").startswith(("?", "https://")), (page, attributes)
    sheet = samples.draw(library, Query("samples", (named("demo-a"),)), t)
    for words_ in sheet.texts.values():
        assert "<script" not in words_
        assert "<img" not in words_
    assert "&lt;script>" in sheet.texts["answer_a"]


@settings(deadline=None)
@given(st.text(st.sampled_from("<>&`~$![]()\\ \nascript/x1_*"), max_size=80))
def test_no_text_opens_an_element_or_a_picture(text: str) -> None:
    shown = markdown.safe(text)
    assert not re.search("<[A-Za-z/!?]", shown)  # in code or out of it, whoever draws that line
    assert "![" not in shown


@pytest.mark.parametrize(
    ("given_", "shown"),
    [
        ("costs $5 and $6", "costs $5 and $6"),
        ("so $x^2$ is $y$.", "so \\(x^2\\) is \\(y\\)."),
        ("$a < b$", "\\(a &lt; b\\)"),
        ("`a < b` and a < b", "`a < b` and a &lt; b"),
        ("```\n<b>\n```\n<b>", "```\n<\u200bb>\n```\n&lt;b>"),
        ("![x](http://evil)", "!&#91;x](http://evil)"),
        ("`![x](http://evil)`", "`!\u200b[x](http://evil)`"),
        ('\\`<div style="position:fixed">\\`', '\\`<\u200bdiv style="position:fixed">\\`'),
        ("&lt; & \x00\u202eabc", "&amp;lt; &amp; ⟨U+0000⟩⟨U+202E⟩abc"),
        ("``unclosed <b>", "``unclosed &lt;b>"),
        (None, ""),
    ],
)
def test_markdown_of_a_model(given_: str | None, shown: str) -> None:
    assert markdown.safe(given_) == shown


def test_long_texts_are_cut_and_say_so() -> None:
    assert markdown.safe("x" * (markdown.LONGEST + 1234)).endswith("… 1,234 more characters")


def test_json_in_a_script_element_cannot_close_it() -> None:
    assert "</script" not in script_json({"x": "</script><script>alert(1)</script>"})
    assert json.loads(script_json({"x": "</script>\u2028"})) == {"x": "</script>\u2028"}


def luminance(colour: str) -> float:
    """WCAG 2.2's relative luminance of #rrggbb."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a: str, b: str) -> float:
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("background", ["#ffffff", "#111827"])
def test_series_can_be_seen_on_light_and_dark(background: str) -> None:
    for colour in figures.COLOURS:
        assert contrast(colour, background) >= 3.0, colour


def test_texts_can_be_read_on_light_and_dark() -> None:
    """WCAG AA: 4.5:1 for every colour of text against each ground it stands on."""
    css = (ROOT / "oss_eval" / "viewer" / "assets" / "page.css").read_text()
    for block, ink in (("body {", "#1f2937"), ("body.dark {", "#e5e7eb")):
        start = css.index(block)
        colours = dict(re.findall(r"--oss-([a-z]+): (#[0-9a-f]{6})", css[start : css.index("}", start)]))
        grounds = [colours["paper"], colours["stripe"]]
        for name in ("quiet", "right", "wrong", "cut", "link"):
            for ground in grounds:
                assert contrast(colours[name], ground) >= 4.5, (block, name, ground)
        assert contrast(colours["cut"], colours["warn"]) >= 4.5
        assert contrast(colours["wrong"], colours["bad"]) >= 4.5
        assert contrast(ink, colours["warn"]) >= 4.5
    for ground, word in re.findall(r"\.g-[a-z]+ \{ background: (#[0-9a-f]{6}); color: (#[0-9a-f]{6})", css):
        assert contrast(ground, word) >= 4.5


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=3000))
def test_every_point_of_a_thinned_distribution_is_true(values: list[float]) -> None:
    x, y = figures.ecdf(np.asarray(values))
    assert len(x) <= figures.MOST_POINTS
    assert (x[0], x[-1], y[-1]) == (min(values), max(values), 1.0)
    ordered = np.sort(values)
    for value, share in zip(x, y, strict=True):
        assert ordered[round(share * len(values)) - 1] == value
    if len(values) > figures.MOST_POINTS:
        assert x[-10:] == [float(v) for v in ordered[-10:]]  # tails are whole


def test_thinned_requests_keep_failures_and_the_slowest() -> None:
    rng = np.random.default_rng(1)
    latency, failed = rng.random(20_000), rng.random(20_000) < 0.003
    kept = timeline.thinned(latency, failed)
    assert len(kept) <= timeline.MOST_BARS
    assert set(np.flatnonzero(failed)) <= set(kept)
    assert set(np.argsort(latency)[-20:]) <= set(kept)
    everything = timeline.thinned(latency, np.ones(20_000, dtype=bool))
    assert len(everything) <= timeline.MOST_BARS
    assert list(timeline.thinned(latency[:5], failed[:5])) == [0, 1, 2, 3, 4]


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.001, 50)), min_size=1, max_size=60))
def test_lanes_and_in_flight_agree_with_counting(spans: list[tuple[float, float]]) -> None:
    start = np.asarray([s for s, _ in spans])
    end = start + np.asarray([d for _, d in spans])
    lane = timeline.lanes(start, end)
    for a in range(len(spans)):
        for b in range(a):
            if lane[a] == lane[b]:  # one after the other
                assert end[a] <= start[b] or end[b] <= start[a]
    most = max(int(((start <= at) & (end > at)).sum()) for at in start)
    assert lane.max() + 1 == most
    edges = np.linspace(0, end.max() + 1, 20)
    found = timeline.in_flight(start, end, edges)
    assert found.max() == most


def metrics(value: float, half: float | None, name: str = "latency_ms", stat: str = "mean") -> PointMetrics:
    low, high = (None, None) if half is None else (value - half, value + half)
    return PointMetrics({(name, stat): Metric(name, stat, value, low, high, 100, "ms")})


@pytest.mark.parametrize(
    ("a", "b", "name", "stat", "verdict"),
    [
        ((100, 5), (150, 5), "latency_ms", "mean", "worse"),
        ((100, 5), (50, 5), "latency_ms", "mean", "better"),
        ((100, 5), (103, 5), "latency_ms", "mean", "can't tell"),
        ((100, 5), (150, 5), "plateau_output_tps", "value", "better"),
        ((100, 5), (150, 5), "completion_tokens", "mean", "different"),
        ((100, None), (150, 5), "latency_ms", "mean", "no interval"),
    ],
)
def test_verdicts(a: tuple[float, float], b: tuple[float, float], name: str, stat: str, verdict: str) -> None:
    [found] = sweeps("c1", [metrics(*a, name, stat)], [metrics(*b, name, stat)])
    assert (found.verdict, found.difference.value) == (verdict, pytest.approx(b[0] - a[0]))


def test_benchmarks_are_compared_problem_by_problem(library: RunIndex) -> None:
    one, two = (library.find(named(part)) for part in ("demo-a", "demo-b"))
    assert one is not None
    assert two is not None
    [found] = [c for c in compare.contrasts(one, two) if c.metric == "score" and c.where.endswith("medium")]
    frames = [pd.read_parquet(run.path / "samples") for run in (one, two)]
    means = [
        frame[frame.reasoning_effort == "medium"].groupby("sample_id", observed=True).score.mean()
        for frame in frames
    ]
    difference = (means[1] - means[0]).dropna()
    assert found.difference.value == pytest.approx(difference.mean())
    assert found.difference.pairs == len(difference)
    assert len(difference) == 12
    right = [
        frame[frame.reasoning_effort == "medium"].groupby("sample_id", observed=True).score.sum()
        for frame in frames
    ]
    data = strata(*(side for r in right for side in ([r[str(p)] for p in range(1, 13)], 3)))
    assert (found.difference.low, found.difference.high) == pytest.approx(interval(data))
    assert found.difference.p == pytest.approx(p_value(data))


def test_only_common_problems_are_compared(library: RunIndex) -> None:
    run = library.find(named("demo-a"))
    assert run is not None
    rows = run.samples(["subset", "sample_id", "score", "truncated", "completion_tokens", "ttft_ms", "latency_ms"])
    assert benchmarks("x", rows, rows.slice(0, 0)).differences == []
    found = benchmarks("x", rows, rows)
    assert (found.wins, found.losses, found.ties, found.flips) == (0, 0, 12, [])
    same = found.differences
    assert {c.verdict for c in same} == {"can't tell"}


def test_conditions_that_differ_are_named(library: RunIndex) -> None:
    one, two = (
        json.loads((EXAMPLES / named(part) / "manifest.json").read_text()) for part in ("sweep-a", "sweep-b")
    )
    two["environment"]["host"] = "another"
    two["task"]["max_tokens"] = 7
    two["clock_source"] = ["user"]
    found = {(m.kind, m.name): (m.a, m.b) for m in mismatches(one, two)}
    assert found["host", "host"] == (one["environment"]["host"], "another")
    assert found["workload", "max_tokens"][1] == "7"
    assert found["instrument", "clock"] == ("kernel", "user")
    assert mismatches(one, one) == []


def test_the_compare_page_warns(folder: Path) -> None:
    file = folder / named("sweep-b") / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["environment"]["cpu"] = "another"
    file.write_text(json.dumps(manifest))
    address = Query("compare", (named("sweep-a"), named("sweep-b")))
    html = "".join(compare.draw(RunIndex([folder]), address, t).parts)
    assert "differs from A in: " in html
    assert "another" in html
    mixed = Query("compare", (named("sweep-a"), named("demo-a")))
    assert "of another kind" in "".join(compare.draw(RunIndex([folder]), mixed, t).parts)


def test_a_run_that_is_not_there_is_said_and_no_other_shown(library: RunIndex) -> None:
    for page in ("scores", "samples", "perf", "requests"):
        html = "".join(MODULES[page].draw(library, Query(page, ("nosuch",)), t).parts)
        assert html.count("<") < 5
        assert "There is no run nosuch in these folders." in html
    html = "".join(scores.draw(library, Query("scores", (named("sweep-a"),)), t).parts)
    assert "sweep-a has nothing for this page." in html
    assert f'href="?show=perf&amp;runs={named("sweep-a")}"' in html
    assert "demo" not in html


def test_findings_that_differ_are_said_one_by_one(folder: Path) -> None:
    file = folder / named("sweep-a") / "manifest.json"
    manifest = json.loads(file.read_text())
    ids = [point["point_id"] for point in manifest["points"]]
    for number, words_ in enumerate(
        ("5 of 6 needed a new one", "16 of 40 needed a new one", "16 of 40 needed a new one")
    ):
        manifest["checks"][ids[number]] = [{"kind": "reconnects", "level": "warn", "message": words_}]
    file.write_text(json.dumps(manifest))
    html = "".join(perf.draw(RunIndex([folder]), Query("perf", (named("sweep-a"),)), t).parts)
    assert html.count("5 of 6 needed a new one") == 1
    assert html.count("16 of 40 needed a new one") == 1


def test_an_unfinished_benchmark_is_marked(folder: Path) -> None:
    run = folder / named("demo-a")
    [part] = (run / "samples").glob("*.parquet")
    pq.write_table(pq.read_table(part).slice(0, 50), part)
    (run / "summary.parquet").unlink()
    file = run / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "status": "interrupted"}))
    pages = draw_all(RunIndex([folder]), (run.name,))
    assert "14 of 36*" in pages["scores"]
    assert "not yet a score to quote" in pages["scores"]
    assert "not all answers yet" in pages["runs"]


def test_scores_say_what_follows_from_them(library: RunIndex) -> None:
    html = "".join(scores.draw(library, Query("scores", (named("demo-a"),)), t).parts)
    assert "on these problems" in html


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(
    "query", ["", "&q=\x00%FF<", "&verdict=x&stat=x&spread=x&cost=x&task=x&point=x&sample=x&request=x"]
)
def test_no_filter_breaks_a_page(library: RunIndex, page: str, query: str) -> None:
    for keys in ((), (named("demo-a"), named("sweep-a")), ("no-such-run",)):
        address = Query.parse(f"?show={page}&runs={','.join(keys)}{query}")
        assert MODULES[page].draw(library, address, t).parts


def test_samples_can_be_filtered_and_searched(library: RunIndex) -> None:
    frame = pd.read_parquet(EXAMPLES / named("demo-a") / "samples")

    def count(**filters: str) -> int:
        html = "".join(samples.draw(library, Query("samples", (named("demo-a"),), filters), t).parts)
        return int(re.search(r"of ([\d,]+) answers", html).group(1).replace(",", ""))  # type: ignore[union-attr]

    assert count() == len(frame)
    assert count(verdict="right") == (frame.score == 1).sum()
    assert count(verdict="wrong") == (frame.score < 1).sum()
    point = frame.point_id.iloc[0]
    assert count(point=point) == (frame.point_id == point).sum()
    word = "bakery"
    texts = frame.prompt.str.contains(word, case=False) | frame.response.str.contains(word, case=False)
    assert count(q="BAKERY") == texts.sum() > 0
    assert count(q="no such words anywhere") == 0


def test_changed_answers_are_found(library: RunIndex) -> None:
    keys = (named("demo-a"), named("demo-b"))
    html = "".join(samples.draw(library, Query("samples", keys, {"verdict": "changed"}), t).parts)
    shown = int(re.search(r"of (\d+) answers", html).group(1))  # type: ignore[union-attr]
    frames = [pd.read_parquet(EXAMPLES / key / "samples") for key in keys]
    keyed = [f.set_index(["reasoning_effort", "sample_id", "epoch"]).score for f in frames]
    assert shown == (keyed[0] != keyed[1].reindex(keyed[0].index)).sum() > 0


def test_every_figure_has_its_numbers(library: RunIndex) -> None:
    for keys in ((named("demo-a"), named("demo-b")), (named("sweep-a"), named("sweep-b"))):
        for page, html in draw_all(library, keys).items():
            for figure in re.findall(r"<figure .*?</figure>", html, re.S):
                assert re.search(r"<details><summary>Numbers</summary>.*<tbody><tr>", figure, re.S), (
                    page,
                    figure[:80],
                )


def test_a_limit_gives_the_goodput(library: RunIndex) -> None:
    run = library.find(named("sweep-a"))
    assert run is not None
    from oss_eval.analysis.slo import REQUEST_COLUMNS, goodput

    address = Query("perf", (run.key,), {"ttft": "300"})
    html = "".join(perf.draw(library, address, t).parts)
    for view in run.points:
        found = goodput(run.requests(REQUEST_COLUMNS, view.point_id), {"ttft": 300.0})
        assert found is not None
        assert f'data-value="{found.attainment.value}"' in html
    assert "≈ can" in html  # all of a few requests
    assert "✗ misses" in html


def test_published_scores_are_found_under_any_name() -> None:
    for name in ("gpt-oss-20b", "openai/gpt-oss-20b", "gpt-oss:20b", "unsloth/gpt-oss-20b-GGUF"):
        [high] = [r for r in published(name, "aime25") if r.effort == "high" and "model card" in r.source]
        assert high.score == 0.917
    assert published("llama-3", "aime25") == []
    assert {r.url.split(":")[0] for r in published("gpt-oss-120b", "aime25")} == {"https"}


def test_efforts_have_an_order() -> None:
    assert sorted(["high", "weird", "low", None, "medium"], key=effort_rank) == [
        None,
        "low",
        "medium",
        "high",
        "weird",
    ]


def said() -> Iterator[str]:
    """Every text that goes through t(...), and the data that does."""
    for file in (ROOT / "oss_eval" / "viewer").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "id", "") == "t"
                and isinstance(node.args[0], ast.Constant)
            ):
                yield node.args[0].value
    for module in MODULES.values():
        for control in module.CONTROLS:
            yield from (control.label, *(label for label, _ in control.choices), *filter(None, [control.info]))
    yield from compare.NAMES.values()
    yield from compare.SIGNS
    yield from problem_grid.VERDICTS.values()
    yield from (title for title, _ in scores.COSTS.values())
    yield from (word for _, word, _ in slo.MEETING.values())
    yield from ("broken off", "interrupted", "failed")
    from oss_eval.viewer.pages import TITLES

    yield from TITLES.values()


def test_every_text_is_translated_with_its_places() -> None:
    from oss_eval.viewer.i18n import _table

    known, missing = _table(), []
    for text in sorted(set(said())):
        if text not in known:
            missing.append(text)
        else:
            assert sorted(re.findall(r"\{[^}]*\}", text)) == sorted(re.findall(r"\{[^}]*\}", known[text])), text
    assert missing == []
    assert set(LANGUAGES) == {"en", "zh"}


def test_chinese_pages_are_chinese(library: RunIndex) -> None:
    zh = words("zh")
    for page, module in MODULES.items():
        html = "".join(module.draw(library, Query(page, (named("demo-a"), named("demo-b"))), zh).parts)
        assert re.search(r"[\u4e00-\u9fff]", html), page


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_another_host_needs_a_password(host: str) -> None:
    with pytest.raises(UsageError, match="would let anybody read"):
        checked(host, False, None, False)
    assert checked(host, False, "reader:secret", False) == ("reader", "secret")
    assert checked(host, False, None, True) is None


def test_loopback_needs_none_and_sharing_does() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.2"):
        assert checked(host, False, None, False) is None
    with pytest.raises(UsageError, match="--share"):
        checked("127.0.0.1", True, None, False)
    for auth in ("", "user", "user:", ":pass"):
        with pytest.raises(UsageError, match="--auth"):
            checked("127.0.0.1", False, auth, False)


def test_tables_can_be_taken_away(library: RunIndex, tmp_path: Path) -> None:
    for part in ("demo-a", "sweep-a"):
        run = library.find(named(part))
        assert run is not None
        for name in about.downloads(run):
            file = prepare(run, name, tmp_path)
            assert file is not None
            if name == "manifest.json":
                assert json.loads(file.read_text()) == run.manifest
                continue
            stem = name.partition(".")[0]
            source = run.path / ("summary.parquet" if stem == "summary" else stem)
            whole = pd.read_parquet(source)
            found = pd.read_csv(file) if name.endswith("csv") else pd.read_parquet(file)
            later = set(found.columns) - set(whole.columns)  # columns that the stored examples do not have yet
            assert later <= LATER
            assert [name for name in found.columns if name not in later] == list(whole.columns)
            assert len(found) == len(whole)
            if stem == "requests":
                assert found.start_ns.tolist() == whole.start_ns.tolist()
                if name.endswith("csv"):
                    assert [int(v) for v in found.event_ns[0].split()] == whole.event_ns[0].tolist()
        for name in ("../manifest.json", "truth.jsonl", "requests.exe", ""):
            assert prepare(run, name, tmp_path) is None


def test_the_examples_are_small_and_complete() -> None:
    h100, local = EXAMPLES / "h100", EXAMPLES / "local"
    files = [file for file in EXAMPLES.rglob("*") if file.is_file()]
    sizes = {part: sum(f.stat().st_size for f in files if part in f.parents) for part in (EXAMPLES, h100, local)}
    assert sizes[h100] <= 2_000_000
    assert sizes[EXAMPLES] - sizes[h100] <= 1_500_000
    for file in [*h100.glob("*/manifest.json"), *local.glob("*/manifest.json")]:
        manifest = json.loads(file.read_text())
        assert not manifest["endpoint"]["simulated"]
        assert (manifest["labels"].get("weights") == "random: speed only") == (h100 in file.parents)
        assert not re.search(r"/(home|root|tmp|work)/", json.dumps(manifest))
    kinds = [json.loads(file.read_text()) for file in EXAMPLES.glob("*/manifest.json")]
    assert {manifest["kind"] for manifest in kinds} == {"bench", "perf"}
    for manifest in kinds:
        assert manifest["endpoint"]["simulated"]
        assert not re.search(r"/(home|root|tmp|work)/", json.dumps(manifest))


def test_a_table_aligns_numbers_and_sorts_by_value() -> None:
    html = table(
        ["Name", "n"], [[Cell("a", "a"), Cell("1,000", 1000, True)], [Cell("b", "b"), Cell("–", None, True)]]
    )
    assert '<td class="n" data-value="1000">1,000</td>' in html
    assert '<td class="n" data-value="">–</td>' in html
    assert html.count('class="n"') == 3


def test_sheets_escape_what_they_are_given() -> None:
    sheet = Page()
    sheet.heading("<b>")
    sheet.say("<i>", "warn")
    assert "".join(sheet.parts).count("&lt;") == 2
    assert esc('"') == "&quot;"


def test_links_inside_a_run_show_nothing_from_outside(tmp_path: Path) -> None:
    outside = Path(shutil.copytree(EXAMPLES / named("demo-a"), tmp_path / "outside"))
    results = tmp_path / "results"
    for name, linked in (("a", "samples"), ("b", "summary.parquet"), ("c", None)):
        run = Path(shutil.copytree(EXAMPLES / named("demo-a"), results / name))
        if linked is None:
            [part] = (run / "samples").glob("part-*.parquet")
            part.unlink()
            [there] = (outside / "samples").glob("part-*.parquet")
            part.symlink_to(there)
            continue
        shutil.rmtree(run / linked) if (run / linked).is_dir() else (run / linked).unlink()
        (run / linked).symlink_to(outside / linked)
    found = {run.name: run for run in RunIndex([results]).runs()}
    assert list(found) == ["c"]
    assert read_samples(results / "c").num_rows == 0


def test_a_folder_name_that_is_no_text_does_not_hide_the_other_runs(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / named("demo-a"), tmp_path / "good")
    shutil.copytree(EXAMPLES / named("demo-a"), tmp_path / os.fsdecode(b"bad\xff"))
    index = RunIndex([tmp_path])
    assert sorted(run.key for run in index.runs()) == ["bad?", "good"]
    for page in PAGES:
        query = Query(page, tuple(run.key for run in index.runs()))
        drawn = MODULES[page].draw(index, query, t)
        str(query).encode()
        shown = json.dumps([drawn.parts, drawn.figures, drawn.choices, drawn.caption], ensure_ascii=False)
        assert shown.encode()
        assert page != "runs" or "bad?" in shown
