"""What a person decides for a batch that stands still: the provider's batch that it is, or that its rows go again."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, exists, func, not_, or_, select, update

from db.dialect import hold
from db.engine import Store
from db.ledger import ATTEMPT, JOB
from db.queue import BATCH
from db.rollups import changing
from db.states import AttemptState, BatchState, JobState

GIVEN_UP = "given_up"
_WHY = "a person sent its row again; this try may have been billed"
UNBOUND = (BatchState.PACKED.value, BatchState.UPLOADED.value, BatchState.UNSURE.value)


@dataclass(frozen=True, slots=True)
class Again:
    """What sending a batch's rows again comes to: jobs that wait for it, and nano-dollars that may be paid twice."""

    jobs: int
    at_risk_nano: int


def _free(now: datetime) -> Any:
    """No worker moves it right now."""
    return or_(BATCH.c.lease_until.is_(None), BATCH.c.lease_until < now)


def bind(store: Store, batch_id: str, *, provider_batch_id: str, status: str, expires_at: datetime | None,
         submitted_at: datetime | None, now: datetime) -> bool:  # fmt: skip
    """The batch is the provider's of this id, as a person said; False when a worker moves it right now, or that one is
    another batch's. It is polled at once.
    """
    other = BATCH.alias()
    same = and_(other.c.provider == BATCH.c.provider, other.c.base_url == BATCH.c.base_url)
    taken = exists().where(same, other.c.provider_batch_id == provider_batch_id)
    unbound = and_(BATCH.c.state.in_(UNBOUND), BATCH.c.provider_batch_id.is_(None))
    where = and_(BATCH.c.id == batch_id, unbound, not_(taken), _free(now))
    known = {"state": BatchState.SUBMITTED.value, "provider_batch_id": provider_batch_id, "status": status}
    times = {"submitted_at": submitted_at or now, "expires_at": expires_at, "next_poll_at": now, "error": None}
    with store.write(durable=True) as connection:
        return connection.execute(update(BATCH).where(where).values(known | times)).rowcount == 1


def bound(store: Store, provider: str, base_url: str, provider_batch_id: str) -> str | None:
    """The batch that is known to be the provider's of this id."""
    there = and_(BATCH.c.provider == provider, BATCH.c.base_url == base_url)
    with store.read() as connection:
        return connection.scalar(select(BATCH.c.id).where(there, BATCH.c.provider_batch_id == provider_batch_id))


def again(store: Store, batch_id: str) -> Again:
    """What `resubmit` would do."""
    with store.read() as connection:
        jobs = connection.scalar(select(func.count()).select_from(JOB).where(_waiting(batch_id))) or 0
        blind = ATTEMPT.c.state.in_([AttemptState.SENT.value, AttemptState.UNKNOWN.value])
        risk = select(func.sum(ATTEMPT.c.at_risk_nano)).where(ATTEMPT.c.batch_id == batch_id, blind)
        return Again(int(jobs), int(connection.scalar(risk) or 0))


def _waiting(batch_id: str) -> Any:
    """Jobs that wait for the batch, and those that failed because nobody can tell what became of their row in it."""
    newest = and_(ATTEMPT.c.job_id == JOB.c.id, ATTEMPT.c.n == JOB.c.attempts, ATTEMPT.c.batch_id == batch_id)
    unknown = exists().where(newest, ATTEMPT.c.state == AttemptState.UNKNOWN.value)
    inside = and_(JOB.c.batch_id == batch_id, JOB.c.state == JobState.SUBMITTED.value)
    return or_(inside, and_(JOB.c.state == JobState.FAILED.value, unknown))


def resubmit(store: Store, batch_id: str, now: datetime) -> int | None:
    """Send the rows without an answer again, though they may have been billed; how many jobs were queued.

    The batch is closed and its open attempts are `unknown`: what they may have cost stays at risk, and a late answer
    still settles them. None when a worker moves the batch right now. In one transaction.
    """
    closing = update(BATCH).where(BATCH.c.id == batch_id, _free(now), BATCH.c.state != BatchState.IMPORTED.value)
    closed = {"state": BatchState.IMPORTED.value, "imported_at": now, "error": "given up: a person sent its rows again"}
    ended = {"state": AttemptState.UNKNOWN.value, "ended_at": now, "error_code": GIVEN_UP, "error": _WHY}
    queued = {"state": JobState.QUEUED.value, "run_after": now, "finished_at": None, "batch_id": None,
              "error_code": GIVEN_UP, "error": _WHY, "interactive": False}  # fmt: skip
    still_open = and_(ATTEMPT.c.batch_id == batch_id, ATTEMPT.c.state == AttemptState.SENT.value)
    with store.write(durable=True) as connection:
        theirs = or_(_waiting(batch_id), JOB.c.id.in_(select(ATTEMPT.c.job_id).where(still_open)))
        hold(connection, select(JOB.c.id).where(theirs).order_by(JOB.c.id))
        moved = connection.execute(closing.values(closed | {"lease_by": None, "lease_until": None})).rowcount
        state = select(BATCH.c.state).where(BATCH.c.id == batch_id)
        if not moved and connection.scalar(state) != BatchState.IMPORTED.value:
            return None
        with changing(connection, connection.scalars(select(ATTEMPT.c.job_id).where(still_open)).all()):
            connection.execute(update(ATTEMPT).where(still_open).values(ended))
        return connection.execute(update(JOB).where(_waiting(batch_id)).values(queued)).rowcount
