"""Bulk as concurrent calls under what providers allow: each slot calls, and is free when its own answer is saved.

So a crash repeats only what was in flight. Answers that come at about the same time are saved, and their slots filled
again, in one go.
"""

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial

from db import claims, queue, rates, settle
from db.engine import Store
from db.queue import Claim
from db.rates import Gates, Lesson
from db.reserving import Purse
from db.settle import Settlement
from jobs import runner
from jobs.context import Context
from jobs.finishing import finished
from jobs.limits import Lessons
from jobs.observing import LimitsLearned
from jobs.runner import Ended

TOGETHER_S = 0.01  # an answer waits so long for others to be saved with it
LOOK_S = 1.0  # a slot that is free looks again after this
PATIENCE_S = 60.0  # for jobs that wait for nothing but a limit
HANDOVER_S = 0.0005  # a thread that holds the database's lock must not wait for this one at each row: 5 ms by default

Tell = Callable[[Claim, Ended], None]


async def drain(context: Context, tell: Tell, stop: asyncio.Event) -> int:
    """Run due jobs of the live lanes, `context.concurrency` at a time, until none is due or `stop` is set; how many.

    Jobs whose provider has no room for longer than PATIENCE_S are left for later.
    """
    usual = sys.getswitchinterval()
    sys.setswitchinterval(min(HANDOVER_S, usual))
    try:
        return await _Drain(context, tell, stop).run()
    finally:
        sys.setswitchinterval(usual)


class _Drain:
    """The slots of one process."""

    def __init__(self, context: Context, tell: Tell, stop: asyncio.Event) -> None:
        self._context, self._tell, self._stop = context, tell, stop
        urls = {name: endpoint.base_url for name, endpoint in context.endpoints.items()}
        self._gates, self._lessons = Gates(urls), Lessons(urls)
        self._calls: set[asyncio.Task[None]] = set()
        self._unsaved: list[tuple[Settlement, asyncio.Future[None]]] = []
        self._held = 0  # slots: claimed, and not saved yet
        self._done = 0
        self._enough = max(context.concurrency // 8, 1)  # answers to be saved at once
        self._bell, self._plenty = asyncio.Event(), asyncio.Event()
        self._closing = False

    async def run(self) -> int:
        ringing = asyncio.ensure_future(self._ring_at_stop())
        try:
            await self._load()
            while await self._turn():
                pass
            await asyncio.gather(*self._calls)
        finally:
            ringing.cancel()
            await finished(self._close())  # a slot whose save nobody takes up would wait for ever
        return self._done

    async def _load(self) -> None:
        """Make the providers ready before a job is claimed: a lease should not begin with the import of an SDK."""
        context = self._context
        names = await context.db(claims.ahead, context.concurrency, context.clock.now(), list(context.endpoints))
        for name in names:
            with suppress(Exception):  # each attempt will say it
                await context.load(name)

    async def _turn(self) -> bool:
        """Save what was answered, fill the slots that are free, and wait for more; False at the end."""
        self._raise()
        now = self._context.clock.now()
        for claim in await self._move(now):
            self._start(claim, now)
        waits = self._gates.wait_s if self._free else None
        if not self._held and (waits is None or waits > PATIENCE_S):
            return False
        if waits is None and self._free:
            waits = LOOK_S  # a long call must not keep the other slots from what is queued meanwhile
        await self._answers(waits)
        return True

    # ---- a slot ----

    def _start(self, claim: Claim, now: datetime) -> None:
        self._held += 1
        call = asyncio.create_task(self._call(claim, now))
        self._calls.add(call)
        self._context.running.begin(claim.job_id, call)

    async def _call(self, claim: Claim, sent_at: datetime) -> None:
        running = self._context.running
        try:
            ended = await runner.run(self._context, claim, partial(self._save, claim, sent_at))
        except asyncio.CancelledError:
            if not running.stopped(claim.job_id):
                raise
            self._done += 1  # cancelled and settled: the other slots go on
            return
        finally:
            running.end(claim.job_id)
        self._done += 1
        self._tell(claim, ended)

    def _save(self, claim: Claim, sent_at: datetime, settlement: Settlement, ended: Ended) -> "asyncio.Future[None]":
        """Settle it with the next ones; when all is being closed nobody takes turns any more."""
        self._lessons.hear(claim, sent_at, ended)
        if self._closing:
            return self._context.thread(settle.settle, [settlement], self._context.clock.now())
        saved = asyncio.get_running_loop().create_future()
        self._unsaved.append((settlement, saved))
        self._bell.set()
        if len(self._unsaved) >= self._enough:
            self._plenty.set()
        return saved

    # ---- all of them ----

    async def _answers(self, seconds: float | None) -> None:
        """Wait for an answer, and a moment for more of them; or so many seconds, until a limit lets calls through."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._bell.wait()
        if self._unsaved:
            with suppress(TimeoutError):
                async with asyncio.timeout(TOGETHER_S):
                    await self._plenty.wait()

    async def _move(self, now: datetime) -> list[Claim]:
        """Settle what is unsaved and claim for the slots that are free then, at once; each slot hears of its own."""
        self._bell.clear()
        self._plenty.clear()
        unsaved, self._unsaved = self._unsaved, []
        self._held -= len(unsaved)
        claim = self._claiming(now)
        if not unsaved:
            return await self._context.db(claim) if claim else []
        try:
            taken = await self._context.db(_settle_and_claim, [one for one, _ in unsaved], now, claim)
        except asyncio.CancelledError:  # it may have been settled: to do it again changes nothing
            self._unsaved = unsaved + self._unsaved
            self._held += len(unsaved)
            raise
        except Exception as error:
            for _, saved in unsaved:
                if not saved.done():
                    saved.set_exception(error)
            raise
        for _, saved in unsaved:
            if not saved.done():  # a slot that was cancelled waits on, behind a shield
                saved.set_result(None)
        return taken

    def _claiming(self, now: datetime) -> Callable[[Store], list[Claim]] | None:
        """What fills the free slots; None while none is."""
        context, free = self._context, self._free
        if not free:
            return None
        if lessons := self._lessons.due(now):
            context.tell(LimitsLearned(lessons))
        return partial(
            _learn_and_claim, lessons=lessons, by=context.owner, until=context.until(), free=free, now=now,
            providers=list(context.endpoints), gates=self._gates, purse=context.purse,
        )  # fmt: skip

    @property
    def _free(self) -> int:
        return 0 if self._closing or self._stop.is_set() else self._context.concurrency - self._held

    def _raise(self) -> None:
        """What went wrong in a slot ends them all."""
        for task in [task for task in self._calls if task.done()]:
            self._calls.discard(task)
            task.result()

    async def _ring_at_stop(self) -> None:
        await self._stop.wait()
        self._bell.set()

    async def _close(self) -> None:
        """Cut off what still runs; every slot settles itself."""
        self._closing = True
        while self._unsaved:
            with suppress(Exception):  # the slots have heard of it, and owe what they hold
                await self._move(self._context.clock.now())
        for task in self._calls:
            task.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)


def _settle_and_claim(
    store: Store, settlements: Sequence[Settlement], now: datetime, claim: Callable[[Store], list[Claim]] | None
) -> list[Claim]:
    with store.as_one():
        settle.settle(store, settlements, now)
        return claim(store) if claim else []


def _learn_and_claim(
    store: Store, lessons: list[Lesson], by: str, until: datetime, free: int, now: datetime, providers: list[str],
    gates: Gates, purse: Purse,
) -> list[Claim]:  # fmt: skip
    if lessons:
        rates.learn(store, lessons, now)
    return queue.claim(store, by, until, free, now, providers, gates, purse)
