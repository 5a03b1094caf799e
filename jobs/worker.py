"""The worker: rescue what the dead left, run what is due, move batches along. The rows say what is due."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from db import batches, queue, rescue
from db.queue import Claim
from db.tables import Batch
from jobs import batch, live
from jobs.context import Context
from jobs.errors import CallError
from jobs.retry import MAX_ATTEMPTS
from jobs.runner import Ended

LINGER_S = 10.0  # `once` waits for what is due this soon: a young batch, a retry after a second
UNREACHED_S = 15.0  # after a provider could not be asked whether it has a Batch API; longer than `once` waits


@dataclass(slots=True)
class Told:
    """What a worker says while it works; each call is short and never fails."""

    job: Callable[[Claim, Ended], None] = lambda claim, ended: None
    batch: Callable[[Batch], None] = lambda moved: None
    trouble: Callable[[str], None] = lambda message: None


async def once(context: Context, told: Told, stop: asyncio.Event) -> None:
    """Move everything that is due, and what becomes due within LINGER_S of that, then end."""
    async with context.holding():
        while not stop.is_set():
            rest = await sweep(context, told, stop)
            pause = await _until_due(context)
            if pause is None or max(pause, rest) > LINGER_S:
                return
            await _sleep(pause, stop)


async def forever(context: Context, told: Told, stop: asyncio.Event, every_s: float) -> None:
    """Sweep whenever something is due, and at least every `every_s` seconds, until `stop` is set."""
    async with context.holding():
        while not stop.is_set():
            rest = await sweep(context, told, stop)
            pause = await _until_due(context)
            await _sleep(every_s if pause is None else min(max(pause, rest), every_s), stop)


async def sweep(context: Context, told: Told, stop: asyncio.Event) -> float:
    """One round: every step is safe to repeat and safe to be cut off. Seconds to rest after it, most often 0."""
    now = context.clock.now()
    await context.db(rescue.rescue, now, MAX_ATTEMPTS)
    for name in await context.db(queue.strangers, list(context.endpoints), now):
        told.trouble(f"jobs wait: {context.missing(name)}")
    rest = 0.0
    try:
        await batch.pack(context)
    except CallError as error:
        told.trouble(str(error))
        rest = UNREACHED_S
    moving = asyncio.create_task(_move_batches(context, told))
    try:
        await live.drain(context, told.job, stop)
        await moving
    finally:
        moving.cancel()
        await asyncio.gather(moving, return_exceptions=True)
        await context.db(batches.release, context.owner)
    return rest


async def _move_batches(context: Context, told: Told) -> None:
    for due in await context.db(batches.take, context.owner, context.until(), context.clock.now()):
        endpoint = context.endpoints.get(due.provider)
        if endpoint is None or endpoint.base_url != due.base_url:
            told.trouble(f"batch {due.id} was made at {due.base_url}: set that base URL and its key to go on with it")
            continue
        try:
            await batch.move(context, due)
        except CallError as error:
            told.trouble(f"batch {due.id}: {error}")
        moved = await context.db(batches.get, due.id)
        if moved is not None:
            told.batch(moved)


async def _until_due(context: Context) -> float | None:
    """Seconds until the next job or batch of ours is due; None when nothing waits."""
    urls = {endpoint.base_url for endpoint in context.endpoints.values()}
    times = [await context.db(queue.next_due, list(context.endpoints)), await context.db(batches.next_due, urls)]
    soonest = min((time for time in times if time), default=None)
    return max((soonest - context.clock.now()).total_seconds(), 0.0) if soonest else None


async def _sleep(seconds: float, stop: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(max(seconds, 0.01)):
            await stop.wait()
    except TimeoutError:
        return
