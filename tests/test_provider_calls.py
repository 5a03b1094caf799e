"""Plain calls over loopback: one request each, bounded in all, and every body an Answer or an error."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from jobs.chat import Answer, Message, Outcome, Request, Usage
from jobs.errors import CallError, Permanent, Transient
from jobs.providers import PROVIDERS, Endpoint, Timeouts
from tests import wire
from tests.wire import Script, Server, serving

KEY = "sk-test-1234567890"
SLOW = Timeouts(first_token=9.0, idle=9.0, total=9.0, connect=5.0)
REQUEST = Request(model="m", messages=[Message(role="user", content="hi")], max_tokens=5)
WHOLE = {
    "openai": {
        "choices": [{"index": 0, "message": {"content": "hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
        "service_tier": "flex",
    },
    "anthropic": {
        "content": [{"type": "text", "text": "hello"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 2, "service_tier": "standard"},
    },
}


@pytest.fixture(params=["openai", "anthropic"], autouse=True)
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("A_KEY", KEY)
    return str(request.param)


def run(test: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(20):
            return await test()

    return asyncio.run(bounded())


def asked(
    name: str, *scripts: Script, timeouts: Timeouts = SLOW, tier: str = "default", own: bool = False
) -> tuple[Any, Server]:
    """How one call ended, and the server that it asked."""

    async def test() -> tuple[Any, Server]:
        async with serving(*scripts) as server:
            url = server.url + ("/v1" if name == "openai" else "")
            made = PROVIDERS[name](Endpoint(name, url, own, "A_KEY"))
            try:
                return await made.complete(REQUEST, tier=tier, timeouts=timeouts), server
            except CallError as error:
                return error, server
            finally:
                await made.close()

    result: tuple[Any, Server] = run(test)
    return result


def test_an_answer(name: str) -> None:
    answer, server = asked(name, wire.reply(WHOLE[name], request_id="r", retry_after="1"))
    assert (answer.first.text, answer.outcome, answer.usage) == ("hello", Outcome.COMPLETE, Usage(3, 2))
    assert (answer.request_id, answer.headers) == ("r", {"retry-after": "1"})
    assert answer.tier == {"openai": "flex", "anthropic": "standard"}[name]
    assert server.asked[0].json["max_tokens"] == 5
    assert "stream" not in server.asked[0].json


def test_the_tier_and_the_cap_at_the_providers_own_address(name: str) -> None:
    _, server = asked(name, wire.reply(WHOLE[name]), tier="fast", own=True)
    body = server.asked[0].json
    if name == "openai":
        assert (body["service_tier"], body["max_completion_tokens"], "max_tokens" in body) == ("fast", 5, False)
    else:
        assert (body["speed"], body["max_tokens"]) == ("fast", 5)


@pytest.mark.parametrize("body", [b"null", b"<html>", b'{"choices": [{', b"{}", b"\xff"])
def test_a_200_that_is_no_answer(name: str, body: bytes) -> None:
    answer, _ = asked(name, wire.reply(body))
    assert isinstance(answer, Answer)
    assert (answer.outcome, answer.usage) == (Outcome.MALFORMED, None)


def test_a_200_with_an_error(name: str) -> None:
    answer, _ = asked(name, wire.reply({"error": {"message": f"busy {KEY}", "code": "overloaded"}}))
    assert (answer.outcome, answer.error_code) == (Outcome.PROVIDER_ERROR, "overloaded")
    assert KEY not in answer.error


async def cut_body(peer: wire.Peer) -> None:
    await peer.send(wire.head(content_length="100") + b'\r\n{"choices"')


async def dripping_body(peer: wire.Peer) -> None:
    await peer.send(wire.head(content_length="1000") + b"\r\n")
    while True:
        await peer.send(b" ")
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("script", "code"),
    [(wire.hang_up, "cut"), (cut_body, "cut"), (wire.mute, "total_timeout"), (dripping_body, "total_timeout")],
)
def test_a_lost_answer_is_unclear_and_asked_only_once(name: str, script: Script, code: str) -> None:
    error, server = asked(name, script, timeouts=replace(SLOW, total=0.5))
    assert isinstance(error, Transient)
    assert (error.code, error.maybe_billed, len(server.asked)) == (code, True, 1)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_nothing_is_retried_inside(name: str, status: int) -> None:
    error, server = asked(name, wire.reply({"error": {"message": "x"}}, status, x_should_retry="true"))
    assert (error.status, len(server.asked)) == (status, 1)


def failing(name: str, base_url: str, *, own: bool = False) -> Any:
    async def test() -> Any:
        made = PROVIDERS[name](Endpoint(name, base_url, own, "A_KEY"))
        try:
            return await made.complete(REQUEST, tier="default", timeouts=SLOW)
        except CallError as error:
            return error
        finally:
            await made.close()

    return run(test)


@pytest.mark.parametrize("key", ["", "  "])
def test_no_key(name: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", key)
    error = failing(name, "https://api.example.com/v1", own=True)
    assert isinstance(error, Permanent)
    assert str(error) == "no key for api.example.com: set A_KEY"


@pytest.mark.parametrize("key", ["sk-with-\u2019quote", "sk-with\nline-secret"])
def test_a_key_that_no_header_can_carry(name: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", key)
    error = failing(name, "http://127.0.0.1:9/v1")
    assert isinstance(error, Permanent)
    assert "A_KEY" in str(error)
    assert "sk-" not in str(error)


def test_a_compatible_server_needs_no_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A_KEY")
    _, server = asked(name, wire.reply(WHOLE[name]))
    assert server.asked[0].headers["authorization"] == "Bearer none"


@pytest.mark.parametrize("url", ["ftp://x/v1", "localhost:8000/v1", "http://[::1/v1", ""])
def test_a_base_url_that_is_none(name: str, url: str) -> None:
    error = failing(name, url)
    assert isinstance(error, Permanent)
    assert "base URL" in str(error)


def test_a_v1_in_the_base_url_is_not_doubled(name: str) -> None:
    async def test() -> str:
        async with serving(wire.reply(WHOLE[name])) as server:
            made = PROVIDERS[name](Endpoint(name, server.url + "/v1/", False, "A_KEY"))
            await made.complete(REQUEST, tier="default", timeouts=SLOW)
            await made.close()
            return server.asked[0].target

    assert run(test) == {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}[name]


def test_one_provider_serves_one_loop_after_another(name: str) -> None:
    made: list[Any] = []

    async def test() -> Outcome:
        async with serving(wire.reply(WHOLE[name])) as server:
            endpoint = Endpoint(name, server.url + ("/v1" if name == "openai" else ""), False, "A_KEY")
            made.append(made[0] if made else PROVIDERS[name](endpoint))
            made[0].endpoint = made[0]._connection.endpoint = endpoint
            answer = await made[0].complete(REQUEST, tier="default", timeouts=SLOW)
            await made[0].close()
            return answer.outcome  # type: ignore[no-any-return]

    assert [run(test), run(test)] == [Outcome.COMPLETE] * 2
