"""A tokenizer by its name or folder, and texts of an exact number of its tokens."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


class Counter:
    """A tokenizer as two functions: tokens of a text, and a text cut to a number of tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def count(self, text: str) -> int:
        """Tokens of a text, without special tokens."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, without special tokens."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def fit(self, text: str, tokens: int) -> str:
        """The longest beginning of `text` whose encoding is at most `tokens` long."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        if len(encoding.ids) <= tokens:
            return text
        return text[: encoding.offsets[tokens - 1][1]]


def load_tokenizer(path: str) -> Counter | str:
    """A tokenizer from a folder, a tokenizer.json, or a hub id; or the reason why it can't be had."""
    from tokenizers import Tokenizer

    local = Path(path)
    file = local / "tokenizer.json" if local.is_dir() else local
    reasons: list[str] = []
    if file.is_file():
        try:
            return Counter(Tokenizer.from_file(str(file)))
        except Exception as error:  # noqa: BLE001 (the library raises bare Exception)
            return f"{file} is no tokenizer ({error})"
    for hub, fetch, site in (
        ("Hugging Face", _from_huggingface, os.environ.get("HF_ENDPOINT", "https://huggingface.co")),
        ("ModelScope", _from_modelscope, f"https://{os.environ.get('MODELSCOPE_DOMAIN', 'modelscope.cn')}"),
    ):
        if not _reachable(site):
            reasons.append(f"{hub} can't be reached")
            continue
        try:
            return Counter(Tokenizer.from_file(fetch(path)))
        except Exception as error:  # noqa: BLE001 (hub clients raise what they like)
            reasons.append(f"{hub}: {type(error).__name__}")
    return f"no such folder or file here, and not to be had from a hub ({'; '.join(reasons)})"


def _reachable(site: str) -> bool:
    """Whether a hub answers within 3 s; its client would go on trying for minutes."""
    try:
        urllib.request.urlopen(urllib.request.Request(site, method="HEAD"), timeout=3).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def _from_huggingface(name: str) -> str:
    from huggingface_hub import hf_hub_download

    return str(hf_hub_download(name, "tokenizer.json", etag_timeout=3))


def _from_modelscope(name: str) -> str:
    from modelscope.hub.file_download import model_file_download

    return str(model_file_download(name, "tokenizer.json"))
