"""End what dead owners left, with the words that had come."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, and_, case, null, select, update

from db import ledger, log
from db.engine import Store
from db.ledger import ATTEMPT, JOB, Charge, Settled
from db.settle import KEEP, NO_LEASE, Text, row_of
from db.states import AttemptState, DeltaKind, JobState, Lane
from db.tables import among

_GONE = "its process ended before the answer"
_LONGEST_CALL = timedelta(hours=1)  # four times what a call may take by default


def rescue(store: Store, now: datetime, tries: int) -> int:
    """End what dead owners left: attempts become `unknown`; bulk jobs are queued again while tries are left.

    A job whose person is gone is never sent again to nobody: it fails as abandoned. How many jobs there were.
    """
    expired = and_(JOB.c.state == JobState.RUNNING.value, JOB.c.lease_until < now)
    # A job can end by a late answer while another attempt at it runs; nobody holds that one to its end.
    unheld = and_(
        among(ATTEMPT.c.state, (AttemptState.SENT,)),
        among(ATTEMPT.c.lane, (Lane.STREAM, Lane.SYNC)),
        ATTEMPT.c.sent_at < now - _LONGEST_CALL,
        JOB.c.state != JobState.RUNNING.value,
    )
    with store.write() as connection:
        lost = connection.execute(select(JOB.c.id, JOB.c.attempts).where(expired)).all()
        orphans = select(ATTEMPT.c.job_id, ATTEMPT.c.n).join(JOB, JOB.c.id == ATTEMPT.c.job_id).where(unheld)
        gone = [*lost, *connection.execute(orphans)]
        charge = Charge(AttemptState.UNKNOWN, outcome="cut", error_code="owner_died", error=_GONE)
        ledger.close(connection, [Settled(job_id, n, charge) for job_id, n in gone], now)
        _keep_words(connection, [(job_id, n) for job_id, n in gone], now)
        again = and_(JOB.c.interactive.is_(False), JOB.c.attempts < tries)
        connection.execute(
            update(JOB)
            .where(expired)
            .values(
                state=case((again, JobState.QUEUED.value), else_=JobState.FAILED.value),
                finished_at=case((again, null()), else_=now),
                run_after=now,
                error_code="abandoned",
                error="its process ended before the answer; the attempt may have been billed",
                **NO_LEASE,
            )
        )
    return len(lost)


def _keep_words(connection: Connection, attempts: Sequence[tuple[str, int]], now: datetime) -> None:
    """Store what was logged of the attempts as their partial text."""
    for job_id, n in attempts:
        heard = log.heard(connection, job_id, n)
        if not heard:
            continue
        choices = [heard.get((choice, DeltaKind.TEXT), "") for choice in sorted({0} | {choice for choice, _ in heard})]
        many = [{"text": text, "finish_reason": None, "tool_calls": None} for text in choices]
        refusal = heard.get((0, DeltaKind.REFUSAL))
        text = Text(choices[0], refusal=refusal, choices=many if len(many) > 1 else None, partial=True)
        connection.execute(KEEP, [row_of(job_id, n, text, False, now)])
    log.prune(connection, attempts)
