"""The short name of a model, for tables and the names of runs."""

from __future__ import annotations

import re

_CACHED = re.compile(r"(?:^|[/\\])models--([^/\\]+)")
_PATH = re.compile(r"(?:/|\.{1,2}/|~/|[A-Za-z]:[/\\])")


def short_model_name(name: str) -> str:
    """The name without the folders of a path: a server that was given no name for its model (vLLM with a local
    folder, llama.cpp) names it by its path. A path in Hugging Face's cache gives the repository's name, and a name
    that is no path is returned as it is."""
    cached = _CACHED.search(name)
    if cached:
        return cached.group(1).replace("--", "/")
    if _PATH.match(name):
        return re.split(r"[/\\]+", name.rstrip("/\\"))[-1] or name
    return name
