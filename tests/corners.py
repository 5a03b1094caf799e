"""What the tests of the corners share: workers that are held between two lines, and what must hold after them."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import openai

from db import batches
from db.tables import Batch
from jobs import packing, worker
from jobs.context import Context
from jobs.errors import CallError
from tests.lanes import World

PROMPTS = [f"Name the capital of country number {n}, in one word." for n in range(6)]
GRACE_S = 600.0
DAY_S = 24 * 3600.0
POSTS = {"path": "/v1/batches", "method": "POST"}
_READS = ("db.batch_rows", "db.plans")  # of what a batch's lane calls there


class Pause:
    """Holds the next call of a method at its door, or behind it: a process that is stopped between two lines."""

    def __init__(self, owner: Any, name: str, *, behind: bool = False) -> None:
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()
        real: Callable[..., Any] = getattr(owner, name)

        async def held(*args: Any, **options: Any) -> Any:
            setattr(owner, name, real)
            result = await real(*args, **options) if behind else None
            self.reached.set()
            await self.go_on.wait()
            return result if behind else await real(*args, **options)

        setattr(owner, name, held)


class Door:
    """A context that is held behind one function of the store."""

    def __init__(self, context: Context, function: Callable[..., Any]) -> None:
        self._context, self._function = context, function
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def db(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        result = await self._context.db(function, *args, **options)
        if function is self._function:
            self.reached.set()
            await self.go_on.wait()
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


class After:
    """A context whose first write after a refused call of a provider is held, at its door or behind it."""

    def __init__(self, context: Context, owner: Any, name: str, *, behind: bool) -> None:
        self._context, self._behind = context, behind
        self._refused = False
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()
        real: Callable[..., Any] = getattr(owner, name)

        async def refused(*args: Any) -> Any:
            try:
                return await real(*args)
            except CallError:
                self._refused = True
                raise

        setattr(owner, name, refused)

    async def db(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        held = self._refused and function.__module__ not in _READS
        self._refused = self._refused and not held
        if held and not self._behind:
            await self._hold()
        result = await self._context.db(function, *args, **options)
        if held and self._behind:
            await self._hold()
        return result

    async def _hold(self) -> None:
        self.reached.set()
        await self.go_on.wait()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def the_batch(world: World) -> Batch:
    (found,) = batches.recent(world.store, 9)
    return found


async def packed(world: World, context: Context) -> Batch:
    """The only batch there is, freshly packed."""
    await packing.pack(context)
    return the_batch(world)


async def to_the_end(world: World, context: Context) -> None:
    await worker.once(context, worker.Told(trouble=world.troubles.append), asyncio.Event())
    await context.close()


def paid_once(world: World) -> None:
    world.even()
    world.batch_rows_once()
    assert world.states() == {"succeeded": len(PROMPTS)}


async def at_the_provider(world: World) -> Counter[str]:
    """How many batches the provider has in each state."""
    async with openai.AsyncOpenAI(base_url=f"{world.sandbox.url}/v1", api_key="sk-x") as client:
        return Counter([one.status async for one in client.batches.list()])
