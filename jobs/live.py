"""Bulk as concurrent calls: each slot calls and saves its own answer, so a crash repeats only what was in flight."""

import asyncio
from collections.abc import Callable

from db import queue
from db.queue import Claim
from jobs import runner
from jobs.context import Context
from jobs.runner import Ended


async def drain(context: Context, tell: Callable[[Claim, Ended], None], stop: asyncio.Event) -> int:
    """Run due jobs of the live lanes, `context.concurrency` at a time, until none is due or `stop` is set; how many."""
    waiting: set[asyncio.Task[None]] = set()
    done = 0

    async def one(claim: Claim) -> None:
        nonlocal done
        ended = await runner.run(context, claim)
        done += 1
        tell(claim, ended)

    try:
        while not stop.is_set():
            free = context.concurrency - len(waiting)
            now, known = context.clock.now(), list(context.endpoints)
            claims = await context.db(queue.claim, context.owner, context.until(), free, now, known)
            waiting |= {asyncio.create_task(one(claim)) for claim in claims}
            if not waiting:
                break
            ended, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        await asyncio.gather(*waiting)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    return done
