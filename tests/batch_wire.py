"""A batch provider over a scripted server or the sandbox, for the tests of both Batch APIs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from jobs.chat import Request
from jobs.providers import BATCH_PROVIDERS, Endpoint
from router.intake import canonical
from tests.wire import Script, Server, serving


def stored(request: Request) -> str:
    """Its body as a job keeps it."""
    return canonical(request.body())


def run(test: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(30):
            return await test()

    return asyncio.run(bounded())


@asynccontextmanager
async def batches(name: str, url: str) -> AsyncIterator[Any]:
    made = BATCH_PROVIDERS[name](Endpoint(name, url + ("/v1" if name == "openai" else ""), False, "A_KEY"))
    try:
        yield made
    finally:
        await made.close()


def scripted(name: str, test: Callable[[Any, Server], Awaitable[Any]], *scripts: Script) -> Any:
    async def whole() -> Any:
        async with serving(*scripts) as server, batches(name, server.url) as made:
            return await test(made, server)

    return run(whole)
