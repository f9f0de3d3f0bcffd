"""EvalScope with the probe: importing this registers the model API `oss_eval` with EvalScope.

    import oss_eval.plugin
    from evalscope import run_task, TaskConfig

    run_task(TaskConfig(eval_type="oss_eval", model="m", api_url="http://gpu1:8000/v1", datasets=["ifeval"]))

Every answer then carries the probe's timings, in `message.perf_metrics` and in `metadata["oss_eval"]`.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
from typing import Any

from evalscope.api.messages import ChatMessage
from evalscope.api.model import GenerateConfig, ModelAPI, ModelOutput
from evalscope.api.registry import MODEL_APIS, register_model_api
from evalscope.api.tool import ToolChoice, ToolInfo

from oss_eval.bench.client import BenchContext, RequestFailed, SampleClient
from oss_eval.bench.concurrency import ConcurrencyLimit
from oss_eval.bench.sources.evalscope_model import model_output, request_fields
from oss_eval.config.task import MAX_RESPONSE_BYTES
from oss_eval.endpoint.adaptation import RequestAdapter
from oss_eval.endpoint.auth import Auth
from oss_eval.endpoint.endpoint import parse_url
from oss_eval.load.client import RequestClient
from oss_eval.load.workers.process import Limits
from oss_eval.probe.apis import Generation
from oss_eval.probe.decode_options import DecodeOptions

UNLIMITED = 1 << 20
"""EvalScope limits the requests in flight itself."""
RETRIES = 5


@register_model_api("oss_eval")
class EvalScopeModel(ModelAPI):  # type: ignore[misc]  # evalscope has no types
    """A model behind an OpenAI-compatible endpoint, asked through the probe."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        **model_args: Any,
    ) -> None:
        """`model_args` are fields of every request. Raises UsageError for a URL that is none."""
        super().__init__(model_name, base_url, api_key, config or GenerateConfig())
        key = None if api_key in (None, "", "EMPTY") else api_key
        self._endpoint = parse_url(base_url or "", "chat", Auth(key=key))
        self._fields = model_args
        self._lock = threading.Lock()
        self._client: RequestClient | None = None
        self._count = 0
        self._adapter = RequestAdapter()

    def _context(self) -> BenchContext:
        """The connection to the server; its process starts with the first request and ends with this one."""
        with self._lock:
            if self._client is None:
                config = self.config
                limits = Limits(5.0, config.timeout or 600.0, max(3600.0, config.timeout or 0.0))
                reading = DecodeOptions(most_bytes=MAX_RESPONSE_BYTES)
                self._client = RequestClient(
                    "evalscope", (self._endpoint.target(),), limits, reading, self._endpoint.secrets
                )
                atexit.register(self.close)
            self._count += 1
            retries = RETRIES if self.config.retries is None else self.config.retries
            return BenchContext(
                self._client,
                ConcurrencyLimit(UNLIMITED),
                retries,
                self.model_name,
                "evalscope",
                adapter=self._adapter,
            )

    def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """An answer with its timings. Raises RuntimeError for a request that failed for good."""
        context = self._context()
        wanted = Generation(self.model_name, extra=tuple(self._fields.items()))
        client = SampleClient(context, "evalscope", str(self._count), "", 1, wanted)
        try:
            answer = client.ask(request_fields(self.model_name, input, tools, tool_choice, config))
        except RequestFailed as error:
            raise RuntimeError(f"{self._endpoint.url}: {error.record.error_kind}: {error}") from None
        return model_output(self.model_name, answer, tools)

    def close(self) -> None:
        """End the worker process."""
        with self._lock, contextlib.suppress(OSError):
            if self._client is not None:
                self._client.close()
            self._client = None


def take_over() -> None:
    """Send the requests of EvalScope's own `openai_api` through the probe too: its command knows no other name."""
    MODEL_APIS["openai_api"] = EvalScopeModel
