"""One worker among others: whatever the rows say is due is started once, and done by whoever is free.

Each worker looks every second for what is due and starts a short workflow for it; the queues share them out. The
workflow's id names what it is for, so that two workers that see the same start it once. An id is never used again, also
when its workflow failed: so it holds the time at which the thing fell due, and how often the sweep came round since.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from db import due, facts
from db.due import DueBatch
from db.engine import StoreAway, StoreError, passing
from jobs import background, closing, presence, windows, worker
from jobs.context import Context
from jobs.worker import MOVES, STOP_S, Told

if TYPE_CHECKING:
    from jobs.workflows import Workflows

# What may have left jobs to nobody when it failed: this worker renews their leases, until a new life gives them back.
_HOLDING = ("live_chunk", "background_chunk")

_LOOK_S = 1.0
_AGAIN_S = 5.0  # before a worker begins anew
_IDLE_S = 5.0  # after a chunk that found nothing to do, though something is due
_LAST_S = 5  # for the last workflows to be written down as over
_CLOSED_S = 40.0  # for all of the queues to end
_REMEMBERED = 10_000

# How many of each run at once in one worker, and how often it looks for one, in seconds.
_QUEUES = {"sweep": (1, 1.0), "move_batch": (MOVES, 1.0), "live_chunk": (1, 0.3), "background_chunk": (1, 1.0)}


async def run(context: Context, told: Told, stop: asyncio.Event, every_s: float) -> None:
    """Work until `stop` is set; Gone when the database has been away for too long.

    A worker that was paused for so long that another took over from it begins anew, under another name; so does one
    that failed by a mistake of ours.
    """
    while not stop.is_set():
        life = _Life(context, told, stop, every_s)
        await life.live()
        if life.gone:
            raise life.gone
        await worker.first((), _AGAIN_S if life.failed else 0, stop)
        if not stop.is_set():
            context = replace(context, owner=f"{context.owner.rpartition('-')[0]}-{token_hex(4)}")
            told.note(f"worker {context.owner} begins anew")


class _Life:
    """A worker from its registration to its end."""

    def __init__(self, context: Context, told: Told, stop: asyncio.Event, every_s: float) -> None:
        self._context, self._told, self._every_s = context, told, every_s
        self._told_to_stop = stop
        self._stop = asyncio.Event()  # told to, or lost
        self._busy: dict[asyncio.Task[Any], str] = {}
        self._started: dict[str, None] = {}
        self._swept = datetime.min.replace(tzinfo=UTC)
        self._idle_until = {"live_chunk": 0.0, "background_chunk": 0.0}
        self._scheduled: dict[str, tuple[str, str | None]] = {}
        self._flows: Workflows
        self.gone: BaseException | None = None
        self.failed = False

    async def live(self) -> None:
        """Until it is told to stop, or lost."""
        from jobs.workflows import Workflows

        context = self._context
        handlers = {name: self._handler(name, work) for name, work in self._handlers().items()}
        self._flows = Workflows(context.store, context.owner, handlers, self._told.note)
        lost = self._stop.set
        async with (
            context.holding(),
            presence.present(context, self._told.note, lost=lost, resume=self._resume) as beats,
        ):
            patience = 0.0
            try:
                if await self._launched():
                    await self._look_on(beats)
                    patience = STOP_S
            finally:
                self._stop.set()
                await self._finish(patience)

    async def _launched(self) -> bool:
        """Open the queues, with a first sweep in them; False when the database restarts just now."""
        try:
            await asyncio.to_thread(self._flows.launch, _QUEUES)
            await self._schedule()
            await self._start("sweep", f"sweep:{self._context.owner}", self._context.clock.now().isoformat())
        except Exception as error:
            if not (isinstance(error, StoreAway) or passing(error)):
                raise
            self._told.note(str(error))
            self.failed = True
            return False
        return True

    def _handlers(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        return {"sweep": self._sweep, "move_batch": self._move, "live_chunk": self._drain,
                "background_chunk": self._respond}  # fmt: skip

    def _handler(self, name: str, work: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[None]]:
        """A handler that never fails: a failed workflow would only say the same again."""

        async def handle(*args: str) -> None:
            task = asyncio.current_task()
            assert task is not None
            if self._stop.is_set():
                return
            self._busy[task] = name
            try:
                await work(*args)
            except StoreError as error:  # the sweep comes round again
                self._told.note(f"{name} {' '.join(args)}: {error}")
                self._give_back(name)
            except Exception as error:  # a mistake of ours
                self._told.trouble(f"{name} {' '.join(args)}: {type(error).__name__}: {error}")
                self._give_back(name)
            finally:
                del self._busy[task]

        return handle

    def _give_back(self, name: str) -> None:
        """Begin anew after what may have left jobs to nobody: taken by a commit, say, whose answer did not come."""
        if name in _HOLDING:
            self.failed = True
            self._stop.set()

    async def _finish(self, seconds: float) -> None:
        try:
            await worker.end(self._busy, seconds)
        finally:
            try:
                async with asyncio.timeout(_CLOSED_S):
                    await asyncio.to_thread(self._flows.close, _LAST_S)
            except TimeoutError:
                self.gone = presence.Gone("the worker's queues could not be closed: the database does not answer")

    # ---- what is due ----

    async def _look_on(self, beats: "asyncio.Task[None]") -> None:
        while not (self._stop.is_set() or self._told_to_stop.is_set()):
            if beats.done() and not self._stop.is_set():
                self.gone = beats.exception()
                return
            try:
                await self._look()
            except Exception as error:  # the heart-beat says so when it lasts
                self._told.note(f"cannot look for work: {error}")
            await worker.first((), min(_LOOK_S, self._every_s), self._stop, self._told_to_stop)

    async def _look(self) -> None:
        """Start what is due. Packing waits for the sweep: half a file in a batch of its own helps nobody."""
        context, now = self._context, self._context.clock.now()
        for one in await context.db(due.batches, worker.here(context), context.owner, now):
            await self._start("move_batch", self._id(one, now), one.id)
        if self._free("live_chunk") and await context.db(due.any_job, due.LIVE, list(context.endpoints), now):
            await self._start("live_chunk", f"live:{int(now.timestamp())}")
        if self._free("background_chunk") and (at := await background.next_due(context)) and at <= now:
            await self._start("background_chunk", f"background:{int(now.timestamp())}")

    def _free(self, chunk: str) -> bool:
        """Whether no such chunk runs here, and the last one found something to do."""
        return chunk not in self._busy.values() and self._context.clock.now().timestamp() >= self._idle_until[chunk]

    def _id(self, one: DueBatch, now: datetime) -> str:
        rounds = int((now - one.at).total_seconds() / max(self._every_s, _LOOK_S))
        return f"move:{one.id}:{one.at.timestamp():.3f}:{rounds}"

    async def _start(self, name: str, workflow_id: str, *args: str) -> None:
        if workflow_id not in self._started:
            await asyncio.to_thread(self._flows.start, name, workflow_id, *args)
            self._started[workflow_id] = None
            while len(self._started) > _REMEMBERED:
                del self._started[next(iter(self._started))]

    # ---- what is done ----

    async def _sweep(self, at: str) -> None:
        """What comes round once over all workers; a tick that a later sweep of ours has covered is let go."""
        if datetime.fromisoformat(at) < self._swept:
            return
        self._swept = self._context.clock.now()
        await worker.tend(self._context, self._told)
        await worker.pack(self._context, self._told)
        await closing.look(self._context, self._told)
        await self._schedule()
        await asyncio.to_thread(self._flows.prune)

    async def _move(self, batch_id: str) -> None:
        await worker.move(self._context, self._told, batch_id)

    async def _drain(self) -> None:
        if not await worker.drain(self._context, self._told, self._stop):
            self._idle_until["live_chunk"] = self._context.clock.now().timestamp() + _IDLE_S

    async def _respond(self) -> None:
        if not await worker.respond(self._context, self._told, self._stop):
            self._idle_until["background_chunk"] = self._context.clock.now().timestamp() + _IDLE_S

    async def _schedule(self) -> None:
        """Cron lines for the sweep and for the opening of the window, where they are new."""
        text = await self._context.db(facts.get, windows.KEY)
        window = windows.parse(text) if text else None
        wanted: dict[str, tuple[str, str | None] | None] = {"sweep": (every(self._every_s), None)}
        wanted["window"] = window.cron if window else None
        for name, line in wanted.items():
            if line is None:
                await asyncio.to_thread(self._flows.unschedule, name)
            elif self._scheduled.get(name) != line:
                await asyncio.to_thread(self._flows.schedule, name, "sweep", *line)
                self._scheduled[name] = line

    async def _resume(self, dead: str) -> None:
        await asyncio.to_thread(self._flows.resume, dead)


def every(seconds: float) -> str:
    """A cron line that comes round at least so often, in seconds or minutes that divide what is above them."""
    if seconds < 60:
        return f"*/{max(int(seconds), 1)} * * * * *"
    return f"*/{min(int(seconds // 60), 59)} * * * *" if seconds < 3600 else "0 * * * *"
