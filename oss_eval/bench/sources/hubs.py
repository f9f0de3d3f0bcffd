"""Where a benchmark's data comes from: a local copy, or a hub that answers."""

from __future__ import annotations

import os
import socket
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from oss_eval.errors import TaskError

HOSTS = {"modelscope": "https://www.modelscope.cn", "huggingface": "https://huggingface.co"}
NAMES = {"modelscope": "ModelScope", "huggingface": "Hugging Face"}
REACH_SECONDS = 2.0
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


def order(hub: str) -> list[str]:
    """The hubs to try: the one named, or EvalScope's own order."""
    return ["modelscope", "huggingface"] if hub == "auto" else [hub]


def unreachable(hub: str) -> str | None:
    """None when the hub, or the proxy on the way to it, takes connections; else why it does not.

    The hubs' own clients take 15 s and more to find out.
    """
    address = os.environ.get("HF_ENDPOINT" if hub == "huggingface" else "MODELSCOPE_ENDPOINT", HOSTS[hub])
    host = urlsplit(address).hostname or ""
    proxy = urllib.request.getproxies().get("https")
    if proxy and not urllib.request.proxy_bypass(host):
        address = proxy if "://" in proxy else f"http://{proxy}"
        host = urlsplit(address).hostname or ""
    port = urlsplit(address).port or (443 if address.startswith("https") else 80)
    try:
        socket.create_connection((host, port), REACH_SECONDS).close()
    except OSError as error:
        return f"can't reach {host}: {error.strerror or 'no answer in time'}"
    return None


def source_of(given: Path, name: str) -> Path:
    """The file or folder of one benchmark in what was given for all."""
    source = given.expanduser()
    return source / name if (source / name).is_dir() else source


def local_folder(given: Path, name: str, scratch: Path, splits: list[str], subsets: list[str]) -> list[str]:
    """Fill `scratch` with a dataset as `datasets` reads it, made of links to a user's file or folder, which is
    only read; the subsets that were found.

    A folder may hold one for each benchmark, by its name. Files are named for their split (test.jsonl,
    test-*.parquet), in a folder for each subset or with the subset in front (SUBSET_test.csv) where there are
    several. Raises TaskError saying what was looked for.
    """
    source = source_of(given, name)
    if source.is_file():
        if source.suffix not in SUFFIXES:
            raise TaskError(f"--data {given}: no data file", f"its name must end in one of {', '.join(SUFFIXES)}")
        files = {subset: {splits[0]: [source]} for subset in subsets[:1]}
    elif source.is_dir():
        files = {subset: _splits(source, subset, splits, len(subsets) == 1) for subset in subsets}
    else:
        raise TaskError(f"--data {given}: there is no such file or folder", "check the path")
    found = {subset: by_split for subset, by_split in files.items() if splits[0] in by_split}
    if not found:
        named = f"{subsets[0]}/{splits[0]}" if len(subsets) > 1 else splits[0]
        raise TaskError(
            f"--data {given} has no data of {name}: no {named}.jsonl in {source}",
            f"data files are named for their split and end in {', '.join(SUFFIXES)}; --data can name a file too",
        )
    configs = []
    for number, (subset, by_split) in enumerate(found.items()):
        data_files = []
        for split, paths in by_split.items():
            links = [scratch / f"{number}-{split}-{place}{path.suffix}" for place, path in enumerate(paths)]
            for link, path in zip(links, paths, strict=True):
                link.symlink_to(path.resolve())
            data_files.append({"split": split, "path": [link.name for link in links]})
        configs.append({"config_name": subset, "data_files": data_files})
    # Read by `datasets`: https://huggingface.co/docs/datasets/repository_structure
    (scratch / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n", encoding="utf-8")
    return list(found)


def _splits(source: Path, subset: str, splits: list[str], single: bool) -> dict[str, list[Path]]:
    """Split -> its files, for one subset in a folder."""
    places = [(source / subset, ""), (source, f"{subset}_"), (source, f"{subset}-")]
    if single:
        places.append((source, ""))
    found: dict[str, list[Path]] = {}
    for split in splits:
        for folder, prefix in places:
            paths = [folder / f"{prefix}{split}{suffix}" for suffix in SUFFIXES]
            paths = [path for path in paths if path.is_file()][:1]
            paths = paths or sorted(folder.glob(f"{prefix}{split}-*.parquet"))
            if paths:
                found[split] = paths
                break
    return found
