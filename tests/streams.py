"""What the tests of the stream lane share: a job that its submitter holds, and what its reader sees of it."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from itertools import groupby
from typing import Any

from db import log, queue
from db.engine import Store
from db.ids import new_id
from db.log import Piece, Tail
from db.queue import Claim
from jobs import stream
from jobs.chat import Delta, Handling
from jobs.context import Context
from jobs.providers import Timeouts
from jobs.runner import Event
from tests.lanes import NOW, World, add, decision, job, rows

WORDS = "Explain in 40 words how a railway signal works."  # the sandbox counts: 40 deltas
LONG = "Explain in 900 words how a railway signal works."
QUICK = Timeouts(first_token=0.3, idle=0.3, total=5.0, connect=2.0)


def claim(world: World, context: Context, prompt: str = WORDS, *, lane: str = "stream", output_p90: int = 1,
          **more: Any) -> Claim:  # fmt: skip
    """A job that its submitter runs now; `more` are fields of its handling and columns of the job."""
    now = world.clock.now()
    chosen = {name: more.pop(name) for name in Handling.model_fields if name in more}
    new = job(prompt, now=now, lane=lane, interactive=True, decision_id=new_id(now),
              handling=Handling(**chosen).stored(), **more)  # fmt: skip
    decided = decision(new.decision_id, lane=lane) | {"output_p90": output_p90}
    claimed = queue.start(world.store, new, new.id, decided, context.owner, context.until(), now)
    assert claimed is not None
    return claimed


@asynccontextmanager
async def process(world: World, **changes: Any) -> AsyncIterator[Context]:
    """A process for the length of the block; at its end nothing of it runs any more."""
    context = world.context(**changes)
    try:
        yield context
    finally:
        await context.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}, "a task was left behind"


async def all_of(context: Context, claimed: Claim) -> list[Event]:
    """Everything that a reader sees who stays."""
    async with aclosing(stream.watch(context, claimed)) as events:
        return [event async for event in events]


async def begun(context: Context, claimed: Claim, deltas: int = 3) -> tuple[AsyncGenerator[Event, None], str]:
    """A reader who has had so many deltas and has not left yet, and what it read."""
    events = stream.watch(context, claimed)
    said = [(await anext(events)).text for _ in range(deltas)]  # type: ignore[union-attr]
    return events, "".join(said)


def seen(events: list[Event]) -> list[Any]:
    """The texts between the ends of attempts, and each end as its number and what became of the job."""
    runs = groupby(events, key=lambda event: isinstance(event, Delta))
    found: list[Any] = []
    for deltas, run in runs:
        if deltas:
            found.append("".join(event.text for event in run if isinstance(event, Delta)))
        else:
            found += [(event.n, type(event.ending).__name__) for event in run if not isinstance(event, Delta)]
    return found


def attempt_of(found: Any) -> Any:
    """The newest attempt of a job in its JSON form."""
    return found["attempts"][-1]


async def until(happened: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Back with what it says once that is true."""
    async with asyncio.timeout(seconds):
        while not (found := happened()):  # noqa: ASYNC110 - a file and another process have no bell
            await asyncio.sleep(0.005)
        return found


def at_once(happened: Callable[[], Any], seconds: float = 10.0) -> Any:
    """The same while the event loop stands still: what threads tell it is not heard before this is over."""
    end = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.002)
    return found


@contextmanager
def locked(store: Store) -> Iterator[Callable[[], None]]:
    """Another process writes: nobody else can until the block ends, or until what it gives is called."""
    if store.path is None:
        held = store.raw()
        held.cursor().execute("LOCK TABLE job, attempt, delta IN SHARE ROW EXCLUSIVE MODE")
        try:
            yield held.rollback
        finally:
            held.close()
        return
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield lambda: other.in_transaction and other.execute("ROLLBACK")  # type: ignore[return-value]
    finally:
        other.close()


def sent(store: Store) -> list[int]:
    """The numbers of the attempts that are open."""
    return [row[0] for row in rows(store, "SELECT n FROM attempt WHERE state = 'sent' ORDER BY n")]


def logged(store: Store) -> int:
    """How many pieces the log holds."""
    return int(rows(store, "SELECT count(*) FROM delta")[0][0])


def opened(store: Store) -> Claim:
    """A job in the stream lane with an open attempt."""
    add(store, job(lane="stream"))
    return queue.claim(store, "me", NOW, 1, NOW, ["openai"])[0]


def tail(store: Store, job_id: str, attempt: int = 1, seq: int = 0) -> Tail:
    """What a reader gets at an offset of an attempt."""
    found = log.tail(store, job_id, attempt, seq)
    assert found is not None
    return found


def size(store: Store, job_id: str) -> int:
    """How many characters of the newest attempt the log holds."""
    pieces = tail(store, job_id).pieces
    return pieces[-1].seq + len(pieces[-1].text) if pieces else 0


def come(store: Store, job_id: str, characters: int) -> list[Piece]:
    """The pieces once so many characters are in the log."""
    at_once(lambda: size(store, job_id) == characters)
    return list(tail(store, job_id).pieces)
