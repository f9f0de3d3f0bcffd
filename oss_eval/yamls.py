"""YAML that somebody else may have written: data and nothing else, of a size that a person can have meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from oss_eval.errors import OssEvalError

MOST_BYTES = 1_000_000
MOST_VALUES = 20_000
"""With every alias written out: a file of a few lines can stand for more values than there are atoms."""


class _Loader(yaml.SafeLoader):
    """YAML's data types, counted while they are read: what expands is refused before it has."""

    count = 0

    def _counted(self, more: int) -> None:
        self.count += more
        if self.count > MOST_VALUES:
            raise yaml.YAMLError(f"more than {MOST_VALUES:,} values, aliases written out")

    def compose_node(self, parent: Any, index: Any) -> Any:
        """PyYAML: one value, or an alias of one."""
        self._counted(1)
        return super().compose_node(parent, index)

    def flatten_mapping(self, node: Any) -> None:
        """PyYAML: a mapping with what `<<` brings in."""
        super().flatten_mapping(node)
        self._counted(len(node.value))

    def construct_yaml_int(self, node: Any) -> Any:
        """PyYAML: an integer; 1:1:1:... is one to it too, of as many digits as somebody likes."""
        if len(node.value) > 100:
            raise ValueError("an integer of more than 100 digits")
        return super().construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def read_yaml(path: Path, error: type[OssEvalError], what: str) -> Any:
    """What a YAML file holds; `what` is what it is called. Raises `error`, whatever is wrong with it."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        text = content.decode("utf-8")
    except OSError as problem:
        raise error(f"can't read {what} {path}: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise error(f"{what} {path} is not UTF-8 text") from None
    if len(content) > MOST_BYTES:
        raise error(f"{what} {path} is larger than {MOST_BYTES:,} bytes")
    try:
        values = yaml.load(text, _Loader)  # a SafeLoader: nothing but data
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        words = getattr(problem, "problem", None) or str(problem).partition("\n")[0]
        raise error(f"{what} {path} is not valid YAML{where}: {words}") from None
    except RecursionError:
        raise error(f"{what} {path} is nested too deeply") from None
    except (ValueError, OverflowError) as problem:  # dates and numbers that are none
        raise error(f"{what} {path} holds a value that can't be read: {problem}") from None
    if _values(values) > MOST_VALUES:
        raise error(f"{what} {path} holds more than {MOST_VALUES:,} values, its aliases written out")
    return values


def _values(value: Any) -> int:
    """How many values there are in all, counted up to MOST_VALUES."""
    count, left = 0, [value]
    while left and count <= MOST_VALUES:
        count += 1
        one = left.pop()
        if isinstance(one, dict):
            left += [*one, *one.values()]
        elif isinstance(one, (list, tuple, set)):
            left += one
    return count
