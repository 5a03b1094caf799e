"""The three ways of a call: over bytes alone, through its Provider, and behind its raw SDK."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx2

from jobs.chat import Answer, Delta
from jobs.errors import CallError
from jobs.providers import PROVIDERS, Endpoint, Provider, Timeouts, calls
from jobs.providers.connection import Connection, transport
from jobs.providers.failures import Place, failure
from tests.conformance import EVENT_STREAM, Format
from tests.stream_wire import REQUEST, SLOW
from tests.wire import SHORT, Script, serving

SOON = SHORT / 3  # there are many that must time out
FIRST, IDLE = replace(SLOW, first_token=SOON), replace(SLOW, idle=SOON)
TOTAL = replace(SLOW, total=SHORT)
KEY = "sk-test-1234567890"
KEY_ENV = "A_KEY"


async def replay(
    form: Format, pieces: Sequence[bytes], *, choices: int = 1, kind: str = EVENT_STREAM
) -> tuple[list[Delta], Answer | CallError]:
    """The decoder and the accumulator of the format over these reads, as a Provider runs them, without a socket."""
    wire, reads = form.accumulator(choices), _Reads(form, pieces, kind)
    return await _shown(calls.stream(reads, "/", bytes, wire, model="m", timeouts=SLOW, read=form.read))


class _Reads(Connection):
    """A connection whose answer comes in these reads."""

    def __init__(self, form: Format, pieces: Sequence[bytes], kind: str) -> None:
        super().__init__(Endpoint(form.provider, "http://recorded", False, KEY_ENV, form.api), form.client)
        self._pieces = pieces
        self._kind = kind

    def ready(self) -> None:
        """No client is needed."""

    async def post(self, *_: Any, **__: Any) -> httpx2.Response:
        async def body() -> AsyncIterator[bytes]:
            for piece in self._pieces:
                yield piece

        return httpx2.Response(200, headers={"content-type": self._kind}, content=body())


async def _shown(stream: AsyncIterator[Delta | Answer]) -> tuple[list[Delta], Answer | CallError]:
    """The deltas, and how it ended: with exactly one Answer, the last item, or with an error before any delta."""
    deltas: list[Delta] = []
    answers: list[Answer] = []
    try:
        async for item in stream:
            assert not answers, "something came after the Answer"
            (answers if isinstance(item, Answer) else deltas).append(item)
    except CallError as error:
        assert not deltas, "an error came after the first words"
        return deltas, error
    return deltas, answers[0]


@asynccontextmanager
async def provider(form: Format, url: str) -> AsyncIterator[Provider]:
    made = PROVIDERS[form.provider](Endpoint(form.provider, url + form.base, False, KEY_ENV, form.api))
    try:
        yield made
    finally:
        await made.close()


async def through_provider(
    form: Format, script: Script | str, timeouts: Timeouts = SLOW, *, plain: bool = False, **params: Any
) -> tuple[list[Delta], Answer | CallError]:
    """A call over loopback to a scripted server, or to the URL of one that runs."""
    request = REQUEST.model_copy(update=params)
    async with _url(script) as url, provider(form, url) as made:
        if not plain:
            return await _shown(made.stream(request, tier="default", timeouts=timeouts))
        try:
            return [], await made.complete(request, tier="default", timeouts=timeouts)
        except CallError as error:
            return [], error


@asynccontextmanager
async def _url(script: Script | str) -> AsyncIterator[str]:
    if isinstance(script, str):
        yield script
    else:
        async with serving(script) as server:
            yield server.url


async def through_sdk(
    form: Format, script: Script | str, *, plain: bool = False, seconds: float = 9.0, choices: int = 1
) -> tuple[Exception | None, Answer]:
    """What the raw SDK raised, and what the accumulator makes of the SDK's own events and of that error."""
    wire, raised = form.accumulator(choices), None
    async with _url(script) as url:
        client = form.client(url + form.base, KEY, transport(url)).with_options(
            timeout=httpx2.Timeout(seconds, connect=5.0)
        )
        try:
            answer = await form.create(client, not plain)
            if not plain:
                async with answer:
                    async for event in answer:
                        wire.feed(event)
        except Exception as error:
            raised = error
        finally:
            await client.close()
    return raised, wire.finish(failure(raised, Place(url, KEY_ENV)) if raised else None)
