"""A stream's time and its connection: what is waited for, and what is left behind."""

import asyncio
import time
from contextlib import aclosing
from typing import Any

import pytest

from jobs.chat import Answer, Delta, Outcome
from jobs.providers import Timeouts
from tests import wire
from tests.stream_wire import FIRST, FORMATS, IDLE, REQUEST, SLOW, TOTAL, bytes_of, ended, gather, provider, run
from tests.wire import Script


@pytest.fixture(params=["openai", "anthropic"], autouse=True)
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("A_KEY", "sk-test-1234567890")
    return str(request.param)


def dripping(piece: bytes, first: list[bytes], every: float = 0.05) -> Script:
    async def script(peer: wire.Peer) -> None:
        await peer.send(wire.head(200, "text/event-stream", transfer_encoding="chunked") + b"\r\n")
        for start in first:
            await peer.send(wire.chunk(start))
        while True:
            await peer.send(wire.chunk(piece))
            await asyncio.sleep(every)

    return script


@pytest.mark.parametrize(("names", "bounds"), [((), FIRST), (("start",), FIRST), (("start", "text"), IDLE)])
def test_keep_alives_keep_nothing_alive(name: str, names: tuple[str, ...], bounds: Timeouts) -> None:
    _, end = ended(name, dripping(b": ping\n\n", bytes_of(name, *names)), bounds)
    assert (end.outcome is Outcome.TIMED_OUT) if isinstance(end, Answer) else (end.code == "first_token_timeout")


def test_the_total_bounds_a_stream_that_goes_on_and_on(name: str) -> None:
    texts, answer = ended(name, dripping(FORMATS[name]["text"], bytes_of(name, "start")), TOTAL)
    assert len(texts) > 2
    assert (answer.outcome, answer.first.text) == (Outcome.TIMED_OUT, "".join(texts))
    assert "0.5 s" in answer.error


@pytest.mark.parametrize("how", ["aclose", "cancel"])
def test_leaving_closes_the_connection_at_once(name: str, how: str) -> None:
    async def test() -> float:
        script = wire.stream(*bytes_of(name, "start", "text"), end="silence")
        async with provider(name, script) as (made, server):
            shown = asyncio.Event()

            async def read() -> None:
                async with aclosing(made.stream(REQUEST, tier="default", timeouts=SLOW)) as items:
                    async for _ in items:
                        shown.set()
                        if how == "aclose":
                            return

            task = asyncio.create_task(read())
            await shown.wait()
            started = time.monotonic()
            if how == "cancel":
                await asyncio.sleep(0)
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await server.left.wait()
            return time.monotonic() - started

    assert run(test) < 0.1


def test_streams_use_their_connection_again(name: str) -> None:
    async def test() -> int:
        script = wire.stream(*bytes_of(name, "start", "text", "finish", "end"))
        async with provider(name, script) as (made, server):
            for _ in range(3):
                _, answer = await gather(made)
                assert isinstance(answer, Answer)
            return server.connections

    assert run(test) == 1


def test_a_kept_connection_that_has_stalled_ends_in_time(name: str) -> None:
    async def test() -> list[Any]:
        good = wire.stream(*bytes_of(name, "start", "text", "finish", "end"))
        async with provider(name, good, wire.mute, good) as (made, _):
            return [(await gather(made, bounds))[1] for bounds in (SLOW, FIRST, SLOW)]

    first, second, third = run(test)
    assert (first.outcome, second.code, third.outcome) == (Outcome.COMPLETE, "first_token_timeout", Outcome.COMPLETE)


def test_what_is_asked(name: str) -> None:
    async def test() -> wire.Asked:
        async with provider(name, wire.stream(*bytes_of(name, "start", "text", "finish", "end"))) as (made, server):
            await gather(made)
            return server.asked[0]

    asked = run(test)
    assert asked.target == {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}[name]
    assert asked.headers["authorization"] == "Bearer sk-test-1234567890"
    assert asked.json["stream"] is True
    assert ("stream_options" in asked.json) == (name == "openai")


def test_deltas_are_deltas(name: str) -> None:
    async def test() -> list[Any]:
        async with provider(name, wire.stream(*bytes_of(name, "start", "text", "finish", "end"))) as (made, _):
            return [item async for item in made.stream(REQUEST, tier="default", timeouts=SLOW)]

    delta, answer = run(test)
    assert delta == Delta("he")
    assert isinstance(answer, Answer)
