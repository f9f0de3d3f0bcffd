"""The Gradio application: the pages in each language, with a URL that always names what is shown."""

from __future__ import annotations

import hmac
import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware
from uvicorn import Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from oss_eval.errors import UsageError
from oss_eval.viewer.assets import ASSETS, PLOTLY
from oss_eval.viewer.connections import LimitedConnection
from oss_eval.viewer.guard import Guard
from oss_eval.viewer.i18n import LANGUAGES
from oss_eval.viewer.layout import build_page
from oss_eval.viewer.run_index import RunIndex


def serve(
    folders: Sequence[Path],
    host: str,
    port: int | None,
    language: str,
    share: bool,
    auth: tuple[str, str] | None,
    names: list[str],
    announce: Callable[[str, str | None], None],
) -> None:
    """Show the runs of some folders until interrupted; `names` are more names of this server (`--allow-host`).

    Raises UsageError where the address can't be used.
    """
    run_index = RunIndex(folders)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    for name in ("NO_PROXY", "no_proxy"):  # Gradio asks its own server once, which no proxy can reach
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1,localhost", host)))
    os.environ["FORWARDED_ALLOW_IPS"] = ""  # uvicorn: a client's address is what it is, whatever a header says
    with tempfile.TemporaryDirectory(prefix="oss-eval-view-") as scratch:
        demo = build(run_index, language, Path(scratch))
        gr.set_static_paths([str(ASSETS), str(PLOTLY.parent)])
        demo.queue(default_concurrency_limit=8)
        try:
            _, local, public = demo.launch(
                server_name=host,
                server_port=port,
                share=share,
                auth=None if auth is None else partial(_login, auth),
                app_kwargs={"middleware": [Middleware(Guard, host=host, extra=names, share=share)]},
                quiet=True,
                prevent_thread_lock=True,
                ssr_mode=False,
                show_error=True,
                footer_links=[],
                allowed_paths=[scratch],
                enable_monitoring=False,
                theme=_theme(),
                css=(ASSETS / "page.css").read_text(encoding="utf-8") + PAGE_CSS,
                head=_head(),
            )
        except (OSError, OverflowError, ValueError) as error:
            where = host if port is None else f"{host}:{port}"
            reason = str(error).splitlines()[0]
            raise UsageError(f"can't serve on {where}: {reason}", "choose another --port or --host") from None
        if isinstance(demo.server, Server) and demo.server.config.http_protocol_class is HttpToolsProtocol:
            demo.server.config.http_protocol_class = LimitedConnection  # for each connection from now on
        announce(local, public)
        try:
            while True:
                time.sleep(3600)
        finally:
            demo.close(verbose=False)


def _login(known: tuple[str, str], user: str, password: str) -> bool:
    """Whether a login is right; takes the same time for every wrong one."""
    right = [hmac.compare_digest(a.encode(), b.encode()) for a, b in zip(known, (user, password), strict=True)]
    return all(right)


PAGE_CSS = """
.gradio-container { max-width: 1500px !important; width: 100%; margin: 0 auto; }
.gradio-container > main, .gradio-container .wrap > main { width: 100%; max-width: 1500px; }
.gradio-container ul.shown { margin: 4px 0 6px; padding-left: 18px; list-style: disc; }
footer, .nav-holder { display: none !important; }
"""


def _theme() -> gr.themes.ThemeClass:
    """Fonts of this machine, and texts dark enough to read (WCAG 2.2, 1.4.3)."""
    theme = gr.themes.Default(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    return theme.set(
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
    )


def _head() -> str:
    """Our scripts, from this machine: nothing is loaded from other servers."""
    script = (ASSETS / "page.js").read_text(encoding="utf-8")
    return f'<script>{script}</script><script defer src="gradio_api/file={PLOTLY}"></script>'


def build(run_index: RunIndex, language: str, scratch: Path) -> gr.Blocks:
    """The application: the given language at `/`, the other one at its own path."""
    other = next(code for code in LANGUAGES if code != language)
    demo: gr.Blocks
    with gr.Blocks(title="oss-eval", analytics_enabled=False) as demo:
        gr.components.Navbar(visible=False)
        build_page(run_index, language, other, scratch)
    with demo.route(other, f"/{other}", show_in_navbar=False):
        build_page(run_index, other, ".", scratch)
    return demo
