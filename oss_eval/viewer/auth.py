"""Access to the viewer: from this machine only, or with a password."""

from __future__ import annotations

import os
from pathlib import Path

from oss_eval.errors import UsageError
from oss_eval.system.address import is_loopback
from oss_eval.system.files import read_file
from oss_eval.system.terminal import print_error

VARIABLE = "OSS_EVAL_VIEW_AUTH"


def checked(host: str, share: bool, auth: str | None, anonymous: bool) -> tuple[str, str] | None:
    """User and password, or None. `auth` is `--auth`: USER:PASS, or @FILE that holds it; else OSS_EVAL_VIEW_AUTH.

    Raises UsageError for access without password that was not allowed explicitly.
    """
    if auth is not None and not auth.startswith("@"):
        print_error(f"others on this machine can see --auth; put it into {VARIABLE}, or into a file: --auth @FILE")
    text = os.environ.get(VARIABLE) or None if auth is None else _content(auth)
    if text is not None:
        user, colon, password = text.partition(":")
        if not (user and colon and password):
            raise UsageError(
                "--auth needs a user and a password",
                f"for example: {VARIABLE}=reader:a-long-password oss-eval view",
            )
        return user, password
    if (share or not is_loopback(host)) and not anonymous:
        what = "--share" if share else f"--host {host}"
        raise UsageError(
            f"{what} would let anybody read these results, prompts and answers included",
            f"add --auth @FILE or set {VARIABLE}=USER:PASS, or add --allow-anonymous if that is meant",
        )
    return None


def _content(auth: str) -> str:
    if not auth.startswith("@"):
        return auth
    try:
        return read_file(Path(auth[1:]), 10_000).decode("utf-8").strip()
    except OSError as error:
        raise UsageError(f"can't read {auth[1:]}: {error.strerror}", "it holds USER:PASS") from None
    except UnicodeDecodeError:
        raise UsageError(f"{auth[1:]} is not UTF-8 text", "it holds USER:PASS") from None
