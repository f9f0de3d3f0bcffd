"""Servers as they really answer: bodies sent and records decoded, byte for byte; access; ask and doctor.

Shapes after the servers' documentation and sources, named beside each."""

from __future__ import annotations

import pytest

from oss_eval.endpoint.auth import Auth
from oss_eval.endpoint.capabilities import Capabilities
from oss_eval.endpoint.endpoint import parse_url
from oss_eval.errors import UsageError
from oss_eval.probe.apis import Generation


@pytest.mark.parametrize(
    ("url", "api", "path"),
    [
        ("http://h:8000", "openai", "/v1/chat/completions"),
        ("http://h:8000/v1/", "openai", "/v1/chat/completions"),
        ("http://h/v1/completions", "openai", "/v1/completions"),
        ("http://h/v1/responses", "openai", "/v1/responses"),
        ("http://h:11434", "ollama", "/api/chat"),
        ("http://h:11434/v1", "ollama", "/api/chat"),
        ("http://h:11434/api/generate", "openai", "/api/generate"),
        ("https://openrouter.ai/api/v1", "openai", "/api/v1/chat/completions"),
        ("https://r.openai.azure.com/openai/deployments/gpt-oss/chat/completions?api-version=2024-10-21", "openai",
         "/openai/deployments/gpt-oss/chat/completions?api-version=2024-10-21"),
        ("https://r.openai.azure.com", "openai", "/openai/v1/chat/completions"),
        ("https://r.services.ai.azure.com/models/chat/completions?api-version=2024-05-01-preview", "openai",
         "/models/chat/completions?api-version=2024-05-01-preview"),
    ],
)  # fmt: skip
def test_addresses(url: str, api: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oss_eval.endpoint.endpoint.resolve", lambda host, port: ())
    assert parse_url(url, api).target().path == path


def test_keys_stay_with_their_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-1")
    assert parse_url("http://somebody.example.com", "chat").headers == ()
    monkeypatch.setenv("OPENAI_API_KEY", "open-1")
    machine = parse_url("http://myvm.eastus.cloudapp.azure.com:8000", "chat")
    assert machine.headers == (("Authorization", "Bearer open-1"),)
    with pytest.raises(UsageError, match="none of Azure's"):
        parse_url("http://somebody.example.com", "chat", Auth(entra=True))
    given = Auth(headers=(("authorization", "Bearer mine"),))
    assert parse_url("http://h", "chat", given).headers == (("authorization", "Bearer mine"),)


@pytest.mark.parametrize(
    "words",
    [
        "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 3 instead.",
        "The model `ByteDance-Seed/Seed-OSS-36B` has a maximum context length of 4096 tokens",
        "'max_tokens' or 'max_completion_tokens' is too large: 9000. This model's maximum context length is 4096",
        "min_tokens must be less than or equal to max_tokens",
        "temperature must be between 0 and 2, other values are not supported",
    ],
)
def test_refused_values_are_the_users(words: str) -> None:
    assert (
        Capabilities().after_refusal(
            400, words, Generation("m", max_tokens=5, temperature=3.0, seed=1, min_tokens=9)
        )
        is None
    )


def test_the_refused_field_is_the_one_left_out() -> None:
    sent = Generation("m", temperature=1.0, top_p=0.9, seed=1)
    changed = Capabilities().after_refusal(400, "Unrecognized request argument supplied: seed", sent)
    assert changed is not None
    assert changed.without == ("seed",)


def test_adaptation_knows_when_to_stop() -> None:
    sent = Generation("m", max_tokens=5, temperature=1.0)
    assert Capabilities().after_refusal(400, "context length exceeded", sent) is None
    assert Capabilities().after_refusal(500, "temperature", sent) is None
    first = Capabilities().after_refusal(
        400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", sent
    )
    assert first is not None
    assert first.after_refusal(400, "max_completion_tokens is too large", sent) is None
