"""The flags of a command, made from the settings' fields, and the settings of the command itself."""

from __future__ import annotations

import argparse
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo

from oss_eval.config.fields import ENDPOINT, GROUPS, LIMITS, RESULTS, Flag, Positive
from oss_eval.config.task import Task
from oss_eval.results.mirror import results_folder


class CommandSettings(BaseModel):
    """Settings of a command that are no part of a task. They are typed or come from a named endpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class EndpointSettings(CommandSettings):
    """How a server is authenticated."""

    endpoint: Annotated[str | None, Flag(ENDPOINT, "NAME")] = None
    """a named endpoint from endpoints.yaml; flags override it"""
    api_key: Annotated[str | None, Flag(ENDPOINT)] = None
    """better given as OPENAI_API_KEY or AZURE_OPENAI_API_KEY: other users of the machine can see a flag"""
    api_key_header: Annotated[str | None, Flag(ENDPOINT, "NAME")] = None
    """header of the key (default: api-key on Azure, else Authorization)"""
    header: Annotated[tuple[str, ...], Flag(ENDPOINT, "K:V", repeated=True)] = ()
    """another header; $NAME as value is read from the environment"""
    entra: Annotated[bool, Flag(ENDPOINT)] = False
    """use a Microsoft Entra ID token instead of a key (Azure)"""
    ca_bundle: Annotated[str | None, Flag(ENDPOINT, "FILE")] = None
    """certificates to trust"""
    insecure: Annotated[bool, Flag(ENDPOINT)] = False
    """trust any certificate"""


class RunSettings(CommandSettings):
    """Where a run is stored, what it is called, and what is printed."""

    grace: Annotated[float, Field(ge=0, lt=float("inf")), Flag(LIMITS, "S")] = 10.0
    """seconds for requests in flight after Ctrl-C or SIGTERM"""

    out: Annotated[
        Path,
        BeforeValidator(results_folder),
        Flag(RESULTS, "DIR|URL", aliases=("--outputs-dir",), as_text=True, show_default=False),
    ] = Path("results")
    """results folder (default results/), or a place in an object store, e.g. s3://BUCKET/results"""
    name: Annotated[str | None, Flag(RESULTS)] = None
    """name of the run"""
    label: Annotated[tuple[str, ...], Flag(RESULTS, "KEY=VALUE", repeated=True)] = ()
    """stored with the run; may be repeated"""
    json_: Annotated[bool, Flag(RESULTS)] = False
    """print one JSON document on standard output, and everything else on standard error"""
    private: Annotated[bool, Flag(RESULTS)] = False
    """make files that no other user of this machine can read (0600)"""
    log_every_n_query: Annotated[Positive | None, Flag(RESULTS, "N")] = None
    """print a progress line every N requests (perf) or samples (bench)"""


def flags(model: type[BaseModel]) -> dict[str, tuple[Flag, FieldInfo]]:
    """The fields of a model that are flags; its own before those that it inherits."""
    own = [name for name in model.model_fields if name in model.__annotations__]
    return {
        name: (flag, field)
        for name, field in sorted(model.model_fields.items(), key=lambda item: item[0] not in own)
        for flag in field.metadata
        if isinstance(flag, Flag)
    }


def task_settings(model: type[Task], arguments: argparse.Namespace) -> dict[str, Any]:
    """The task's settings among the arguments that were given."""
    given = vars(arguments)
    return {name: given[name] for name in flags(model) if name in given}


def add_flags(
    parser: argparse.ArgumentParser,
    *models: type[BaseModel],
    without: Iterable[str] = (),
    only: Iterable[str] | None = None,
    choices: dict[str, tuple[str, ...]] | None = None,
) -> None:
    """Add a flag for each field of the models that has one, grouped as the fields say.

    `only` names groups or fields, `without` fields; `choices` replace those of a field.
    """
    wanted = [
        (name, flag, field)
        for model in models
        for name, (flag, field) in flags(model).items()
        if name not in without and (only is None or name in only or flag.group in only)
    ]
    for title in GROUPS:
        fields = [one for one in wanted if one[1].group == title]
        group = parser.add_argument_group(title) if fields else None
        for name, flag, field in fields:
            assert group is not None
            _add_flag(group, name, flag, field, (choices or {}).get(name))


def _add_flag(
    group: argparse._ArgumentGroup, name: str, flag: Flag, field: FieldInfo, choices: tuple[str, ...] | None
) -> None:
    name = name.rstrip("_")
    short = [alias for alias in flag.aliases if not alias.startswith("--")]
    spellings = [*short, f"--{name.replace('_', '-')}", *(a for a in flag.aliases if a.startswith("--"))]
    settings: dict[str, Any] = {"dest": name, "help": _help(flag, field)}
    kind, many = _kind(field.annotation)
    if kind is bool:
        settings["action"] = argparse.BooleanOptionalAction if field.default is True else "store_true"
    else:
        if many and not flag.as_text:
            settings |= {"action": "append"} if flag.repeated else {"nargs": "+"}
        if flag.metavar:
            settings["metavar"] = flag.metavar
        if choices or isinstance(kind, tuple):
            settings["choices"] = choices or kind
        elif kind is not str and not flag.as_text:
            settings["type"] = kind
    group.add_argument(*spellings, **settings)


def _help(flag: Flag, field: FieldInfo) -> str:
    text = " ".join((field.description or "").split()).replace("%", "%%")
    default = field.default
    if not flag.show_default or field.default_factory or default is None or default is False or default == ():
        return text
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{text} (default {f'{shown:g}' if isinstance(shown, float) else shown})"


def _kind(annotation: Any) -> tuple[Any, bool]:
    """(argparse's type, or the tuple of allowed words; whether there are several values) of an annotation."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(inner[0])
    if origin in (Union, types.UnionType):
        kinds = [_kind(one)[0] for one in inner if one is not type(None)]
        if ("auto",) in kinds:
            return number_or_auto, False
        if str in kinds:
            return str, False
        return _kind(next(one for one in inner if one is not type(None)))
    if origin is Literal:
        return inner, False
    if origin is tuple:
        return _kind(inner[0])[0], True
    if origin is dict:
        return str, False
    return annotation, False


def share(text: str, zero: bool = False, one: bool = False) -> float:
    """argparse: a number between 0 and 1; `zero`, `one`: whether it may be that."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (0 < value < 1 or (zero and value == 0) or (one and value == 1)):
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def number_or_auto(text: str) -> int | str:
    """argparse: N|auto, and what the field itself checks."""
    if text == "auto" or text.startswith("ray"):
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor auto") from None


def add_out(parser: argparse.ArgumentParser) -> None:
    """`--out DIR|URL`: where stored runs are."""
    parser.add_argument(
        "--out", type=results_folder, default=Path("results"), metavar="DIR|URL",
        help="results folder (default results/), or a place in an object store, e.g. s3://BUCKET/results",
    )  # fmt: skip


def add_assert(parser: argparse.ArgumentParser, example: str) -> None:
    """`--assert CONDITION ...`."""
    parser.add_argument(
        "--assert", dest="assertions", nargs="+", action="extend", metavar="CONDITION",
        help=f"exit 1 if a figure is certain not to be so at some point, 3 if undecided; e.g. {example}",
    )  # fmt: skip
