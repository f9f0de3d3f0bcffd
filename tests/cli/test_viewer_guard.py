"""What the viewer answers to other sites, to strangers and to requests that no page of it sends."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pytest

from oss_eval.viewer.downloads import _without_formulas
from tests.helpers.browser import viewer
from tests.helpers.commands import Command
from tests.helpers.viewer_helpers import EXAMPLES


@contextlib.contextmanager
def viewer_port(folder: Path, *words: str, **env: str) -> Iterator[int]:
    """The port of a viewer."""
    with viewer(folder, *words, **env) as address:
        port = urlsplit(address).port
        assert port
        yield port


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = Path(shutil.copytree(EXAMPLES, tmp_path_factory.mktemp("guard") / "results"))
    with viewer_port(folder, "--allow-host", "results.example") as port:
        yield port


def asked(port: int, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], str]:
    """(status, headers, text) of a request with these headers, `host` among them."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.putrequest(method, path, skip_host=True)
        for name, value in {"Host": f"127.0.0.1:{port}", **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        if body:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.send(body)
        answer = connection.getresponse()
        return (
            answer.status,
            {k.lower(): v for k, v in answer.getheaders()},
            answer.read().decode("utf-8", "replace"),
        )
    finally:
        connection.close()


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:7860",
        "127.0.0.1.evil.example",
        "",
        "10.0.0.1",
        "[::2]",
        "[127.0.0.1]evil.com",
        "127.0.0.1:evil.com",
        "127.0.0.1:1:2",
    ],
)
def test_another_name_is_refused(port: int, host: str) -> None:
    for method, path in (("GET", "/"), ("GET", "/config"), ("POST", "/gradio_api/queue/join")):
        status, _, text = asked(port, method, path, b"{}" if method == "POST" else b"", Host=host)
        assert status == 403
        assert "gpt-oss" not in text


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:80", "LOCALHOST:7860", "results.example"])
def test_its_own_names_are_answered(port: int, host: str) -> None:
    status, headers, text = asked(port, "GET", "/", Host=host)
    assert (status, "oss-eval" in text) == (200, True)
    policy = headers["content-security-policy"]
    for part in ("default-src 'self'", "connect-src 'self'", "object-src 'none'", "frame-ancestors 'none'"):
        assert part in policy
    assert headers["x-content-type-options"] == "nosniff"


def test_a_page_of_another_site_sends_nothing(port: int) -> None:
    body = b'{"data": [], "fn_index": 0, "session_hash": "x"}'
    others = ["http://127.0.0.1:1", f"http://localhost:{port}", "http://127.0.0.1", "http://93.184.216.34"]
    for origin in ("http://evil.example", "null", "https://evil.example:7860", *others):
        assert asked(port, "GET", "/config", Origin=origin)[0] == 403
        assert asked(port, "POST", "/gradio_api/queue/join", body, Origin=origin)[0] == 403
    assert asked(port, "POST", "/gradio_api/queue/join", body, Origin=f"http://127.0.0.1:{port}")[0] != 403


@pytest.mark.parametrize("path", ["/gradio_api/upload", "/upload", "/gradio_api/run/predict", "/gradio_api/call/opened",
                                  "/gradio_api/cancel", "/gradio_api/reset", "/gradio_api/stream/x", "/vibe-edit",
                                  "/gradio_api/process_recording"])  # fmt: skip
def test_routes_that_the_viewer_does_not_need_are_not_there(port: int, path: str) -> None:
    boundary = b'--b\r\nContent-Disposition: form-data; name="files"; filename="x"\r\n\r\nabc\r\n--b--\r\n'
    status, _, _ = asked(port, "POST", path, boundary, Content_Type="multipart/form-data; boundary=b")
    assert status == 404
    assert asked(port, "PUT", path)[0] == 405


@pytest.mark.parametrize(
    "path",
    [
        "/monitoring",
        "/gradio_api/deep_link",
        "/openapi.json",
        "/docs",
        "/proxy=http://x/",
        "/gradio_api/proxy=http://x/",
        "/run-history/records",
        "/gradio_api/stream/a/b/c/playlist.m3u8",
    ],
)
def test_pages_that_the_viewer_does_not_need_are_not_there(port: int, path: str) -> None:
    assert asked(port, "GET", path)[0] == 404


def memory(port: int) -> int:
    """KiB resident of the process that listens on a port of ours."""
    inode = next(
        line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
    )  # fmt: skip
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):
            if any(str(link.readlink()) == f"socket:[{inode}]" for link in folder.iterdir()):
                return int((folder.parent / "status").read_text().split("VmRSS:")[1].split()[0])
    raise AssertionError("nobody listens")


def test_large_bodies_are_refused_before_they_are_read(port: int) -> None:
    if not Path("/proc/net/tcp").exists():
        pytest.skip("this system does not tell who listens")
    before = memory(port)
    for path in ("/gradio_api/queue/join", "/gradio_api/component_server", "/login"):
        with contextlib.suppress(ConnectionError):
            assert asked(port, "POST", path, b"[" * 30_000_000, Content_Type="application/json")[0] == 413
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.putrequest("POST", "/gradio_api/queue/join")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    with contextlib.suppress(OSError):
        for _ in range(60):
            connection.send(b"100000\r\n" + b"x" * 0x100000 + b"\r\n")
    connection.close()
    assert memory(port) - before < 30_000


def test_logins_are_slowed_after_five_failures(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "results")
    with viewer_port(tmp_path / "results", OSS_EVAL_VIEW_AUTH="reader:secret") as port:
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        statuses = [asked(port, "POST", "/login", b"username=reader&password=x", **form)[0] for _ in range(5)]
        assert statuses == [400] * 5
        status, headers, text = asked(port, "POST", "/login", b"username=reader&password=secret", **form)
        assert status == 429, text
        assert int(headers["retry-after"]) >= 1
        time.sleep(1.1)
        assert asked(port, "POST", "/login", b"username=reader&password=secret", **form)[0] == 200


def test_many_logins_at_once_are_slowed_too(tmp_path: Path) -> None:
    """Heads first, bodies later, and a header that claims another address for each."""
    shutil.copytree(EXAMPLES, tmp_path / "results")
    body = b"username=reader&password=x"
    with (
        viewer_port(tmp_path / "results", OSS_EVAL_VIEW_AUTH="reader:secret") as port,
        contextlib.ExitStack() as stack,
    ):
        ends = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(30)]
        for number, end in enumerate(ends):
            end.sendall(
                b"POST /login HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX-Forwarded-For: 10.0.0.%d\r\nContent-Length: %d\r\n"
                b"Content-Type: application/x-www-form-urlencoded\r\n\r\n" % (port, number, len(body))
            )
        time.sleep(0.5)
        statuses = []
        for end in ends:
            with contextlib.suppress(OSError):
                end.sendall(body)
        for end in ends:
            end.settimeout(20)
            statuses.append(int(end.recv(100).split()[1]))
        assert sorted(set(statuses)) == [400, 429]
        assert statuses.count(400) <= 5


def test_nobody_can_make_the_viewer_name_another_host(port: int) -> None:
    for name, value in (("X-Forwarded-Host", "evil.example"), ("X-Forwarded-Proto", "https")):
        status, _, text = asked(port, "GET", "/config", **{name: value})
        assert (status, "evil.example" in text, "https://127" in text) == (200, False, False)


def test_a_password_on_the_command_line_is_warned_of(oss_eval: Command, tmp_path: Path) -> None:
    (tmp_path / "auth").write_text("reader:\n")
    done = oss_eval("view", "nowhere", "--auth", "reader:secret")
    assert "others on this machine can see --auth" in done.stderr
    assert "secret" not in done.stderr
    done = oss_eval("view", "nowhere", "--auth", "@auth")
    assert "needs a user and a password" in done.stderr
    done = oss_eval("view", "nowhere", "--auth", "@missing")
    assert "can't read missing" in done.stderr


def test_no_cell_of_a_csv_file_is_a_formula() -> None:
    table = pa.table(
        {"a": ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\n=1", "1", "", None, "a=1"], "n": list(range(-5, 6))}
    )
    safe = _without_formulas(table).to_pydict()
    assert safe["a"] == ["'=1+1", "'+1", "'-1", "'@x", "'\t=1", "'\r=1", "'\n=1", "1", "", None, "a=1"]
    assert safe["n"] == list(range(-5, 6)), "numbers stay numbers"


def test_a_head_without_end_is_cut(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as end:
        end.settimeout(20)
        end.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 20_000_000:
                sent += end.send(b"X-A: " + b"a" * 8000 + b"\r\n")
                time.sleep(0.001)
        assert sent < 10_000_000, "the connection is closed"
    assert asked(port, "GET", "/")[0] == 200


def test_there_is_an_end_to_connections(port: int) -> None:
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(560)]
        time.sleep(1)
        closed = 0
        for end in ends:
            end.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                closed += end.recv(1) == b""
        assert closed >= 40
    time.sleep(0.5)
    assert asked(port, "GET", "/")[0] == 200
