"""The workers that share this database: who is alive, and who takes over for the dead."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Index, Text, and_, delete, func, insert, select, update
from sqlmodel import Field, SQLModel

from db.dialect import hold
from db.engine import Store
from db.ledger import JOB
from db.queue import BATCH
from db.states import JobState
from db.tables import only, table


class Worker(SQLModel, table=True):
    """One run of a worker; its id is the owner in leases."""

    id: str = Field(sa_type=Text, primary_key=True)
    host: str = Field(sa_type=Text)
    pid: int
    started_at: datetime
    beat_at: datetime
    stopped_at: datetime | None = None  # it said goodbye
    taken_by: str | None = Field(default=None, sa_type=Text)  # who took over what it left

    __table_args__ = (Index("worker_alive", "beat_at", **only("stopped_at IS NULL")),)


WORKER = table(Worker)


def register(store: Store, worker_id: str, host: str, pid: int, now: datetime) -> None:
    """A worker begins."""
    with store.write() as connection:
        new = {"id": worker_id, "host": host, "pid": pid, "started_at": now, "beat_at": now}
        connection.execute(insert(WORKER).values(new))


def beat(store: Store, worker_id: str, now: datetime) -> bool:
    """It is alive; False when another has taken over what it had, so that it must begin anew."""
    with store.write() as connection:
        return connection.execute(update(WORKER).where(_mine(worker_id)).values(beat_at=now)).rowcount == 1


def _mine(worker_id: str) -> Any:
    return and_(WORKER.c.id == worker_id, WORKER.c.stopped_at.is_(None), WORKER.c.taken_by.is_(None))


def goodbye(store: Store, worker_id: str, now: datetime) -> None:
    """It ends, and holds nothing from now on."""
    with store.write() as connection:
        connection.execute(update(WORKER).where(_mine(worker_id)).values(stopped_at=now))
        _free(connection, worker_id, now)


def silent(store: Store, since: datetime) -> list[str]:
    """The workers that have not beaten since then and did not say goodbye."""
    with store.read() as connection:
        gone = select(WORKER.c.id).where(WORKER.c.stopped_at.is_(None), WORKER.c.beat_at < since)
        return list(connection.scalars(gone.order_by(WORKER.c.id)))


def take_over(store: Store, dead: str, by: str, since: datetime, now: datetime) -> bool:
    """Free what a silent worker holds; True for the one who may take over, who says `settled` at the end.

    One who dies between the two is silent in turn, and so is the dead one again: the next one takes it over.
    """
    theirs = and_(WORKER.c.id == dead, WORKER.c.stopped_at.is_(None), WORKER.c.beat_at < since)
    with store.write() as connection:
        if not connection.execute(update(WORKER).where(theirs).values(taken_by=by, beat_at=now)).rowcount:
            return False
        _free(connection, dead, now)
    return True


def settled(store: Store, dead: str, by: str, now: datetime) -> None:
    """Nothing of the dead worker is left to be taken over."""
    with store.write() as connection:
        taken = and_(WORKER.c.id == dead, WORKER.c.taken_by == by)
        connection.execute(update(WORKER).where(taken).values(stopped_at=now))


def _free(connection: Connection, owner: str, now: datetime) -> None:
    """End the owner's leases: its jobs are for the rescue, its batches for whoever takes them."""
    held = and_(JOB.c.lease_by == owner, JOB.c.state == JobState.RUNNING.value)
    hold(connection, select(JOB.c.id).where(held).order_by(JOB.c.id))
    connection.execute(update(JOB).where(held).values(lease_until=now - timedelta(seconds=1)))
    connection.execute(update(BATCH).where(BATCH.c.lease_by == owner).values(lease_by=None, lease_until=None))


def last_beat(store: Store) -> datetime | None:
    """When a worker has last shown that it runs; None when none ever has."""
    with store.read() as connection:
        beats: datetime | None = connection.scalar(
            select(func.max(WORKER.c.beat_at)).where(WORKER.c.taken_by.is_(None))
        )
        return beats


def prune(store: Store, before: datetime) -> None:
    """Forget the workers that began and fell silent before then."""
    with store.write() as connection:
        connection.execute(delete(WORKER).where(WORKER.c.started_at < before, WORKER.c.beat_at < before))
