"""The workers and servers that share this database: who is alive, and who takes over for the dead."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Column, Connection, Index, Text, and_, case, delete, func, insert, null, select, true, update
from sqlmodel import Field, SQLModel

from db.dialect import hold, upsert
from db.engine import Store
from db.ledger import JOB
from db.queue import BATCH
from db.states import JobState
from db.tables import only, table

WORKS, SERVES = "worker", "server"  # kinds; a server moves no queued work, and only its own calls can be left


class Worker(SQLModel, table=True):
    """One run of a worker or of a server; its id is the owner in leases."""

    id: str = Field(sa_type=Text, primary_key=True)
    host: str = Field(sa_type=Text)
    pid: int
    started_at: datetime
    beat_at: datetime
    stopped_at: datetime | None = None  # it said goodbye
    taken_by: str | None = Field(default=None, sa_type=Text)  # who took over what it left
    kind: str = Field(default=WORKS, sa_column=Column(Text, nullable=False, server_default=WORKS))

    __table_args__ = (Index("worker_alive", "beat_at", **only("stopped_at IS NULL")),)


WORKER = table(Worker)


def register(store: Store, worker_id: str, host: str, pid: int, now: datetime) -> None:
    """A worker begins."""
    with store.write() as connection:
        new = {"id": worker_id, "host": host, "pid": pid, "started_at": now, "beat_at": now}
        connection.execute(insert(WORKER).values(new))


def serve(store: Store, server_id: str, host: str, pid: int, now: datetime) -> None:
    """A server begins, or is alive; one that was taken for dead goes on, without what was taken from it."""
    new = {"id": server_id, "host": host, "pid": pid, "started_at": now, "beat_at": now, "kind": SERVES}
    alive = {"beat_at": now, "stopped_at": None, "taken_by": None}
    with store.write() as connection:
        connection.execute(upsert(WORKER).on_conflict_do_update(index_elements=["id"], set_=alive), new)


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


def silent(store: Store, since: datetime, kind: str | None = None) -> list[str]:
    """Those, or those of one kind, that have not beaten since then and did not say goodbye."""
    meant = WORKER.c.kind == kind if kind else true()
    with store.read() as connection:
        gone = select(WORKER.c.id).where(WORKER.c.stopped_at.is_(None), WORKER.c.beat_at < since, meant)
        return list(connection.scalars(gone.order_by(WORKER.c.id)))


def take_over(store: Store, dead: str, by: str, since: datetime, now: datetime) -> bool:
    """Free what a silent one holds; True for the one who may take over, who says `settled` at the end.

    One who dies between the two is silent in turn, and so is the dead one again: the next one takes it over. A server
    is settled at once: what it held is all that it had.
    """
    theirs = and_(WORKER.c.id == dead, WORKER.c.stopped_at.is_(None), WORKER.c.beat_at < since)
    taken = {"taken_by": by, "beat_at": now, "stopped_at": case((WORKER.c.kind == SERVES, now), else_=null())}
    with store.write() as connection:
        if not connection.execute(update(WORKER).where(theirs).values(taken)).rowcount:
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
            select(func.max(WORKER.c.beat_at)).where(WORKER.c.taken_by.is_(None), WORKER.c.kind == WORKS)
        )
        return beats


def prune(store: Store, before: datetime) -> None:
    """Forget those that began and fell silent before then."""
    with store.write() as connection:
        connection.execute(delete(WORKER).where(WORKER.c.started_at < before, WORKER.c.beat_at < before))
