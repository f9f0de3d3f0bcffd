"""From parsed arguments to the options of a run."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any, TypeVar

from oss_eval.cli.options import CommandSettings, EndpointSettings, RunSettings, flags
from oss_eval.config.task import validated
from oss_eval.endpoint import profiles
from oss_eval.endpoint.auth import Auth, header
from oss_eval.errors import UsageError
from oss_eval.run.options import RunOptions

S = TypeVar("S", bound=CommandSettings)


def run_options(arguments: argparse.Namespace) -> tuple[RunOptions, dict[str, Any]]:
    """The options of a run, and the settings of its task that a named endpoint sets. Raises UsageError."""
    endpoint, run = _settings(EndpointSettings, arguments), _settings(RunSettings, arguments)
    if run.private:
        os.umask(0o077)  # for the files of the simulator and the workers too
    profile: dict[str, Any] = {} if endpoint.endpoint is None else profiles.profile(endpoint.endpoint)
    options = RunOptions(
        out=run.out,
        name=run.name,
        labels={**{str(k): str(v) for k, v in (profile.get("labels") or {}).items()}, **labels(run.label)},
        auth=_auth(endpoint, profile),
        profile=endpoint.endpoint,
        prices=profile.get("prices"),
        log_every=run.log_every_n_query,
        grace=run.grace,
    )
    keys = profiles.PERF_KEYS if arguments.command == "perf" else profiles.TASK_KEYS
    return options, {key: profile[key] for key in keys if key in profile}


def _settings(kind: type[S], arguments: argparse.Namespace) -> S:
    given = {key: value for key, value in vars(arguments).items() if value is not None}
    values = {name: given[name.rstrip("_")] for name in flags(kind) if name.rstrip("_") in given}
    return validated(kind, values, f"oss-eval {arguments.command}")


def _auth(endpoint: EndpointSettings, profile: dict[str, Any]) -> Auth:
    """The profile's authentication, with what was given as flags instead."""
    base = profiles.profile_access(str(endpoint.endpoint), profile) if profile else Auth()
    given = endpoint.model_dump(exclude_unset=True)
    if "api_key" in given:
        sys.stderr.write("oss-eval: --api-key can be seen by others on this machine; OPENAI_API_KEY can't\n")
    return Auth(
        key=given.get("api_key", base.key),
        key_header=given.get("api_key_header", base.key_header),
        headers=(*base.headers, *map(header, endpoint.header)),
        entra=given.get("entra", base.entra),
        ca_bundle=given.get("ca_bundle", base.ca_bundle),
        insecure=given.get("insecure", base.insecure),
    )


def labels(pairs: tuple[str, ...]) -> dict[str, str]:
    """`--label KEY=VALUE`, several times. Raises UsageError."""
    result = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise UsageError(f"--label {pair!r} is not KEY=VALUE", "for example: --label gpu=H100")
        result[key] = value
    return result
