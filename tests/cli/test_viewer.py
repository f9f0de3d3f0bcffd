"""The viewer's rooms without a browser: addresses, the library, texts, figures, comparisons, files, reports."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from oss_eval.viewer.html_report import PLOTLY
from tests.helpers.commands import ROOT, Command
from tests.helpers.viewer_helpers import EXAMPLES, named


def test_the_command_says_what_is_wrong(oss_eval: Command, tmp_path: Path) -> None:
    done = oss_eval("view")
    assert (done.returncode, "results is no folder" in done.stderr) == (2, True)
    done = oss_eval("view", "--host", "0.0.0.0")
    assert (done.returncode, "--auth @FILE" in done.stderr) == (2, True)


def test_the_viewer_imports_no_evalscope() -> None:
    code = "import sys, oss_eval.viewer.app; print([m for m in sys.modules if m.startswith(('evalscope', 'datasets.'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.strip().endswith("[]"), done.stdout + done.stderr


@pytest.mark.parametrize(("part", "language"), [("demo-a", "en"), ("sweep-a", "zh")])
def test_a_report_is_one_file_that_needs_nothing(
    oss_eval: Command, tmp_path: Path, part: str, language: str
) -> None:
    done = oss_eval("report", str(EXAMPLES / named(part)), "-o", "r.html", "--lang", language)
    assert (done.returncode, done.stderr) == (0, "written to r.html\n")
    text = (tmp_path / "r.html").read_text()
    assert "default-src 'none'" in text
    assert "data-go" not in text.replace("a[data-go]", "")
    body = text[: text.index("<script>")]
    assert not re.search(r'(src|href)="', body)
    sheets = json.loads(re.search(r"^const sheets = (.*);$", text, re.M).group(1))  # type: ignore[union-attr]
    assert len(sheets) == 3
    assert sum(len(sheet["figures"]) for sheet in sheets) >= 6


def test_a_report_of_nothing_is_an_error(oss_eval: Command, tmp_path: Path) -> None:
    run = tmp_path / "results" / "r1"
    run.mkdir(parents=True)
    manifest = {"schema_version": 1, "run_id": "r1", "status": "failed", "kind": "perf"}
    (run / "manifest.json").write_text(json.dumps(manifest))
    done = oss_eval("report", "r1")
    assert (done.returncode, "holds nothing to report" in done.stderr) == (2, True)
    done = oss_eval("report", str(EXAMPLES / named("sweep-a")), "-o", "no/such/folder/r.html")
    assert (done.returncode, "can't write" in done.stderr) == (2, True)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a viewer that asks for a password, and its folder."""
    folder = Path(shutil.copytree(EXAMPLES, tmp_path_factory.mktemp("guarded") / "results"))
    command = [sys.executable, "-m", "oss_eval", "view", str(folder)]
    env = {**os.environ, "OSS_EVAL_VIEW_AUTH": "reader:secret"}
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=env) as process:
        assert process.stderr is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/", process.stderr.readline())
        assert found
        yield found.group(), folder
        process.terminate()
        assert process.wait(15) == 0


def got(address: str, cookie: str = "", body: bytes | None = None) -> tuple[int, str]:
    request = urllib.request.Request(address, body, {"Cookie": cookie})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, response.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace")


def test_without_the_password_nothing_is_told(guarded: tuple[str, Path]) -> None:
    address, folder = guarded
    key = named("demo-a")
    for path in ("config", f"gradio_api/file={folder / key / 'manifest.json'}", "gradio_api/info"):
        status, text = got(address + path)
        assert status in (401, 403, 404), path
        assert "gpt-oss" not in text
    for path in ("", "zh", "login"):
        status, text = got(address + path)
        assert "gpt-oss" not in text
        assert key not in text
    body = json.dumps(
        {"component_id": 1, "fn_name": "download", "data": [key, "manifest.json"], "session_hash": "x"}
    )
    status, text = got(address + "gradio_api/component_server", body=body.encode())
    assert status in (401, 403)
    assert got(address + "login", body=b"username=reader&password=wrong")[0] == 400


def test_only_what_is_offered_can_be_fetched(guarded: tuple[str, Path]) -> None:
    address, folder = guarded
    request = urllib.request.Request(address + "login", b"username=reader&password=secret")
    with urllib.request.urlopen(request, timeout=20) as response:
        cookie = "; ".join(value.split(";")[0] for value in response.headers.get_all("Set-Cookie"))
    assert "oss-eval" in got(address, cookie)[1]
    for path in ("/etc/passwd", folder / named("demo-a") / "manifest.json", ROOT / "pyproject.toml", folder):
        assert got(f"{address}gradio_api/file={path}", cookie)[0] in (403, 404), path
        assert got(f"{address}gradio_api/file={ROOT}/oss_eval/viewer/assets/../../../pyproject.toml", cookie)[
            0
        ] in (403, 404)
    status, text = got(f"{address}gradio_api/file={PLOTLY}", cookie)
    assert (status, "plotly.js" in text[:300]) == (200, True)
