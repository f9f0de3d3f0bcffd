"""The simulator's /metrics, with vLLM's names (https://docs.vllm.ai/en/latest/usage/metrics/)."""

from __future__ import annotations

from oss_eval.simulator.truth_log import TruthRow


class ServerMetrics:
    """Counts what the truth log has one by one."""

    def __init__(self, model: str) -> None:
        self._label = f'{{engine="0",model_name="{model}"}}'
        self._sums = {"time_to_first_token_seconds": 0.0, "e2e_request_latency_seconds": 0.0}
        self._answers = self._prompt_tokens = self._tokens = 0

    def add(self, truth: TruthRow) -> None:
        """An answer is complete."""
        if not truth.token_ns:
            return
        first = truth.token_ns[truth.chunk_tokens[0] - 1 if truth.chunk_tokens else 0]
        self._sums["time_to_first_token_seconds"] += (first - truth.received_ns) / 1e9
        self._sums["e2e_request_latency_seconds"] += (truth.token_ns[-1] - truth.received_ns) / 1e9
        self._answers += 1
        self._prompt_tokens += truth.prompt_tokens
        self._tokens += len(truth.token_ns)

    def text(self, running: int, waiting: int) -> bytes:
        """Prometheus text."""
        values: dict[str, float] = {
            "num_requests_running": running, "num_requests_waiting": waiting,
            "prompt_tokens_total": self._prompt_tokens, "generation_tokens_total": self._tokens,
        }  # fmt: skip
        for name, total in self._sums.items():
            values |= {f"{name}_sum": total, f"{name}_count": self._answers}
        return "".join(f"vllm:{name}{self._label} {value}\n" for name, value in values.items()).encode()
