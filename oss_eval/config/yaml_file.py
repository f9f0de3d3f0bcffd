"""YAML files that somebody else may have written: plain data only, and of a bounded size."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from oss_eval.errors import OssEvalError
from oss_eval.system.files import read_file

MAX_BYTES = 1_000_000
MAX_VALUES = 20_000
"""Counted with every alias expanded: a file of a few lines can stand for billions of values."""
MAX_DEPTH = 100
"""Of nested lists and mappings: the parser's time grows with the square of the depth."""
MAX_INTEGER_CHARACTERS = 100
_INTEGER = re.compile(r"[-+]?[0-9][0-9a-fA-F_xob:]*")


def read_yaml(path: Path, error: type[OssEvalError], what: str) -> Any:
    """The content of a YAML file as plain data; `what` names the file's purpose in messages.

    Raises `error` when the file can't be read, is not YAML, or is larger than the limits of this module.
    """
    try:
        text = read_file(path, MAX_BYTES).decode("utf-8")
    except OSError as problem:
        raise error(f"can't read {what} {path}: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise error(f"{what} {path} is not UTF-8 text") from None
    try:
        _check_size(text)
        return yaml.safe_load(text)
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        position = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = getattr(problem, "problem", None) or str(problem).partition("\n")[0]
        raise error(f"{what} {path} is not valid YAML{position}: {reason}") from None
    except RecursionError:
        raise error(f"{what} {path} is nested too deeply") from None
    except (ValueError, OverflowError) as problem:  # dates and numbers outside their range
        raise error(f"{what} {path} holds a value that can't be read: {problem}") from None


def _check_size(text: str) -> None:
    """Refuse what is small as a file and large as data, before any of it is built.

    Counts the parser's events: an alias, also one that a `<<` merge uses, counts as all values of its anchor.
    Raises yaml.YAMLError or ValueError.
    """
    count = 0
    anchored: dict[str, int] = {}  # values under each anchor that is complete
    open_nodes: list[tuple[str | None, int]] = []  # anchor, and the count when the collection began
    open_anchors: set[str | None] = set()
    for event in yaml.parse(text, yaml.SafeLoader):
        match event:
            case yaml.AliasEvent():
                if event.anchor in open_anchors:
                    raise yaml.YAMLError(f"the alias *{event.anchor} stands inside the value that it names")
                count += anchored.get(str(event.anchor), 1)
            case yaml.ScalarEvent():
                _check_integer(event)
                count += 1
                if event.anchor:
                    anchored[event.anchor] = 1
            case yaml.CollectionStartEvent():
                open_nodes.append((event.anchor, count))
                open_anchors |= {event.anchor} - {None}
                count += 1
                if len(open_nodes) > MAX_DEPTH:
                    raise RecursionError
            case yaml.CollectionEndEvent():
                anchor, before = open_nodes.pop()
                if anchor:
                    open_anchors.discard(anchor)
                    anchored[anchor] = count - before
        if count > MAX_VALUES:
            raise yaml.YAMLError(f"more than {MAX_VALUES:,} values with all aliases expanded")


def _check_integer(event: yaml.ScalarEvent) -> None:
    """Refuse an integer whose conversion takes quadratic time; 1:1:1 is one in YAML 1.1 too."""
    plain = event.implicit[0] or (event.tag or "").endswith(":int")
    if plain and len(event.value) > MAX_INTEGER_CHARACTERS and _INTEGER.fullmatch(event.value):
        raise ValueError(f"an integer of more than {MAX_INTEGER_CHARACTERS} digits")
