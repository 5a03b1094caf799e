"""What is due, and when the next thing will be: the rows say it, in a few small reads."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import and_, func, or_, select

from db.engine import Store
from db.ledger import JOB
from db.queue import BATCH
from db.states import BatchState, JobState, Lane

LIVE = (Lane.STREAM.value, Lane.SYNC.value)
BULK = (Lane.BATCH.value,)  # what waits for the window: the background lane is there for what cannot


class DueBatch(NamedTuple):
    """An open batch that nobody holds, and since when it waits to be looked at."""

    id: str
    at: datetime


def jobs(store: Store, lanes: Sequence[str], providers: Sequence[str]) -> datetime | None:
    """When the next queued job of these lanes and providers may run; None when none waits."""
    with store.read() as connection:
        waiting = and_(JOB.c.lane.in_(lanes), JOB.c.provider.in_(providers))
        at: datetime | None = connection.scalar(
            select(func.min(JOB.c.run_after)).where(JOB.c.state == JobState.QUEUED.value, waiting)
        )
        return at


def any_job(store: Store, lanes: Sequence[str], providers: Sequence[str], now: datetime) -> bool:
    """Whether a job of these lanes and providers is due: quicker to say than which."""
    with store.read() as connection:
        waiting = and_(JOB.c.lane.in_(lanes), JOB.c.provider.in_(providers), JOB.c.run_after <= now)
        found = select(JOB.c.id).where(JOB.c.state == JobState.QUEUED.value, waiting).limit(1)
        return connection.execute(found).first() is not None


def leaving(store: Store) -> datetime | None:
    """When the next queued job has to leave its lane for the next step of its plan."""
    with store.read() as connection:
        at: datetime | None = connection.scalar(
            select(func.min(JOB.c.leave_by)).where(JOB.c.state == JobState.QUEUED.value)
        )
        return at


def batches(store: Store, endpoints: Mapping[str, str], by: str, now: datetime) -> list[DueBatch]:
    """The batches that are due, at these base URLs by provider, and held by nobody else; the longest due first."""
    due = and_(_here(endpoints), BATCH.c.next_poll_at <= now, _free(by, now))
    with store.read() as connection:
        rows = connection.execute(select(BATCH.c.id, BATCH.c.next_poll_at).where(due).order_by(BATCH.c.next_poll_at))
        return [DueBatch(*row) for row in rows]


def next_batch(store: Store, endpoints: Mapping[str, str], by: str, now: datetime) -> datetime | None:
    """When the next of these batches is due; None when none is open, or others hold all of them."""
    with store.read() as connection:
        waits = and_(_here(endpoints), _free(by, now))
        at: datetime | None = connection.scalar(select(func.min(BATCH.c.next_poll_at)).where(waits))
        return at


def held(store: Store, endpoints: Mapping[str, str], by: str, now: datetime) -> tuple[int, datetime | None]:
    """How many of these batches others hold, and until when the first of their leases runs."""
    with store.read() as connection:
        theirs = select(func.count(), func.min(BATCH.c.lease_until)).where(_here(endpoints), ~_free(by, now))
        count, until = connection.execute(theirs).one()
        return count, until


def elsewhere(store: Store, endpoints: Mapping[str, str], now: datetime) -> list[tuple[str, str]]:
    """Due batches, with their base URL, that were made where this process has no endpoint."""
    here = or_(False, *(_at(*endpoint) for endpoint in endpoints.items()))
    lost = and_(BATCH.c.state != BatchState.IMPORTED.value, BATCH.c.next_poll_at <= now, ~here)
    with store.read() as connection:
        return [tuple(row) for row in connection.execute(select(BATCH.c.id, BATCH.c.base_url).where(lost))]


def _here(endpoints: Mapping[str, str]) -> Any:
    here = or_(False, *(_at(*endpoint) for endpoint in endpoints.items()))
    return and_(BATCH.c.state != BatchState.IMPORTED.value, BATCH.c.lane == Lane.BATCH.value, here)


def _at(provider: str, base_url: str) -> Any:
    return and_(BATCH.c.provider == provider, BATCH.c.base_url == base_url)


def _free(by: str, now: datetime) -> Any:
    return or_(BATCH.c.lease_until.is_(None), BATCH.c.lease_until < now, BATCH.c.lease_by == by)
