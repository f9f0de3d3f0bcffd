"""Named endpoints from endpoints.yaml."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from oss_eval.config.yaml_file import read_yaml
from oss_eval.endpoint.auth import Auth, named_header
from oss_eval.errors import UsageError

PROFILE_FILES = (Path("endpoints.yaml"), Path("~/.config/oss-eval/endpoints.yaml"))


PROFILE_KEYS = {
    "url", "model", "api", "effort_style", "extra_args", "api_key_env", "api_key_header", "headers", "entra",
    "ca_bundle", "insecure", "prices", "gpu_price", "labels",
}  # fmt: skip


TASK_KEYS = ("url", "model", "api", "effort_style", "extra_args")
"""Keys of a profile that are keys of a task too."""
PERF_KEYS = (*TASK_KEYS, "gpu_price")
"""The same for load sweeps."""


def profile(name: str) -> dict[str, Any]:
    """A named endpoint from ./endpoints.yaml or ~/.config/oss-eval/endpoints.yaml, whichever has it first.

    Raises UsageError that lists the names, or for an unknown key.
    """
    known: list[str] = []
    for place in PROFILE_FILES:
        path = place.expanduser()
        if not path.is_file():
            continue
        names = read_yaml(path, UsageError, "the endpoints file")
        if not isinstance(names, dict) or not all(isinstance(value, dict) for value in names.values()):
            raise UsageError(f"{path} must hold `name:` with keys below it", "docs/endpoints.md has an example")
        known += map(str, names)
        if name in names:
            return _checked(name, names[name], path)
    looked = " and ".join(str(place) for place in PROFILE_FILES)
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    there = f"there are: {', '.join(known)}" if known else f"there is none: {looked} hold them"
    raise UsageError(f"unknown endpoint {name!r}", hint + there)


def _checked(name: str, values: dict[str, Any], path: Path) -> dict[str, Any]:
    values = {str(key).replace("-", "_"): value for key, value in values.items()}
    unknown = sorted(set(values) - PROFILE_KEYS)
    if unknown:
        near = get_close_matches(unknown[0], PROFILE_KEYS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(PROFILE_KEYS))}"
        if unknown[0] in ("api_key", "key"):
            hint = "keys don't belong into files: `api_key_env: NAME` names the environment variable that holds it"
        raise UsageError(f"{path}: {name}: unknown key {unknown[0]!r}", hint)
    if "url" not in values:
        raise UsageError(f"{path}: {name} has no url")
    return values


def profile_access(name: str, values: dict[str, Any]) -> Auth:
    """The authentication of a named endpoint. Raises UsageError for a variable that is not set."""
    key = None
    if values.get("api_key_env"):
        key = os.environ.get(str(values["api_key_env"]))
        if not key:
            raise UsageError(f"endpoint {name}: the environment variable {values['api_key_env']} is not set")
    headers = values.get("headers") or {}
    for key_name in ("headers", "labels", "prices"):
        if not isinstance(values.get(key_name) or {}, dict):
            raise UsageError(f"endpoint {name}: `{key_name}` must be NAME: VALUE lines")
    for flag in ("entra", "insecure"):
        if not isinstance(values.get(flag, False), bool):
            raise UsageError(f"endpoint {name}: `{flag}` is true or false")
    return Auth(
        key=key,
        key_header=values.get("api_key_header"),
        headers=tuple(named_header(str(name), str(value)) for name, value in headers.items()),
        entra=bool(values.get("entra", False)),
        ca_bundle=values.get("ca_bundle"),
        insecure=bool(values.get("insecure", False)),
    )
