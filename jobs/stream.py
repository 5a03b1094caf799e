"""The stream lane: a job is carried to its end by a task of its own, and whoever reads along may come and go."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from math import inf

from db import queue
from db.ledger import Charge
from db.queue import Claim
from db.settle import Again, Cancelled
from db.states import AttemptState
from jobs.chat import OnLeave, Outcome
from jobs.context import Context
from jobs.finishing import finished
from jobs.observing import JobLeft
from jobs.runner import Ended, Event, attempt, request_of, save

BURST_S = 0.001  # how long deltas that came at once are decoded before their readers have a turn


class Feed:
    """What happens to one job, in order, for any number of readers: none of them slows the writer or another reader."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._over = False
        self._error: BaseException | None = None
        self._waiting: list[asyncio.Future[None]] = []

    def put(self, event: Event) -> None:
        """One more."""
        self._events.append(event)
        self._ring()

    def end(self, error: BaseException | None = None) -> None:
        """There will be no more; `error` is raised in every reader."""
        self._over, self._error = True, error
        self._ring()

    def _ring(self) -> None:
        waiting, self._waiting = self._waiting, []
        for reader in waiting:
            if not reader.done():  # one that left is
                reader.set_result(None)

    async def read(self) -> AsyncGenerator[Event, None]:
        """Everything from the beginning on."""
        at = 0
        while burst := await self.after(at):
            at += len(burst)
            for event in burst:
                yield event

    async def after(self, at: int, quiet_s: float = inf) -> Sequence[Event] | None:
        """What there is after the first `at` events, as soon as there is any; nothing at the end.

        None when there was nothing for `quiet_s` seconds.
        """
        late = None if quiet_s == inf else asyncio.get_running_loop().call_later(quiet_s, self._ring)
        try:
            while at >= len(self._events):
                if self._over:
                    if self._error is not None:
                        raise self._error
                    return ()
                if late and late.when() <= asyncio.get_running_loop().time():
                    return None
                bell = asyncio.get_running_loop().create_future()
                self._waiting.append(bell)
                await bell
            return self._events[at:]
        finally:
            if late:
                late.cancel()


class Carried:
    """A job that runs in this process; it is tried again by itself while its handling allows that."""

    def __init__(self, context: Context, claim: Claim) -> None:
        self.feed = Feed()
        self._context = context
        self._claim = claim
        self._request = request_of(claim)
        self._breathed = 0.0
        self._left = asyncio.Event()
        self._begun = False
        self._task = asyncio.create_task(self._carry())
        context.carried.add(self._task)
        context.running.begin(claim.job_id, self._task)
        self._task.add_done_callback(context.carried.discard)

    async def _carry(self) -> None:
        self._begun = True
        try:
            async with self._context.holding():
                await self._attempts()
            self.feed.end()
        except asyncio.CancelledError:
            self.feed.end()
            raise
        except Exception as error:
            self.feed.end(error)
        finally:
            self._context.running.end(self._claim.job_id)
            self._context.tell(JobLeft(self._claim.job_id))

    async def _attempts(self) -> None:
        claim, held = self._claim, None
        try:
            following: Claim | None = claim
            while following is not None:
                claim, following, held = following, None, None
                request = self._request if claim is self._claim else request_of(claim)
                async with aclosing(attempt(self._context, claim, request, keep=True)) as events:
                    async for event in events:
                        held = event if isinstance(event, Ended) and isinstance(event.ending, Again) else None
                        self.feed.put(event)
                        await self._breathe()
                if held is not None and isinstance(held.ending, Again):
                    following = await self._next(claim, held.ending)
        except asyncio.CancelledError:
            now = self._context.clock.now()
            await finished(self._context.thread(queue.leave, claim, now))  # where it is still ours
            raise

    async def _breathe(self) -> None:
        """Let the readers hear the first word at once, and the rest of a burst while it is decoded."""
        if time.monotonic() - self._breathed > BURST_S:
            await asyncio.sleep(0)
            self._breathed = time.monotonic()  # others had their turn meanwhile: that was no burst of this one

    async def _next(self, claim: Claim, again: Again) -> Claim | None:
        """Wait, then open the next attempt; None when the job is no longer ours to go on with."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max((again.run_after - self._context.clock.now()).total_seconds(), 0)):
                await self._left.wait()
        opening = self._context.thread(queue.again, claim, self._context.clock.now(), self._context.purse)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            with suppress(asyncio.CancelledError):
                await finished(opening)
            if (opened := opening.result()) is not None:
                await leave(self._context, opened)
            raise

    def when_done(self, call: Callable[[], object]) -> None:
        """Call this once it has come to its end."""
        self._task.add_done_callback(lambda _: call())

    async def stop(self) -> None:
        """Cancel the job, whatever it says of leaving; it is settled then."""
        await self._context.running.stop([self._claim.job_id])
        await asyncio.wait({self._task})

    async def leave(self) -> None:
        """The last reader has left: what the request says of that is done."""
        if self._task.done():
            if not self._begun:  # a task that is cancelled before its first step does nothing at all
                self._context.running.end(self._claim.job_id)
                await leave(self._context, self._claim)
            return
        match self._request.handling.on_leave:
            case OnLeave.CANCEL:
                self._task.cancel()
                await asyncio.wait({self._task})
            case OnLeave.DRAIN:
                await self._context.db(queue.leave, self._claim, self._context.clock.now())
                self._left.set()
            case OnLeave.CONTINUE:
                pass


async def watch(context: Context, claim: Claim) -> AsyncGenerator[Event, None]:
    """The deltas of a job that its submitter runs, and how each of its attempts ended.

    Closing it early is leaving: by default the connection is closed and the attempt settled before `aclose()` returns;
    `drain` and `continue` go on in this event loop, and `Context.settled()` waits for them.
    """
    carried = Carried(context, claim)
    async with aclosing(carried.feed.read()) as events:
        try:
            async for event in events:
                yield event
        except (asyncio.CancelledError, GeneratorExit):
            await carried.leave()
            raise


async def leave(context: Context, claim: Claim) -> None:
    """Cancel a job that was claimed to be watched and never was: nothing was sent."""
    why, ended = "its reader left before it was sent", Outcome.CANCELLED.value
    charge = Charge.free(AttemptState.CANCELLED, code="cancelled", error=why, outcome=ended)
    await finished(save(context, claim, Ended(claim.n, charge, Cancelled()), keep=True))
