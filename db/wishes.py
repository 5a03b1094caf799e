"""Wishes that jobs stop which run somewhere: whoever runs one sees the wish, and cancels it there."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Column, Connection, ForeignKey, Text, delete, select
from sqlmodel import Field, SQLModel

from db.dialect import upsert, within
from db.engine import Store
from db.ledger import JOB
from db.states import JobState
from db.tables import table


class Stop(SQLModel, table=True):
    """Somebody wants this job to stop; the wish goes when the job has ended."""

    job_id: str = Field(sa_column=Column(Text, ForeignKey("job.id"), primary_key=True))
    asked_at: datetime


STOP = table(Stop)
_WISH = upsert(STOP).on_conflict_do_nothing(index_elements=["job_id"])


def wish(store: Store, job_ids: Sequence[str], now: datetime) -> None:
    """Somebody wants these to stop."""
    with store.write() as connection:
        connection.execute(_WISH, [{"job_id": job_id, "asked_at": now} for job_id in job_ids])


def wanted(store: Store, by: str) -> list[str]:
    """The jobs that this owner runs, and that somebody wants to stop."""
    theirs = select(STOP.c.job_id).join(JOB, JOB.c.id == STOP.c.job_id)
    with store.read() as connection:
        return list(connection.scalars(theirs.where(JOB.c.lease_by == by, JOB.c.state == JobState.RUNNING.value)))


def forget(connection: Connection, job_ids: Sequence[str]) -> None:
    """They came true, or nobody wants them any more."""
    connection.execute(delete(STOP).where(within(STOP.c.job_id, job_ids, connection)))
