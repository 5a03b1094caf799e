"""A sandbox with limits, as the real SDKs meet it."""

from datetime import UTC, datetime
from typing import Any

import anthropic
import openai
import pytest

from jobs.sandbox.limits import duration
from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxError, SandboxSettings

HELLO: Any = [{"role": "user", "content": "Name a colour."}]


def chat(sandbox: Sandbox, model: str = "gpt-4o-mini", **more: Any) -> Any:
    with openai.OpenAI(base_url=f"{sandbox.url}/v1", api_key="sk-test", max_retries=0, timeout=10) as client:
        return client.chat.completions.with_raw_response.create(model=model, messages=HELLO, **more)


def message(sandbox: Sandbox) -> Any:
    with anthropic.Anthropic(base_url=sandbox.url, api_key="sk-test", max_retries=0, timeout=10) as claude:
        return claude.messages.with_raw_response.create(model="claude-haiku-5-5", messages=HELLO, max_tokens=50)


def told(answer: Any, word: str = "x-ratelimit-") -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith(word)}


def test_every_answer_tells_what_is_left() -> None:
    with running(SandboxSettings(requests_per_minute=3)) as sandbox:
        first, second = told(chat(sandbox)), told(chat(sandbox))
        assert (first["x-ratelimit-limit-requests"], first["x-ratelimit-remaining-requests"]) == ("3", "2")
        assert second["x-ratelimit-remaining-requests"] == "1"
        assert second["x-ratelimit-reset-requests"].endswith("s")
        assert "x-ratelimit-limit-tokens" not in second


def test_too_many_requests_are_turned_away_and_not_billed() -> None:
    with running(SandboxSettings(requests_per_minute=2)) as sandbox:
        chat(sandbox), chat(sandbox)
        with pytest.raises(openai.RateLimitError) as caught:
            chat(sandbox)
        assert (caught.value.code, caught.value.type) == ("rate_limit_exceeded", "requests")
        headers = caught.value.response.headers
        assert 0 < float(headers["retry-after-ms"]) <= 30_000
        assert 1 <= int(headers["retry-after"]) <= 30
        assert headers["x-ratelimit-remaining-requests"] == "0"
        assert "RPM" in str(caught.value)
        assert sandbox.bill()["totals"]["rows"] == 2


def test_time_brings_them_back() -> None:
    with running(SandboxSettings(requests_per_minute=60, burst_seconds=1)) as sandbox:
        chat(sandbox)
        with pytest.raises(openai.RateLimitError):
            chat(sandbox)
        sandbox.advance(1)
        assert told(chat(sandbox))["x-ratelimit-remaining-requests"] == "0"


def test_tokens_are_counted_and_one_of_too_many_goes_alone() -> None:
    with running(SandboxSettings(tokens_per_minute=20, answer_tokens=30)) as sandbox:
        chat(sandbox)  # 30 and more of 20: a full bucket lets it through
        with pytest.raises(openai.RateLimitError) as caught:
            chat(sandbox)
        assert caught.value.type == "tokens"
        assert "TPM" in str(caught.value)
        sandbox.advance(180)
        chat(sandbox)


def test_each_model_has_its_own() -> None:
    with running(SandboxSettings(requests_per_minute=1)) as sandbox:
        chat(sandbox), chat(sandbox, "gpt-6-luna")
        with pytest.raises(openai.RateLimitError):
            chat(sandbox)


def test_streams_and_responses_count_as_well() -> None:
    with (
        running(SandboxSettings(requests_per_minute=2)) as sandbox,
        openai.OpenAI(base_url=f"{sandbox.url}/v1", api_key="sk-test", max_retries=0, timeout=10) as client,
    ):
        assert list(client.chat.completions.create(model="gpt-4o-mini", messages=HELLO, stream=True))
        client.responses.create(model="gpt-4o-mini", input="Name a colour.")
        with pytest.raises(openai.RateLimitError):
            client.responses.create(model="gpt-4o-mini", input="Name a colour.")


def test_in_anthropics_words() -> None:
    with running(SandboxSettings(requests_per_minute=1, tokens_per_minute=10_000)) as sandbox:
        headers = told(message(sandbox), "anthropic-ratelimit-")
        assert headers["anthropic-ratelimit-requests-limit"] == "1"
        assert headers["anthropic-ratelimit-requests-remaining"] == "0"
        assert int(headers["anthropic-ratelimit-tokens-remaining"]) < 10_000
        reset = datetime.fromisoformat(headers["anthropic-ratelimit-requests-reset"])
        assert 0 < (reset - datetime.now(UTC)).total_seconds() <= 61
        with pytest.raises(anthropic.RateLimitError) as caught:
            message(sandbox)
        assert caught.value.type == "rate_limit_error"
        assert int(caught.value.response.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0ms"), (0.0201, "21ms"), (1.5, "1.5s"), (360, "6m0s"), (3612.25, "1h0m12.25s")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_limit_of_nothing_is_no_limit() -> None:
    with pytest.raises(SandboxError, match="requests_per_minute"):
        SandboxSettings(requests_per_minute=0)
