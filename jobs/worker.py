"""The worker's steps, each an idempotent function over rows under a lease; `once` calls them until nothing is due.

The rows say what is due. `jobs/fleet.py` has the same steps done by many workers.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from db import batches, claims, due, expiring, facts
from db.queue import Claim
from db.states import BatchState
from db.tables import Batch
from jobs import background, batch, live, packing, presence, windows
from jobs.context import Context
from jobs.errors import CallError
from jobs.observing import WindowLooked
from jobs.runner import Ended

LINGER_S = 10.0  # `once` waits for what is due this soon: a young batch, a retry after a second
UNREACHED_S = 15.0  # before what could not be done at all is tried again; longer than `once` waits
STOP_S = 30.0  # for what runs when the worker is told to stop; then it is cut off, and settled
MOVES = 4  # batches that one worker moves at a time
_GAVE_UP_S = 0.5  # after a step that came too late, or lost to another worker; doubled each time
_TEND_S = 5.0


@dataclass(slots=True)
class Told:
    """What a worker says while it works; each call is short and never fails.

    But `closed` may take a minute, in a thread: it has the digest of a window written, and of what was done since the
    last one, and gives back what to say.
    """

    job: Callable[[Claim, Ended], None] = lambda claim, ended: None
    batch: Callable[[Batch], None] = lambda moved: None
    trouble: Callable[[str], None] = lambda message: None
    note: Callable[[str], None] = lambda message: None
    closed: Callable[[datetime, datetime, datetime], Iterable[str]] = lambda since, opened, closed: ()


# ---- the steps ----


async def tend(context: Context, told: Told) -> None:
    """End what dead owners left and what is too late, and name what waits for settings that this process lacks."""
    now = context.clock.now()
    tell(context, told)
    await presence.rescue(context)
    await context.db(expiring.expire, now)
    for name in await context.db(claims.strangers, list(context.endpoints), now):
        told.trouble(f"jobs wait: {context.missing(name)}")
    for batch_id, base_url in await context.db(due.elsewhere, here(context), now):
        told.trouble(f"batch {batch_id} was made at {base_url}: set that base URL and its key to go on with it")


def tell(context: Context, told: Told) -> None:
    """Say what is new of budgets."""
    for note in context.latest():
        told.note(note)


async def pack(context: Context, told: Told) -> int:
    """Put what waits for the batch lane into batches, if the window is open; how many jobs moved."""
    opens = await window_opens(context)
    context.tell(WindowLooked(opens))
    try:
        return await packing.pack(context, window_open=opens is None)
    except CallError as error:
        told.trouble(str(error))
        return 0


async def move(context: Context, told: Told, batch_id: str) -> bool:
    """Take one batch as far as it goes now, under its lease; False when there was nothing to do to it."""
    taken = await context.db(batches.take, context.owner, context.until(), context.clock.now(), batch_id)
    if not taken:
        return False
    before = taken[0]
    try:
        await _held(context, told, before, batch.move(context, before))
    except CallError as error:
        told.trouble(f"batch {batch_id}: {error}")
    finally:
        await context.thread(batches.release, batch_id, context.owner)
    moved = await context.db(batches.get, batch_id)
    if moved is None:
        return False
    told.batch(moved)
    return (moved.state, moved.next_poll_at) != (before.state, before.next_poll_at)


async def drain(context: Context, told: Told, stop: asyncio.Event) -> int:
    """Run the due jobs of the live lanes; how many."""
    return await live.drain(context, told.job, stop)


async def respond(context: Context, told: Told, stop: asyncio.Event) -> int:
    """Move the responses in the background that are due, and send those that wait; how many."""
    return await background.drain(context, told.trouble, stop)


async def _held(context: Context, told: Told, held: Batch, work: Coroutine[Any, Any, None]) -> None:
    """Do the work while the batch is ours: whoever lost its lease, being paused or cut off, touches it no more."""
    task: asyncio.Task[None] = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=context.lease_s / 3))[0]:
            if not await _still_ours(context, held):
                told.note(f"batch {held.id}: another worker has it now")
                task.cancel()
                break
        await asyncio.wait({task})
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    if not task.cancelled():
        task.result()


async def _still_ours(context: Context, held: Batch) -> bool:
    try:
        if await context.db(batches.renew, held.id, context.owner, context.until()):
            return True
        now = await context.db(batches.get, held.id)
    except Exception:  # a busy database now is no reason to give up a lease that is still good
        return True
    return now is not None and now.state == BatchState.IMPORTED


async def window_opens(context: Context) -> datetime | None:
    """When bulk work may be submitted again; None when it may be now."""
    text, now = await context.db(facts.get, windows.KEY), context.clock.now()
    wait = windows.wait_s(text, now)
    return now + timedelta(seconds=wait) if wait else None


def here(context: Context) -> dict[str, str]:
    """The base URL of each provider that this process can speak to."""
    return {name: endpoint.base_url for name, endpoint in context.endpoints.items()}


# ---- one process, until nothing is due ----


@dataclass(slots=True)
class _Work:
    """One kind of work: a step that says how much it did, and when the next of it is due."""

    step: Callable[[], Awaitable[int]]
    due: Callable[[], Awaitable[datetime | None]]
    rests_until: datetime
    rest_s: float = UNREACHED_S
    task: "asyncio.Task[int] | None" = None
    begun: bool = False

    def begin(self) -> None:
        """Do what is due of it."""
        self.task, self.begun = asyncio.ensure_future(self.step()), True

    async def wait(self, context: Context) -> float | None:
        """Seconds until it is due; None when nothing of it waits."""
        at = await self.due()
        return max((max(at, self.rests_until) - context.clock.now()).total_seconds(), 0.0) if at else None

    async def ended(self, context: Context) -> bool:
        """Whether a step has ended that did something; one that did nothing rests, lest it be tried in a circle."""
        if self.task is None or not self.task.done():
            return False
        task, self.task = self.task, None
        if task.result():
            return True
        if await self.wait(context) == 0:
            self.rests_until = context.clock.now() + timedelta(seconds=self.rest_s)
            self.rest_s = min(self.rest_s * 2, UNREACHED_S)
        return False


async def once(context: Context, told: Told, stop: asyncio.Event) -> None:
    """Move everything that is due, and what becomes due within LINGER_S of that, then end."""
    async with context.holding(), presence.present(context, told.note, lost=stop.set):
        works = _works(context, told, stop)
        patience = 0.0
        try:
            await _until_idle(context, told, stop, works)
            patience = STOP_S
        finally:
            await end([work.task for work in works if work.task], patience)
        for work in works:
            if work.task and not work.task.cancelled():
                work.task.result()
    tell(context, told)
    if (opens := await window_opens(context)) and await context.db(due.jobs, due.BULK, list(context.endpoints)):
        told.note(f"bulk work waits for the window, which opens at {opens:%Y-%m-%d %H:%M} UTC")
    others, until = await context.db(due.held, here(context), context.owner, context.clock.now())
    if until:
        whose = f"{others} batches are" if others > 1 else "a batch is"
        told.note(f"{whose} another worker's; if that one died, the next run takes over from {until:%H:%M:%S} UTC on")


async def _until_idle(context: Context, told: Told, stop: asyncio.Event, works: list[_Work]) -> None:
    """Each kind of work runs beside the others, and is begun again while some of it is due."""
    tended: datetime | None = None
    while not stop.is_set():
        if tended is None or (context.clock.now() - tended).total_seconds() >= _TEND_S:
            tended = context.clock.now()
            await tend(context, told)
        pauses = []
        if any([await work.ended(context) for work in works]):  # it may have made room for what rests
            for work in works:
                work.rests_until = context.clock.now()
        for work in works:
            wait = None if work.task else await work.wait(context)
            if wait == 0 and (LINGER_S >= 0 or not work.begun):
                work.begin()
            elif wait is not None:
                pauses.append(wait)
        running = {work.task for work in works if work.task}
        soon = [pause for pause in pauses if pause <= LINGER_S]
        if not running and not soon:
            return
        await first(running, min([*soon, _TEND_S]), stop)


def _works(context: Context, told: Told, stop: asyncio.Event) -> list[_Work]:
    providers, now = list(context.endpoints), context.clock.now()

    async def bulk() -> datetime | None:
        waits = await context.db(due.jobs, due.BULK, providers)
        opens = await window_opens(context)
        leaves = await context.db(due.leaving)
        return min((at for at in (waits and max(waits, opens or waits), leaves) if at), default=None)

    async def batches_due() -> datetime | None:
        return await context.db(due.next_batch, here(context), context.owner, context.clock.now())

    async def move_all() -> int:
        return await _move_all(context, told, stop)

    return [
        _Work(partial(pack, context, told), bulk, now),
        _Work(move_all, batches_due, now, _GAVE_UP_S),
        _Work(partial(drain, context, told, stop), partial(context.db, due.jobs, due.LIVE, providers), now),
        _Work(partial(respond, context, told, stop), partial(background.next_due, context), now),
    ]


async def _move_all(context: Context, told: Told, stop: asyncio.Event) -> int:
    """Move the batches that are due, a few at a time; how many moved."""
    found = await context.db(due.batches, here(context), context.owner, context.clock.now())
    ids = iter([one.id for one in found])

    async def some() -> int:
        moved = 0
        for batch_id in ids:
            if stop.is_set():
                break
            moved += await move(context, told, batch_id)
        return moved

    movers = [asyncio.ensure_future(some()) for _ in found[:MOVES]]
    try:
        return sum(await asyncio.gather(*movers))
    finally:
        await end(movers, 0.0)


async def first(tasks: Iterable["asyncio.Task[int]"], seconds: float, *events: asyncio.Event) -> None:
    """Wait until one of the tasks has ended or one of the events has come, at most so long."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait({*tasks, *waits}, timeout=max(seconds, 0.01), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def end(tasks: Iterable["asyncio.Task[Any]"], seconds: float) -> None:
    """Let the tasks come to their end; after so long, or when we are cancelled, they are cut off, and settle."""
    running = set(tasks)
    try:
        if running and seconds:
            await asyncio.wait(running, timeout=seconds)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
