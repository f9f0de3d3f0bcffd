"""EvalScope's benchmarks by name and in a few words, from the files it ships: nothing of it is imported."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path


def _folder() -> Path | None:
    spec = find_spec("evalscope")
    locations = spec.submodule_search_locations if spec else None
    return Path(next(iter(locations))) / "benchmarks" if locations else None


def names() -> list[str]:
    """All names."""
    folder = _folder()
    if folder is None:
        return []
    return sorted(json.loads((folder / "_index.json").read_text(encoding="utf-8")))


def described() -> dict[str, str]:
    """Name -> its title and what it is about."""
    folder = _folder()
    found: dict[str, str] = {}
    for name in names():
        text = ""
        if folder is not None and (folder / "_meta" / f"{name}.json").is_file():
            meta = json.loads((folder / "_meta" / f"{name}.json").read_text(encoding="utf-8"))
            meta = meta.get("meta", meta)
            tags = ", ".join(meta.get("tags") or [])
            text = f"{meta.get('pretty_name') or ''}{f' ({tags})' if tags else ''}"
        found[name] = text
    return found
