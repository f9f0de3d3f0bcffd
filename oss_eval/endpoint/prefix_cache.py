"""Emptying a server's prefix cache."""

from __future__ import annotations

import http.client
import urllib.error

from oss_eval.endpoint.endpoint import Endpoint
from oss_eval.endpoint.http import get

PATHS = ("/reset_prefix_cache", "/flush_cache")
"""vLLM's (https://docs.vllm.ai, with VLLM_SERVER_DEV_MODE=1) and SGLang's (https://docs.sglang.ai)."""
TIMEOUT = 30.0


def reset_prefix_cache(endpoint: Endpoint) -> str | None:
    """Empty the prefix cache of a server; why it could not be, or None."""
    base = endpoint.base
    reasons = []
    for path in PATHS:
        try:
            get(endpoint, f"{base.scheme}://{base.netloc}{path}", TIMEOUT, b"{}")
        except urllib.error.HTTPError as error:
            reasons.append(f"{path} {error.code}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            reasons.append(f"{path} {error}")
        else:
            return None
    return f"the server does not empty its prefix cache ({', '.join(reasons)})"
