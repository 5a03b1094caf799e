"""Every fault drill on the wire, as the real SDKs meet it."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings

HELLO: Any = [{"role": "user", "content": "Tell me about wagons."}]
BODY = '{"model":"gpt-6-luna","messages":[{"role":"user","content":"hi"}]}'
ROW = '{"custom_id":"r%d","method":"POST","url":"/v1/chat/completions","body":' + BODY + "}"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running(SandboxSettings(batch_seconds=1000)) as sandbox:
        yield sandbox


def ask(client: Any, **more: Any) -> Any:
    return client.chat.completions.create(**{"model": "gpt-4o", "messages": HELLO, **more})


def until_broken(stream: Any) -> tuple[list[str], Exception | None]:
    """The text pieces that came, and what ended the stream if it did not end by itself."""
    pieces: list[str] = []
    with stream:
        try:
            for chunk in stream:
                pieces += [choice.delta.content for choice in chunk.choices or [] if choice.delta.content]
        except Exception as error:
            return pieces, error
    return pieces, None


@pytest.mark.parametrize(("how", "cause"), [("fin", httpx2.RemoteProtocolError), ("rst", httpx2.ReadError)])
@pytest.mark.parametrize("after", [0, 3])
def test_a_cut_stream_is_billed_for_what_was_said(
    client: Any, sandbox: Sandbox, how: str, cause: Any, after: int
) -> None:
    sandbox.faults([{"kind": "cut", "after": after, "how": how, "times": 1}])
    pieces, error = until_broken(ask(client, stream=True))
    assert len(pieces) == after
    assert isinstance(error, openai.APIConnectionError)
    assert isinstance(error.__cause__, cause)
    (row,) = sandbox.billed(1)["rows"]
    assert row["usage"]["output"] == after
    assert row["disconnected"]
    assert row["usage"]["input"] > 0
    assert until_broken(ask(client, stream=True))[1] is None


def test_a_cut_beyond_the_end_comes_before_the_finish(client: Any, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "cut", "after": 10_000}])
    pieces, error = until_broken(ask(client, stream=True))
    assert isinstance(error, openai.APIConnectionError)
    assert "".join(pieces)
    assert sandbox.billed(1)["rows"][0]["usage"]["output"] == len(pieces)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_cut_plain_answer_is_billed_in_full(client: Any, sandbox: Sandbox, how: str) -> None:
    whole = ask(client)
    sandbox.faults([{"kind": "cut", "how": how}])
    with pytest.raises(openai.APIConnectionError):
        ask(client)
    first, second = sandbox.bill()["rows"]
    assert first["usage"] == second["usage"]
    assert second["usage"]["output"] == whole.usage.completion_tokens
    assert second["disconnected"]
    assert not first["disconnected"]


@pytest.mark.parametrize("stream", [False, True])
def test_silence(client: Any, sandbox: Sandbox, stream: bool) -> None:
    sandbox.faults([{"kind": "silence", "after": 2, "seconds": 30}])
    quick = client.with_options(timeout=0.15)
    if stream:
        pieces, error = until_broken(ask(quick, stream=True))
        assert len(pieces) == 2
        assert isinstance(error, openai.APITimeoutError)
        assert sandbox.billed(1)["rows"][0]["usage"]["output"] == 2
    else:
        with pytest.raises(openai.APITimeoutError):
            ask(quick)
        (row,) = sandbox.billed(1)["rows"]
        assert row["disconnected"]
        assert row["usage"]["output"] > 2


def test_a_short_silence_goes_on(client: Any, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "silence", "after": 2, "seconds": 0.05}])
    pieces, error = until_broken(ask(client, stream=True))
    assert error is None
    assert len(pieces) == sandbox.bill()["rows"][0]["usage"]["output"]


def test_malformed_data(client: Any, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "malformed", "after": 3}])
    pieces, error = until_broken(ask(client, stream=True))
    assert len(pieces) == 3
    assert isinstance(error, json.JSONDecodeError)
    with pytest.raises(json.JSONDecodeError):
        ask(client)


def test_an_error_in_the_stream(client: Any, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "stream_error", "after": 2}])
    pieces, error = until_broken(ask(client, stream=True))
    assert len(pieces) == 2
    assert type(error) is openai.APIError
    assert (error.code, error.type) == ("server_is_overloaded", "service_unavailable_error")
    assert sandbox.bill()["totals"]["rows"] == 0
    assert ask(client).choices


@pytest.mark.parametrize("shape", ["nested", "flat"])
def test_an_error_in_a_responses_stream(client: Any, sandbox: Sandbox, shape: str) -> None:
    sandbox.faults([{"kind": "stream_error", "after": 2, "shape": shape, "code": "odd"}])
    stream = client.responses.create(model="gpt-4o", input="hello", stream=True)
    if shape == "nested":
        with pytest.raises(openai.APIError) as caught:
            list(stream)
        assert caught.value.code == "odd"
    else:
        last = list(stream)[-1]
        assert last.type == "error"
        assert last.code == "odd"


def raw_stream(sandbox: Sandbox, fault: str, path: str = "/v1/chat/completions", **more: Any) -> str:
    body = {"model": "gpt-4o", "messages": HELLO, "stream": True, "stream_options": {"include_usage": True}, **more}
    got = httpx2.post(sandbox.url + path, json=body, headers={"Authorization": "Bearer sk-x", "X-Sandbox-Fault": fault})
    assert got.status_code == 200
    return got.text


@pytest.mark.usefixtures("client")
def test_ends_that_lack_something(sandbox: Sandbox) -> None:
    whole = raw_stream(sandbox, "slow_first_token;seconds=0")
    assert "[DONE]" in whole
    assert '"finish_reason":"stop"' in whole
    assert "completion_tokens" in whole
    assert "[DONE]" not in raw_stream(sandbox, "no_done")
    assert '"finish_reason":"stop"' not in (text := raw_stream(sandbox, "no_finish"))
    assert "[DONE]" in text
    assert "completion_tokens" not in (text := raw_stream(sandbox, "no_usage"))
    assert "[DONE]" in text
    assert raw_stream(sandbox, "empty_stream") == ""
    assert sandbox.bill()["totals"]["rows"] == 4


def test_plain_answers_that_lack_something(client: Any) -> None:
    assert ask(client, extra_headers={"X-Sandbox-Fault": "no_usage"}).usage is None
    assert ask(client, extra_headers={"X-Sandbox-Fault": "no_finish"}).choices[0].finish_reason is None
    assert ask(client, extra_headers={"X-Sandbox-Fault": "null_body"}) is None
    assert "502 Bad Gateway" in ask(client, extra_headers={"X-Sandbox-Fault": "html_body"})
    with pytest.raises(openai.APIConnectionError):
        ask(client, extra_headers={"X-Sandbox-Fault": "drop;how=rst"})


@pytest.mark.parametrize("stream", [False, True])
def test_endings(client: Any, stream: bool) -> None:
    def last(fault: str) -> tuple[str, str, str]:
        got = ask(client, stream=stream, extra_headers={"X-Sandbox-Fault": fault})
        if not stream:
            message = got.choices[0].message
            return message.content or "", message.refusal or "", got.choices[0].finish_reason
        chunks = [chunk.choices[0] for chunk in got]
        text = "".join(choice.delta.content or "" for choice in chunks)
        return text, "".join(choice.delta.refusal or "" for choice in chunks), str(chunks[-1].finish_reason)

    whole, _, _ = last("slow_first_token;seconds=0")
    cut, _, finish = last("length")
    assert finish == "length"
    assert whole.startswith(cut)
    assert 0 < len(cut) < len(whole)
    assert last("content_filter")[2] == "content_filter"
    text, refusal, finish = last("refusal")
    assert (text, finish) == ("", "stop")
    assert refusal.startswith("[sandbox] I cannot")


def test_malformed_arguments(client: Any) -> None:
    tool = {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}},
    }
    got = ask(client, tools=[tool], tool_choice="required", extra_headers={"X-Sandbox-Fault": "malformed_arguments"})
    with pytest.raises(json.JSONDecodeError):
        json.loads(got.choices[0].message.tool_calls[0].function.arguments)


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        ({"status": 429, "retry_after": 7}, openai.RateLimitError, "rate_limit_exceeded"),
        (
            {"status": 429, "code": "insufficient_quota", "type": "insufficient_quota"},
            openai.RateLimitError,
            "insufficient_quota",
        ),
        ({"status": 500}, openai.InternalServerError, None),
        ({"status": 503}, openai.InternalServerError, "server_is_overloaded"),
        ({"status": 529}, openai.InternalServerError, None),
        ({"status": 401}, openai.AuthenticationError, "invalid_api_key"),
        ({"status": 418, "message": "teapot"}, openai.APIStatusError, None),
    ],
)
def test_statuses(client: Any, sandbox: Sandbox, fault: Any, kind: Any, code: str | None) -> None:
    sandbox.faults([{"kind": "status", "match": {"path": "/v1/chat/completions"}, **fault}])
    with pytest.raises(kind) as caught:
        ask(client)
    assert caught.value.status_code == fault["status"]
    assert caught.value.code == code
    assert caught.value.response.headers.get("retry-after") == ("7" if "retry_after" in fault else None)
    assert fault.get("message", "") in str(caught.value)
    assert sandbox.bill()["totals"]["rows"] == 0
    assert client.models.list()


def test_the_sdk_retries_after_the_wanted_time(client: Any, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "status", "status": 429, "retry_after": 0.05, "times": 2}])
    assert ask(client.with_options(max_retries=2)).choices
    assert sandbox.requests()["count"] == 3
    assert sandbox.bill()["totals"]["rows"] == 1


def test_a_slow_first_token(client: Any, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "slow_first_token", "seconds": 5}])
    pieces, error = until_broken(ask(client.with_options(timeout=0.1), stream=True))
    assert pieces == []
    assert isinstance(error, openai.APITimeoutError)
    assert sandbox.billed(1)["rows"][0]["usage"]["output"] == 0


def test_anthropic_drills(claude: Any, sandbox: Sandbox) -> None:
    def say(stream: bool = False) -> Any:
        return claude.messages.create(model="claude-haiku-5-5", max_tokens=30, messages=HELLO, stream=stream)

    sandbox.faults([{"kind": "status", "status": 529, "times": 1}])
    with pytest.raises(anthropic.OverloadedError):
        say()
    sandbox.faults([{"kind": "status", "status": 429, "retry_after": 3, "times": 1}])
    with pytest.raises(anthropic.RateLimitError) as limited:
        say()
    assert limited.value.response.headers["retry-after"] == "3"
    assert limited.value.type == "rate_limit_error"
    sandbox.faults([{"kind": "stream_error", "after": 1}])
    with pytest.raises(anthropic.APIStatusError) as caught:
        list(say(stream=True))
    assert (caught.value.status_code, caught.value.type) == (200, "overloaded_error")
    sandbox.faults([{"kind": "cut", "after": 2}])
    with pytest.raises(httpx2.RemoteProtocolError):
        list(say(stream=True))
    sandbox.faults([{"kind": "malformed", "after": 1}])
    with pytest.raises(json.JSONDecodeError):
        list(say(stream=True))
    sandbox.faults([{"kind": "no_finish"}])
    with claude.messages.stream(model="claude-haiku-5-5", max_tokens=30, messages=HELLO) as events:
        assert events.get_final_message().stop_reason is None
    sandbox.faults([{"kind": "refusal"}])
    assert say().stop_reason == "refusal"
