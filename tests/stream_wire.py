"""Both live providers over a scripted server, and the wire bytes of a small stream in each format."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from jobs.chat import Answer, Message, Request
from jobs.errors import CallError
from jobs.providers import PROVIDERS, Endpoint, Provider, Timeouts
from tests import wire
from tests.wire import Script, Server, serving, sse

SLOW = Timeouts(first_token=9.0, idle=9.0, total=9.0, connect=5.0)
FIRST = replace(SLOW, first_token=wire.SHORT)
IDLE = replace(SLOW, idle=wire.SHORT)
TOTAL = replace(SLOW, total=0.5)
REQUEST = Request(model="m", messages=[Message(role="user", content="hi")])


def part(text: str | None = None, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}]}


ROLE = {"model": "m-1", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}
OPENAI = {
    "start": sse(ROLE),
    "text": sse(part("he")),
    "more": sse(part("llo")),
    "finish": sse(part(finish="stop")),
    "end": sse(USAGE, "[DONE]"),
    "error": sse({"error": {"message": "busy", "type": "service_unavailable_error", "code": "server_is_overloaded"}}),
    "whole": b'{"choices": [{"index": 0, "message": {"content": "hello"}, "finish_reason": "stop"}]}',
}


def _delta(text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


ANTHROPIC = {
    "start": sse(
        {"type": "message_start", "message": {"model": "m-1", "content": [], "usage": {"input_tokens": 3}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        named=True,
    ),
    "text": sse(_delta("he"), named=True),
    "more": sse(_delta("llo"), named=True),
    "finish": sse(
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}, named=True
    ),
    "end": sse({"type": "message_stop"}, named=True),
    "error": b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}\n\n',
    "whole": b'{"content": [{"type": "text", "text": "hello"}], "stop_reason": "end_turn", "usage": {}}',
}
FORMATS = {"openai": OPENAI, "anthropic": ANTHROPIC}
PATHS = {"openai": "/v1", "anthropic": ""}


@asynccontextmanager
async def provider(name: str, *scripts: Script) -> AsyncIterator[tuple[Provider, Server]]:
    async with serving(*scripts) as server:
        made = PROVIDERS[name](Endpoint(name, server.url + PATHS[name], False, "A_KEY"))
        try:
            yield made, server
        finally:
            await made.close()


def run(test: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(20):
            return await test()

    return asyncio.run(bounded())


async def gather(made: Provider, timeouts: Timeouts = SLOW) -> tuple[list[str], Answer | CallError]:
    """The texts that were shown, and how it ended."""
    texts: list[str] = []
    try:
        async for item in made.stream(REQUEST, tier="default", timeouts=timeouts):
            if isinstance(item, Answer):
                return texts, item
            texts.append(item.text)
    except CallError as error:
        return texts, error
    raise AssertionError("neither an answer nor an error")


def ended(name: str, script: Script, timeouts: Timeouts = SLOW) -> tuple[list[str], Any]:
    async def test() -> tuple[list[str], Any]:
        async with provider(name, script) as (made, _):
            return await gather(made, timeouts)

    return run(test)


def bytes_of(name: str, *names: str) -> list[bytes]:
    return [FORMATS[name][each] for each in names]
