"""A worker or server among others: it beats, takes over from silent ones, and notices when it was taken over itself."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from time import monotonic

from db import lengths, workers
from db import rescue as leases
from jobs.context import Context
from jobs.errors import ShunterError
from jobs.observing import JobsRescued, TookOver, WorkerRuns
from jobs.retry import MAX_ATTEMPTS

BEAT_S = 5.0
AWAY_S = 600.0  # without the database, after which a worker ends rather than to linger
_KEPT = timedelta(days=7)


class Gone(ShunterError):
    """This worker cannot go on: its database has been away for too long."""


async def _nothing(dead: str) -> None:
    return


@asynccontextmanager
async def present(
    context: Context,
    note: Callable[[str], None],
    *,
    lost: Callable[[], None],
    resume: Callable[[str], Awaitable[None]] | None = None,
) -> AsyncIterator["asyncio.Task[None]"]:
    """Beat until the block ends, then say goodbye; gives the task that beats, which ends with Gone, or when lost.

    `lost` is called when another worker took this one for dead: what it holds is the other's now. `resume` starts what
    a dead worker had begun; without one, that is left to a worker that can.
    """
    now = context.clock.now()
    await context.db(workers.register, context.owner, os.uname().nodename, os.getpid(), now)
    await context.db(workers.prune, now - _KEPT)
    await context.db(lengths.prune, now)
    beating = asyncio.create_task(_beating(context, note, lost, resume))
    context.tell(WorkerRuns(context.owner, runs=True))
    try:
        yield beating
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        context.tell(WorkerRuns(context.owner, runs=False))
        with suppress(Exception):  # it is taken over in a minute
            await context.thread(workers.goodbye, context.owner, context.clock.now())


@asynccontextmanager
async def serving(context: Context) -> AsyncIterator[None]:
    """Beat for a server until the block ends, then say goodbye; meanwhile end what silent servers left.

    What a silent worker left needs a worker. A server that was taken for dead, because it stood still, goes on.
    """
    ended = asyncio.Event()
    beating = asyncio.create_task(_serving(context, ended))
    try:
        yield
    finally:
        ended.set()
        await asyncio.gather(beating, return_exceptions=True)  # cut off, its last beat could come after the goodbye
        with suppress(Exception):
            await context.thread(workers.goodbye, context.owner, context.clock.now())


async def _serving(context: Context, ended: asyncio.Event) -> None:
    while not ended.is_set():
        with suppress(Exception):  # the database is away or busy: it comes back
            await context.db(workers.serve, context.owner, os.uname().nodename, os.getpid(), context.clock.now())
            await _take_over(context, lambda note: None, None, workers.SERVES)
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), min(BEAT_S, context.dead_s / 4))


async def _beating(
    context: Context,
    note: Callable[[str], None],
    lost: Callable[[], None],
    resume: Callable[[str], Awaitable[None]] | None,
) -> None:
    heard, silent = monotonic(), False
    while True:
        try:
            if not await context.db(workers.beat, context.owner, context.clock.now()):
                note("another worker took this one for dead, and took over what it had: it stood still for too long")
                lost()
                return
            heard, silent = monotonic(), False
            await _take_over(context, note, resume)
        except Exception as error:  # the database is away or busy: it comes back
            if not silent:
                note(f"the worker cannot beat: {error}")
            silent = True
            if monotonic() - heard > AWAY_S:
                raise Gone(f"the database has been away for {AWAY_S / 60:.0f} minutes: {error}") from error
        await asyncio.sleep(min(BEAT_S, context.dead_s / 4))


async def _take_over(
    context: Context,
    note: Callable[[str], None],
    resume: Callable[[str], Awaitable[None]] | None,
    kind: str | None = None,
) -> None:
    since, taken = context.clock.now() - timedelta(seconds=context.dead_s), False
    for dead in await context.db(workers.silent, since, kind):
        if dead == context.owner:
            continue
        if await context.db(workers.take_over, dead, context.owner, since, context.clock.now()):
            taken = True
            context.tell(TookOver(dead, context.owner))
            note(f"took over from {dead}, which has not beaten for {context.dead_s:.0f} s")
            if resume is not None:
                await resume(dead)
                await context.db(workers.settled, dead, context.owner, context.clock.now())
    if taken:  # its readers wait
        await rescue(context)


async def rescue(context: Context) -> None:
    """End what dead owners left, or queue it again."""
    hold = context.on_unknown == "hold"
    if rescued := await context.db(leases.rescue, context.clock.now(), MAX_ATTEMPTS, hold=hold):
        context.tell(JobsRescued(rescued))
