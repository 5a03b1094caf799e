"""Jobs are stopped: what waits is cancelled at once, what runs somewhere is cancelled there."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select

from db import queue, wishes
from db.dialect import within
from db.engine import Store
from db.ledger import JOB
from db.states import FINAL, JobState
from db.wishes import STOP


def stop(store: Store, job_ids: Sequence[str], now: datetime) -> dict[str, JobState]:
    """Cancel those that wait or are in a batch, wish that those stop which run; the state of each now.

    To be called again until all are final: one that was between two attempts is cancelled then.
    """
    states, wished = _look(store, job_ids)
    waiting = [job_id for job_id, state in states.items() if state in (JobState.QUEUED, JobState.SUBMITTED)]
    running = [job_id for job_id, state in states.items() if state is JobState.RUNNING and job_id not in wished]
    if waiting:
        queue.cancel(store, waiting, now)
    if running:
        wishes.wish(store, running, now)
    if waiting or running:
        states, wished = _look(store, job_ids)
    if over := [job_id for job_id in wished if states[job_id] in FINAL]:
        with store.write() as connection:
            wishes.forget(connection, over)
    return states


def states(store: Store, job_ids: Sequence[str]) -> dict[str, JobState]:
    """Where each of them stands."""
    return _look(store, job_ids)[0]


def _look(store: Store, job_ids: Sequence[str]) -> tuple[dict[str, JobState], set[str]]:
    query = select(JOB.c.id, JOB.c.state, STOP.c.job_id).join(STOP, STOP.c.job_id == JOB.c.id, isouter=True)
    with store.read() as connection:
        rows = connection.execute(query.where(within(JOB.c.id, job_ids, connection))).all()
    return {row[0]: JobState(row[1]) for row in rows}, {row[2] for row in rows if row[2]}


def tidy(store: Store, now: datetime) -> None:
    """Do the same for whoever wished it and has left: an owner may have died, or have put its job back."""
    left = select(STOP.c.job_id).join(JOB, JOB.c.id == STOP.c.job_id).where(JOB.c.state != JobState.RUNNING.value)
    with store.read() as connection:
        ids = list(connection.scalars(left))
    if ids:
        stop(store, ids, now)
