"""What can happen to workers: one dies or stops at a point, two do, some die at random, the database goes away."""

import signal
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing

from sqlalchemy import update
from sqlmodel import SQLModel

from db import batches, queue
from tests.chaos import ENDED_BADLY, ENDED_WELL, KILLED, STOPPED, Chaos, Point, Worker
from tests.lanes import rows

Act = Callable[[Chaos], None]
LONGEST_S = 120.0  # for everything to be done by workers that run


# ---- one worker, or two of which one sleeps ----


def kill(point: Point) -> Act:
    """A worker dies at the point, and never comes back."""

    def act(chaos: Chaos) -> None:
        chaos.reach("kill", point)
        chaos.bury()

    return act


def pause(first: Point, then: Point | None = None, *, what: str = "pause", at_once: bool = False) -> Act:
    """A worker stops at the point while another does its work: all of it, or as far as `then`; then it goes on.

    `what` becomes of the other at `then`: it stops, too, until the first is at its end, or it dies. `at_once`: both
    go on together.
    """

    def act(chaos: Chaos) -> None:
        sleeper = chaos.reach("pause", first)
        chaos.bury()
        if then is None:
            chaos.finish()
        other = chaos.reach(what, then) if then else None
        asleep = [worker for worker in (sleeper, other if what == "pause" else None) if worker]
        for those in [asleep] if at_once else [[worker] for worker in asleep]:
            chaos.wake(*those)

    return act


def some(act: Act) -> Act:
    """The same, if it comes to that: a drawn point may never be reached."""

    def perhaps(chaos: Chaos) -> None:
        chaos.must_reach = False
        act(chaos)

    return perhaps


# ---- two at a time ----


def two(points: Sequence[Point]) -> Act:
    """Two workers at a time, each of which dies at the next of the points, and never comes back."""

    def act(chaos: Chaos) -> None:
        left, slots = list(points), dict[Worker, Point]()
        while slots or (left and not chaos.done()):
            while left and len(slots) < 2:
                point = left.pop(0)
                slots[chaos.start(("kill", *point))] = point
            for worker, point in list(slots.items()):
                if event := worker.now():
                    assert event in (KILLED, ENDED_WELL), f"{point}: {event}; {chaos.log()}"
                    chaos.count(event)
                    del slots[worker]
                    left += [point] if event == ENDED_WELL else []

    return act


def at_random(kills: int, seconds: float = 1.0) -> Act:
    """Two workers at a time, of which one is killed every now and then; another takes its place."""

    def act(chaos: Chaos) -> None:
        slots = [chaos.start(), chaos.start()]
        for _ in range(kills):
            time.sleep(chaos.random.uniform(0.1, seconds))
            worker = slots.pop(chaos.random.randrange(2))
            event = worker.now()
            if event is None:
                worker.signal(signal.SIGKILL)
                event = worker.next()
            chaos.count(event)
            slots.append(chaos.start())
        for worker in slots:
            chaos.count(worker.next())

    return act


# ---- workers that run until they are told to stop ----


def fleet(what: str, point: Point) -> Act:
    """Two of them: whichever comes to the point dies or stops there, and so does the other; then a third takes over.

    Those that stopped go on when all is done, for as long as it takes them to see that they were given up.
    """

    def act(chaos: Chaos) -> None:
        running = [chaos.start((what, *point), fleet=True) for _ in range(2)]
        stopped: list[Worker] = []
        until = time.monotonic() + LONGEST_S
        while not chaos.done():
            assert time.monotonic() < until, f"{chaos.world.states()}; {chaos.log()}"
            for worker in list(running):
                if event := worker.now():
                    assert event in (KILLED, STOPPED), f"{event}; {chaos.log()}"
                    chaos.count(event)
                    running.remove(worker)
                    stopped += [worker] if event == STOPPED else []
            if not running:
                running.append(chaos.start(fleet=True))
        assert chaos.kills + chaos.pauses, f"no worker came to {point}; {chaos.log()}"
        for worker in stopped:
            worker.signal(signal.SIGCONT)
        time.sleep(1.0 if stopped else 0.0)
        _told_to_stop(chaos, [*running, *stopped])

    return act


# ---- people ----


def cancel_jobs(number: int) -> Act:
    """`shunter jobs cancel` of the first jobs."""

    def act(chaos: Chaos) -> None:
        ids = [row[0] for row in rows(chaos.world.store, "SELECT id FROM job ORDER BY id")][:number]
        queue.cancel(chaos.world.store, ids, chaos.world.clock.now())

    return act


def cancel_batches(chaos: Chaos) -> None:
    """`shunter batches cancel` of all of them."""
    for (batch_id,) in rows(chaos.world.store, "SELECT id FROM batch"):
        batches.cancelling(chaos.world.store, batch_id, chaos.world.clock.now())


def hour_to_leave(chaos: Chaos) -> None:
    """The time to leave the batch lane has come for every job that has one."""
    values = {"now": chaos.world.clock.now()}
    with chaos.world.store.write() as connection:
        for name in ("job", "batch"):
            changed = update(SQLModel.metadata.tables[name])
            connection.execute(changed.where(changed.table.c.leave_by.is_not(None)).values(leave_by=values["now"]))


# ---- the database ----


def locked(times: int, seconds: float) -> Act:
    """Another process holds SQLite's write lock for longer than a worker waits, again and again."""

    def act(chaos: Chaos) -> None:
        worker = chaos.start(busy_ms=300)
        with closing(sqlite3.connect(str(chaos.world.store.path), isolation_level=None, timeout=30)) as other:
            for _ in range(times):
                time.sleep(chaos.random.uniform(0.1, 0.5))
                other.execute("BEGIN IMMEDIATE")
                time.sleep(seconds)
                other.execute("ROLLBACK")
                if event := worker.now():
                    chaos.count(event)
                    worker = chaos.start(busy_ms=300)
        chaos.count(worker.next())
        chaos.bury()

    return act


def full(pages: int) -> Act:
    """The file cannot grow any more until there is room again."""

    def act(chaos: Chaos) -> None:
        event = chaos.start(spare_pages=pages).next()
        assert event == ENDED_BADLY, f"{event}; {chaos.log()}"
        assert "no room to grow" in chaos.log(), chaos.log()
        chaos.count(event)
        chaos.bury()

    return act


def crashed(times: int) -> Act:
    """PostgreSQL is stopped, with and without a word, and started again, while workers run.

    One that cannot go on, as when it was just starting, is begun anew, as systemd would do.
    """

    def act(chaos: Chaos) -> None:
        assert chaos.server is not None
        passing, running = chaos.start(), [chaos.start(fleet=True), chaos.start(fleet=True)]
        while not rows(chaos.world.store, "SELECT 1 FROM attempt LIMIT 1"):
            time.sleep(0.05)
        for number in range(times):
            time.sleep(chaos.random.uniform(0.5, 1.5))
            chaos.server.restart(crash=number % 2 == 0)
        chaos.count(passing.next())
        until = time.monotonic() + LONGEST_S
        while not chaos.done():
            assert time.monotonic() < until, f"{chaos.world.states()}; {chaos.log()}"
            running = [_begun_anew(chaos, worker) for worker in running]
        _told_to_stop(chaos, [worker for worker in running if worker.now() is None])

    return act


def _begun_anew(chaos: Chaos, worker: Worker) -> Worker:
    event = worker.now()
    if event is None:
        return worker
    chaos.count(event)
    return chaos.start(fleet=True)


def _told_to_stop(chaos: Chaos, running: Sequence[Worker]) -> None:
    for worker in running:
        worker.signal(signal.SIGTERM)
        assert worker.next() == ENDED_WELL, chaos.log()
