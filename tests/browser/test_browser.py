"""The viewer as a user has it: `oss-eval view` in a real browser (Debian's Chromium).

Skipped where there is no Chromium; with OSS_EVAL_BROWSER=required, as in CI, that is a failure.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.helpers.browser import viewer
from tests.helpers.commands import ROOT

EXAMPLES = ROOT / "results" / "examples"
PAGES = ("runs", "scores", "samples", "perf", "requests", "compare", "machines", "about")
HOSTILE = "<script>window.hacked=1</script><img src=x onerror='window.hacked=2'> so \\(x^2 < \\frac{1}{2}\\), **70**, $5 \\bad{"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our own copy of the examples; the first answer of demo-a is hostile."""
    folder = Path(shutil.copytree(EXAMPLES, tmp_path_factory.mktemp("view") / "results"))
    [part] = (folder / key(folder, "demo-a") / "samples").glob("*.parquet")
    table = pq.read_table(part)
    index = table.column_names.index("response")
    words = [HOSTILE, *table["response"].to_pylist()[1:]]
    pq.write_table(table.set_column(index, table.schema.field(index), pa.array(words)), part)
    return folder


@pytest.fixture(scope="module")
def address(results: Path) -> Iterator[str]:
    """Where `oss-eval view` answers."""
    with viewer(results) as where:
        yield where


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that may neither complain nor ask anybody else."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000}, accept_downloads=True)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened, troubles = context.new_page(), []
    opened.on("console", lambda m: troubles.append(f"console: {m.text}") if m.type == "error" else None)
    opened.on("pageerror", lambda error: troubles.append(f"error: {error}"))
    opened.on(
        "request",
        lambda r: (
            troubles.append(r.url)
            if not r.url.startswith(("http://127.0.0.1:", "data:", "blob:", "file:"))
            else None
        ),
    )
    yield opened
    context.close()
    # Gradio says so in the console when a page is left while an answer is on its way.
    left = re.compile("signal is aborted|Connection errored out")
    assert [words for words in troubles if not left.search(words)] == []


def key(folder: Path, part: str) -> str:
    [found] = [path.name for path in folder.iterdir() if part in path.name]
    return found


def shown(page: Page, name: str) -> None:
    """Wait until a page is there with its figures drawn."""
    page.wait_for_selector(f"#content-{name} .oss > *")
    page.wait_for_function(
        "(name) => [...document.querySelectorAll(`#content-${name} figure`)].every((f) => f.querySelector('.main-svg'))",
        arg=name,
    )


@pytest.mark.parametrize("language", ["", "zh"])
@pytest.mark.parametrize("name", PAGES)
def test_every_page_in_both_languages(page: Page, address: str, results: Path, name: str, language: str) -> None:
    kind = "sweep" if name in ("perf", "requests", "machines", "about") else "demo"
    runs = f"{key(results, f'{kind}-a')},{key(results, f'{kind}-b')}"
    page.goto(f"{address}{language}?show={name}&runs={runs}")
    shown(page, name)
    current = page.locator("nav.pages a[aria-current=page]")
    titles = {
        "": "Runs Scores Samples Load Requests Compare Machines About",
        "zh": "运行列表 得分 样本 负载 请求 比较 机器 关于",
    }
    expect(current).to_contain_text(titles[language].split()[PAGES.index(name)])
    body = page.inner_text(f"#page-{name}")
    assert bool(re.search(r"[\u4e00-\u9fff]", body)) == (language == "zh")
    assert "NaN" not in body
    assert "undefined" not in body
    assert "None" not in body.replace("None of", "")
    figures = {"scores": 2, "perf": 6, "requests": 4, "compare": 1}.get(name, 0)
    assert page.locator(f"#content-{name} figure .main-svg:first-child").count() >= figures


def test_runs_can_be_searched_and_filtered(page: Page, address: str) -> None:
    page.goto(address)
    rows = page.locator("#content-runs table[data-name=runs] tbody tr")
    expect(rows).to_have_count(8)
    search = page.locator("#runs-q input")
    search.press_sequentially("sweep-b")
    expect(rows).to_have_count(1)
    page.wait_for_url("**q=sweep-b**")
    for _ in "sweep-b":
        search.press("Backspace")
    expect(rows).to_have_count(8)
    page.locator("#runs-kind input").click()
    page.get_by_role("option", name="benchmarks").click()
    expect(rows).to_have_count(3)
    assert "kind=bench" in page.url
    page.locator("#content-runs th button", has_text="Run").first.click()
    names = [row.split("\t")[1] for row in rows.all_inner_texts()]
    assert names == sorted(names, reverse=True)


def test_two_runs_are_ticked_and_compared(page: Page, address: str) -> None:
    page.goto(address)
    rows = [page.locator("#content-runs tbody tr", has_text=name) for name in ("sweep-a", "sweep-b")]
    for row in rows:
        row.get_by_role("checkbox").click()  # one after the other, faster than the answers come
    page.wait_for_url(re.compile(r"runs=[^&]*sweep-a[^&]*(,|%2C)[^&]*sweep-b"))
    for row in rows:
        expect(row.get_by_role("checkbox")).to_have_attribute("aria-checked", "true")
    page.locator("#content-runs").get_by_role("link", name="Compare").click()
    shown(page, "compare")
    table = page.locator("#content-compare table[data-name=compare]")
    expect(table.locator("tbody tr").first).to_be_visible()
    everything = table.locator("tbody tr").count()
    assert "differs from A in: workload" in page.inner_text("#content-compare")
    page.locator("#compare-verdict input").click()
    page.get_by_role("option", name="better or worse").click()
    page.wait_for_function(
        f"document.querySelectorAll('#content-compare table[data-name=compare] tbody tr').length < {everything}"
    )
    for text in table.locator("tbody tr").all_inner_texts():
        assert re.search("better|worse|different", text)


def test_the_grid_leads_to_the_sample_and_its_words_stay_words(page: Page, address: str, results: Path) -> None:
    run = key(results, "demo-a")
    first = pd.read_parquet(results / run / "samples").iloc[0]
    page.goto(f"{address}?show=scores&runs={run}")
    shown(page, "scores")
    sample = f"{first.point_id}/{first.subset}/{first.sample_id}/{first.epoch}".replace("/", "%2F")
    page.locator(f'#content-scores a[href$="sample={sample}"]').click()
    shown(page, "samples")
    answer = page.locator("#text-answer_a")
    expect(answer).to_contain_text("<script>window.hacked=1</script>")
    expect(answer).to_contain_text("<img src=x")
    expect(answer.locator(".katex").first).to_be_visible()
    expect(answer.locator("strong")).to_have_text("70")
    assert answer.locator("script, img").count() == 0
    assert page.evaluate("window.hacked") is None
    expect(page.locator("#text-prompt")).to_contain_text("problem" if "problem" in first.prompt else "")
    expect(page.locator("#content-details figure[data-name=tokens] .main-svg").first).to_be_visible()
    page.locator("#content-samples").get_by_role("link", name="next answer").click()
    page.wait_for_function("(was) => !location.search.includes(was)", arg=sample)
    page.go_back()
    expect(answer).to_contain_text("<script>")


def test_samples_are_filtered(page: Page, address: str, results: Path) -> None:
    run = key(results, "demo-a")
    frame = pd.read_parquet(results / run / "samples")
    page.goto(f"{address}?show=samples&runs={run}")
    shown(page, "samples")
    page.locator("#samples-verdict input").click()
    page.get_by_role("option", name="wrong").click()
    caption = page.locator("#content-samples table[data-name=samples] caption")
    expect(caption).to_contain_text(f"of {(frame.score < 1).sum()} answers")
    page.locator("#samples-q input").press_sequentially("bakery")
    expect(page.locator("#text-prompt")).to_contain_text("bakery")
    page.wait_for_url("**q=bakery**")
    page.locator("#content-samples").get_by_role("link", name="next answer").click()
    page.wait_for_url("**sample=**")
    page.go_back()
    page.wait_for_url(lambda url: "q=bakery" in url and "sample=" not in url)
    expect(page.locator("#text-prompt")).to_contain_text("bakery")
    page.wait_for_timeout(1000)
    assert f"runs={run}" in page.url


def test_limits_shade_and_count(page: Page, address: str, results: Path) -> None:
    page.goto(f"{address}?show=perf&runs={key(results, 'sweep-a')}")
    shown(page, "perf")
    assert page.locator("#content-perf figure[data-name=goodput]").count() == 0
    box = page.locator("#perf-ttft input[type=number]")
    box.fill("300")
    box.press("Enter")
    box.blur()
    expect(page.locator("#content-perf figure[data-name=goodput]")).to_be_visible()
    shown(page, "perf")
    assert "ttft=300" in page.url
    assert (
        page.evaluate("document.querySelector('#content-perf figure[data-name=ttft] .plot').layout.shapes.length")
        == 2
    )
    expect(page.locator("#content-perf")).to_contain_text("✗ misses")
    page.locator("#perf-stat").get_by_text("P99").click()
    expect(page.locator("#content-perf figure[data-name=ttft] figcaption")).to_have_text("TTFT, P99")


def test_a_request_is_opened_from_its_bar(page: Page, address: str, results: Path) -> None:
    page.goto(f"{address}?show=requests&runs={key(results, 'sweep-a')}")
    shown(page, "requests")
    assert page.locator("#content-requests figure[data-name=tokens]").count() == 0
    bar = (
        page.locator("#content-requests figure[data-name=requests] .trace.bars")
        .last.locator("path")
        .first.bounding_box()
    )
    assert bar is not None
    page.mouse.click(bar["x"] + bar["width"] / 2, bar["y"] + bar["height"] / 2)
    expect(page.locator("#content-requests figure[data-name=tokens]")).to_be_visible()
    assert "request=" in page.url
    shown(page, "requests")
    fills = page.evaluate("[...document.querySelectorAll('.trace.bars path')].map((p) => p.style.fill)")
    patterns = [fill for fill in fills if "url" in fill]
    assert patterns
    for fill in patterns:  # patterns refer to the page by its address
        assert page.url in fill.replace("&amp;", "&"), fill


def test_an_address_can_be_sent_to_someone(page: Page, address: str, results: Path) -> None:
    runs = f"{key(results, 'sweep-b')},{key(results, 'sweep-a')}"
    query = f"?show=perf&runs={runs}&spread=tpot&stat=p90&tpot=20"
    page.goto(address + query)
    shown(page, "perf")
    expect(page.locator("#perf-stat input[value=p90]")).to_be_checked()
    expect(page.locator("#content-perf figure[data-name=distribution] figcaption")).to_have_text(
        "Distribution of TPOT"
    )
    expect(page.locator("#runs")).to_contain_text("sweep-b")
    assert page.url == address + query
    page.locator("nav.pages").get_by_role("link", name="Requests").click()
    shown(page, "requests")
    page.locator("nav.pages").get_by_role("link", name="Load").click()
    shown(page, "perf")
    expect(page.locator("#perf-stat input[value=p90]")).to_be_checked()
    page.go_back()
    shown(page, "requests")


def test_language_and_theme_are_switched_in_the_page(page: Page, address: str) -> None:
    page.goto(address + "?show=scores&cost=latency_ms")
    shown(page, "scores")
    page.get_by_role("link", name="中文").click()
    expect(page.locator("nav.pages")).to_contain_text("得分")
    shown(page, "scores")
    assert page.url == address + "zh?show=scores&cost=latency_ms"
    page.get_by_role("link", name="English").click()
    expect(page.locator("nav.pages")).to_contain_text("Scores")
    shown(page, "scores")
    ink = "getComputedStyle(document.querySelector('#content-scores figure .xtick text')).fill"
    before = page.evaluate(ink)
    page.get_by_role("button", name="light / dark").click()
    page.wait_for_function(f"{ink} !== '{before}'")
    assert page.evaluate("document.body.classList.contains('dark')")


def test_the_keyboard_is_enough(page: Page, address: str) -> None:
    page.goto(address)
    shown(page, "runs")
    link = page.locator("nav.pages").get_by_role("link", name="Scores")
    for _ in range(40):
        page.keyboard.press("Tab")
        if link.evaluate("(e) => e === document.activeElement"):
            break
    page.keyboard.press("Enter")
    shown(page, "scores")


def test_files_and_figures_are_downloaded(page: Page, address: str, results: Path, tmp_path: Path) -> None:
    run = key(results, "sweep-a")
    page.goto(f"{address}?show=about&runs={run}")
    shown(page, "about")
    for name in ("requests.csv", "summary.parquet", "manifest.json"):
        with page.expect_download() as download:
            page.locator(f'[data-download="{name}"]').click()
        target = tmp_path / name
        download.value.save_as(target)
        assert download.value.suggested_filename == f"{run}-{name}"
        if name.endswith("csv"):
            assert len(pd.read_csv(target)) == len(pd.read_parquet(results / run / "requests"))
        elif name.endswith("parquet"):
            assert len(pd.read_parquet(target)) == len(pd.read_parquet(results / run / name))
        else:
            assert json.loads(target.read_text())["run_id"] == run
    page.locator(".copy button").first.click()
    page.wait_for_function("document.querySelector('.copy button').textContent === '✓'")
    assert page.evaluate("navigator.clipboard.readText()").startswith("oss-eval perf ")
    page.goto(f"{address}?show=perf&runs={run}")
    shown(page, "perf")
    for kind, begins in (("png", b"\x89PNG"), ("svg", b"<svg")):
        with page.expect_download() as download:
            page.locator(f"figure[data-name=throughput] [data-save={kind}]").click()
        download.value.save_as(tmp_path / kind)
        assert (tmp_path / kind).read_bytes().startswith(begins)
        assert download.value.suggested_filename == f"throughput-{run}-gpt-oss-20b.{kind}"
    assert "SIMULATED" in (tmp_path / "svg").read_text()  # the picture says it too


def test_a_live_run_shows_its_progress_and_its_end_by_itself(page: Page, address: str, results: Path) -> None:
    page.goto(address)
    shown(page, "runs")
    words = "perf --url sim://gpt-oss-20b-h20?speed=2 --name live-one --parallel 4 --number 120 --max-tokens 60"
    command = [sys.executable, "-m", "oss_eval", *words.split(), "--out", str(results)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        row = page.locator("#content-runs tbody tr", has_text="live-one")
        expect(row.locator("progress")).to_be_visible(timeout=15_000)
        expect(row).to_contain_text("running")
        seen = {row.locator("progress").get_attribute("value")}
        deadline = time.monotonic() + 15
        while len(seen) < 3 and time.monotonic() < deadline and row.locator("progress").count():
            seen.add(row.locator("progress").get_attribute("value"))
            page.wait_for_timeout(200)
        assert len(seen) >= 3
        expect(row).to_contain_text("tok/s", timeout=30_000)
        assert process.wait(30) == 0
    assert row.locator("progress").count() == 0
    shutil.rmtree(results / key(results, "live-one"))


def test_a_report_works_from_a_file(page: Page, results: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    command = [
        sys.executable,
        "-m",
        "oss_eval",
        "report",
        str(results / key(results, "demo-a")),
        "-o",
        str(target),
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    page.goto(target.as_uri())
    page.wait_for_function("document.querySelectorAll('figure .main-svg:first-child').length >= 6")
    assert page.locator("a[data-go]").count() == 0
    assert page.evaluate("window.hacked") is None
    page.locator("figure details summary").first.click()
    expect(page.locator("figure details table").first).to_be_visible()
    assert "Leaderboard" in page.inner_text("body")


def test_of_links_followed_quickly_the_last_one_wins(page: Page, address: str) -> None:
    page.goto(address)
    shown(page, "runs")
    links = page.locator("nav.pages a")
    for _ in range(3):
        for place in (1, 3, 6, 0, 3):
            links.nth(place).evaluate("(link) => link.click()")
        expect(page.locator("nav.pages a[aria-current=page]")).to_have_text("Load")
        shown(page, "perf")
        page.wait_for_timeout(300)
        assert page.url.endswith("?show=perf")
        links.nth(0).click()
        page.wait_for_url("**?show=runs")
