"""How the answers of a run are decoded."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from oss_eval.probe.decode import ResponseDecoder
from oss_eval.records import RequestRecord


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """Settings of the decoders of a run."""

    api: str = "chat"
    split_think: bool = False
    count_tokens: Callable[[str], int] | None = None
    urls: tuple[str, ...] = ()
    """URLs of the servers, by number."""
    most_bytes: int = sys.maxsize
    """Maximum size of a response; it is truncated there."""

    def url(self, server: int) -> str | None:
        """The URL of a server, to be stored with its requests."""
        return self.urls[server] if server < len(self.urls) else None

    def decoder(self, record: RequestRecord, **more: Any) -> ResponseDecoder:
        """A decoder for one answer."""
        return ResponseDecoder(
            record,
            count_tokens=self.count_tokens,
            api=self.api,
            split_think=self.split_think,
            most_bytes=self.most_bytes,
            **more,
        )
