"""Access to the viewer: from this machine only, or with a password."""

from __future__ import annotations

import ipaddress

from oss_eval.errors import UsageError


def checked(host: str, share: bool, auth: str | None, anonymous: bool) -> tuple[str, str] | None:
    """User and password, or None. Raises UsageError for access without password that was not allowed
    explicitly."""
    if auth is not None:
        user, colon, password = auth.partition(":")
        if not (user and colon and password):
            raise UsageError("--auth needs a user and a password", "for example: --auth reader:a-long-password")
        return user, password
    if (share or not _loopback(host)) and not anonymous:
        what = "--share" if share else f"--host {host}"
        raise UsageError(
            f"{what} would let anybody read these results, prompts and answers included",
            "add --auth USER:PASS, or --allow-anonymous if that is meant",
        )
    return None


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
