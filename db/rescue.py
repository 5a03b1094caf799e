"""End what dead owners left, with the words that had come."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, and_, case, false, null, select, update

from db import ledger, log, stops
from db.dialect import within
from db.engine import Store
from db.ledger import ATTEMPT, JOB, Charge, Settled
from db.settle import NO_LEASE, Text, keep
from db.states import AttemptState, DeltaKind, JobState, Lane
from db.tables import among

HELD = "it may have been billed, so it is held: `shunter jobs retry ID` sends it again"

_GONE = "its process ended before the answer"
_LONGEST_CALL = timedelta(hours=1)  # four times what a call may take by default


def rescue(store: Store, now: datetime, tries: int, *, hold: bool = False) -> int:
    """End what dead owners left: attempts become `unknown`; bulk jobs are queued again while tries are left.

    A job whose person is gone is never sent again to nobody: it fails as abandoned. With `hold` no job is sent again by
    itself, and never one that somebody wants to stop. How many jobs there were.
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
        # On PostgreSQL: what another process rescues or settles now is left to it.
        leased = select(JOB.c.id, JOB.c.attempts).where(expired).order_by(JOB.c.id)
        lost = connection.execute(leased.with_for_update(skip_locked=True, key_share=True)).all()
        orphans = select(ATTEMPT.c.job_id, ATTEMPT.c.n).join(JOB, JOB.c.id == ATTEMPT.c.job_id).where(unheld)
        gone = [*lost, *connection.execute(orphans.with_for_update(of=JOB, skip_locked=True, key_share=True))]
        charge = Charge(AttemptState.UNKNOWN, outcome="cut", error_code="owner_died", error=_GONE)
        ledger.close(connection, [Settled(job_id, n, charge) for job_id, n in gone], now)
        _keep_words(connection, [(job_id, n) for job_id, n in gone], now)
        bulk = JOB.c.interactive.is_(False)
        again = false() if hold else and_(bulk, JOB.c.attempts - ledger.TURNED_AWAY - ledger.NEVER_RAN < tries)
        held = bulk if hold else false()
        connection.execute(
            update(JOB)
            .where(within(JOB.c.id, [row.id for row in lost], connection))
            .values(
                state=case((again, JobState.QUEUED.value), else_=JobState.FAILED.value),
                finished_at=case((again, null()), else_=now),
                run_after=now,
                error_code=case((held, "held"), else_="abandoned"),
                error=case((held, f"{_GONE}; {HELD}"), else_=f"{_GONE}; the attempt may have been billed"),
                **NO_LEASE,
            )
        )
    stops.tidy(store, now)
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
        keep(connection, [(job_id, n, text, False)], now)
    log.prune(connection, attempts)
