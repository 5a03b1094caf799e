"""Jobs and their moves: one function a move, each in one transaction with the ledger."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import repeat
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, or_, select, update
from sqlalchemy.exc import IntegrityError

from db import incoming, ledger, wishes
from db.bulk import insert_rows
from db.claims import BODY, LIVE, claims_of, lease, next_jobs
from db.claims import Claim as Claim
from db.dialect import alone, hold, hold_ids, within
from db.engine import Store
from db.incoming import NewJob as NewJob
from db.ledger import ATTEMPT, JOB, Charge, Settled
from db.rates import Gates
from db.reserving import OverBudget, Purse, Reserved, reserve
from db.rooms import put_off
from db.states import AttemptState, BatchState, JobState, Lane
from db.tables import Batch, Submission, among, table

BATCH = table(Batch)
SUBMISSION = table(Submission)

_LOOKS, _A_LOOK = 8, 50  # at the queue in one claim, while jobs in front find no room in a budget; jobs each
_MOVED = [*LIVE, Lane.BATCH.value, Lane.BACKGROUND.value]  # the lanes that a worker moves along


def open_submission(store: Store, submission_id: str, source: str, now: datetime) -> None:
    """Record that a submit began; its counts are added as its jobs are."""
    with store.write() as connection:
        _submissions(connection, source, now, [(submission_id, 0)])


def _submissions(connection: Connection, source: str, now: datetime, counts: Sequence[tuple[str, int]]) -> None:
    same = {"source": source, "submitted_at": now, "duplicates": 0, "rejected": 0}
    insert_rows(connection, SUBMISSION, same, ("id", "accepted"), counts)


def add(store: Store, submission_id: str, decisions: Sequence[dict[str, Any]], jobs: Sequence[NewJob], now: datetime,
        source: str | None = None) -> set[str]:  # fmt: skip
    """Queue the new jobs, with a `source` their submission too, or nothing. The row keys that were known already."""
    try:
        return _add(store, submission_id, decisions, jobs, now, source)
    except IntegrityError:  # on PostgreSQL one of them was submitted by another process in the meantime
        return _add(store, submission_id, decisions, jobs, now, source)


def _add(store: Store, submission_id: str, decisions: Sequence[dict[str, Any]], jobs: Sequence[NewJob], now: datetime,
         source: str | None) -> set[str]:  # fmt: skip
    with store.write() as connection:
        if source:
            _submissions(connection, source, now, [(submission_id, 0)])
        alone(connection, "intake")  # two submits of one file would wait for each other's keys in a circle
        known = incoming.known(connection, [job.row_key for job in jobs])
        fresh = [job for job in jobs if job.row_key not in known]
        incoming.insert(connection, repeat(submission_id), decisions, fresh, now)
        counts = {"accepted": SUBMISSION.c.accepted + len(fresh), "duplicates": SUBMISSION.c.duplicates + len(known)}
        connection.execute(update(SUBMISSION).where(SUBMISSION.c.id == submission_id).values(counts))
    return known


def known(store: Store, row_keys: Sequence[str]) -> set[str]:
    """Those of the row keys that have a job."""
    with store.read() as connection:
        return incoming.known(connection, row_keys)


def reject(store: Store, submission_id: str, count: int) -> None:
    """Add to the number of rows that the submission refused."""
    with store.write() as connection:
        rejected = SUBMISSION.c.rejected + count
        connection.execute(update(SUBMISSION).where(SUBMISSION.c.id == submission_id).values(rejected=rejected))


class KeyKnown(Exception):
    """There is a job of that key."""


class Starting(NamedTuple):
    """A job that is run at once by its submitter, with the decision that it is sent by."""

    job: NewJob
    submission_id: str
    decision: dict[str, Any]


def start(store: Store, job: NewJob, submission_id: str, decision: dict[str, Any], by: str, until: datetime,
          now: datetime, purse: Purse | None = None) -> Claim | None:  # fmt: skip
    """Add a job that is run at once by its submitter, its first attempt open; None when its key is known.

    OverBudget when no budget has room for it: then nothing is added.
    """
    try:
        [claim] = start_all(store, [Starting(job, submission_id, decision)], by, until, now, purse)
    except KeyKnown:
        return None
    return claim


def start_all(store: Store, starting: Sequence[Starting], by: str, until: datetime, now: datetime,
              purse: Purse | None = None) -> list[Claim]:  # fmt: skip
    """The same for several jobs, or for none of them: KeyKnown when one of their keys is."""
    try:
        return _start_all(store, starting, by, until, now, purse)
    except IntegrityError as error:
        if known(store, [one.job.row_key for one in starting]):
            raise KeyKnown from error
        raise


def _start_all(
    store: Store, starting: Sequence[Starting], by: str, until: datetime, now: datetime, purse: Purse | None
) -> list[Claim]:
    own = Purse(purse.weigh) if purse else Purse()  # what is refused is no news: nothing of it is kept
    lease = {"state": JobState.RUNNING.value, "attempts": 1, "lease_by": by, "lease_until": until}
    jobs = [one.job for one in starting]
    ids = [job.id for job in jobs]
    with store.write() as connection:
        _submissions(connection, "prompt", now, [(one.submission_id, 1) for one in starting])
        incoming.insert(connection, [one.submission_id for one in starting], [one.decision for one in starting], jobs,
                        now, lease)  # fmt: skip
        reserved = reserve(connection, own, ids, now)
        if reserved.refused:
            raise OverBudget(next(iter(reserved.refused.values())))
        ledger.open_for(connection, ids, now)
        reserved.keep(connection)
    if purse:
        purse.news += own.news
    caps = reserved.caps
    return [_claim_of(one, by, caps.get(one.job.id)) for one in starting]


def _claim_of(starting: Starting, by: str, cap: int | None) -> Claim:
    job, _, decision = starting
    same = {name: getattr(job, name) for name in _OF_CLAIM}
    sizes = {"input_tokens": decision["input_tokens"], "output_p90": decision["output_p90"]}
    return Claim(job.id, 1, **same, **sizes, lease_by=by, output_cap=cap)


_OF_CLAIM = ("lane", "tier", "provider", "model", "interactive", "body", "post_process", "handling", "deadline_at")


def claim(store: Store, by: str, until: datetime, limit: int, now: datetime, providers: Sequence[str],
          gates: Gates | None = None, purse: Purse | None = None) -> list[Claim]:  # fmt: skip
    """Take due jobs of the live lanes under a lease, their attempts open: highest priority, then nearest deadline.

    Those that the `gates` hold back are left, whatever their priority: jobs of other models go instead. Those that no
    budget has room for wait, or fail.
    """
    claims: list[Claim] = []
    with store.write() as connection:
        limits = gates if gates is not None and gates.open(connection, now) else None
        for look in range(_LOOKS):
            left = limit - len(claims)
            picked = next_jobs(connection, limits, max(left, _A_LOOK) if look else left, now, providers)
            reserved = reserve(connection, purse, [*picked], now, limit=left)
            claims += _take(connection, reserved, by, until, now)
            put_off(connection, reserved.refused, now)
            if limits:
                limits.give_back(picked[job_id] for job_id in picked.keys() - set(reserved.fits))
            if not reserved.refused or len(claims) == limit:
                break
        else:
            if gates is not None:
                gates.soon()
        if limits:
            limits.keep(connection)
    return claims


def _take(connection: Connection, reserved: Reserved, by: str, until: datetime, now: datetime) -> list[Claim]:
    if not reserved.fits:
        return []
    lease(connection, reserved.fits, by, until)
    ledger.open_for(connection, reserved.fits, now)
    reserved.keep(connection)
    return claims_of(connection, reserved.fits, reserved.caps)


def again(store: Store, claim: Claim, now: datetime, purse: Purse | None = None) -> Claim | None:
    """Open the next attempt of a job that its owner kept; None when the lease was lost, or no budget has room for it.

    Without room the job fails, since somebody waits for it; what it has said is kept.
    """
    mine = and_(JOB.c.id == claim.job_id, JOB.c.lease_by == claim.lease_by, JOB.c.state == JobState.RUNNING.value)
    with store.write() as connection:
        if not connection.execute(update(JOB).where(mine).values(attempts=JOB.c.attempts + 1)).rowcount:
            return None
        reserved = reserve(connection, purse, [claim.job_id], now)
        for no in reserved.refused.values():
            ended = {"state": JobState.FAILED.value, "finished_at": now, "lease_by": None, "lease_until": None}
            why = {"error_code": no.code, "error": no.why, "attempts": JOB.c.attempts - 1}
            connection.execute(update(JOB).where(mine).values(ended | why))
            return None
        ledger.open_for(connection, [claim.job_id], now)
        reserved.keep(connection)
        return claims_of(connection, [claim.job_id], reserved.caps)[0]


def leave(store: Store, claim: Claim, now: datetime) -> None:
    """Cancel a job whose attempt goes on for the true bill alone: its last reader has left."""
    mine = and_(JOB.c.id == claim.job_id, JOB.c.lease_by == claim.lease_by, JOB.c.state == JobState.RUNNING.value)
    ended = {"state": JobState.CANCELLED.value, "finished_at": now, "lease_by": None, "lease_until": None}
    with store.write() as connection:
        connection.execute(update(JOB).where(mine).values(ended))


def renew(store: Store, by: str, until: datetime) -> None:
    """Hold on to every job that this owner runs."""
    with store.write() as connection:
        held = and_(JOB.c.lease_by == by, JOB.c.state == JobState.RUNNING.value)
        hold(connection, select(JOB.c.id).where(held).order_by(JOB.c.id))
        connection.execute(update(JOB).where(held).values(lease_until=until))


def cancel(store: Store, job_ids: Iterable[str], now: datetime) -> list[str]:
    """Cancel jobs that wait or are inside a provider batch; the ids that were.

    A packed row is taken out only while its file has no upload intent. Later it may be billed: then the import of its
    batch charges its attempt and the job stays cancelled.
    """
    waiting = or_(JOB.c.state == JobState.QUEUED.value, JOB.c.state == JobState.SUBMITTED.value)
    asked = list(job_ids)
    with store.write() as connection:
        _hold_with_batches(connection, asked)
        cancelling = (
            update(JOB)
            .where(within(JOB.c.id, asked, connection), waiting)
            .values(state=JobState.CANCELLED.value, finished_at=now)
            .returning(JOB.c.id)
        )
        ids = list(connection.scalars(cancelling).all())
        free = Charge.free(AttemptState.CANCELLED, code="cancelled", error="taken out before it was sent")
        ledger.close(connection, [Settled(job_id, n, free) for job_id, n in _not_sent(connection, ids)], now)
        _stop_responses(connection, ids, now)
    return ids


def _stop_responses(connection: Connection, job_ids: Sequence[str], now: datetime) -> None:
    """What is made in the background for one of these jobs is of use to no other: it is to be cancelled there, too."""
    theirs = select(JOB.c.batch_id).where(within(JOB.c.id, job_ids, connection))
    alone = and_(BATCH.c.id.in_(theirs), BATCH.c.lane == Lane.BACKGROUND.value)
    open_ = and_(alone, BATCH.c.state != BatchState.IMPORTED.value)
    connection.execute(update(BATCH).where(open_).values(cancel_at=now, next_poll_at=now))


def _hold_with_batches(connection: Connection, job_ids: Sequence[str]) -> None:
    """Hold the jobs and the batches that they are in: no upload can be intended while rows are taken out."""
    hold_ids(connection, JOB, job_ids)
    theirs = select(JOB.c.batch_id).where(within(JOB.c.id, job_ids, connection))
    hold(connection, select(BATCH.c.id).where(BATCH.c.id.in_(theirs)).order_by(BATCH.c.id))


def _not_sent(connection: Connection, ids: Sequence[str]) -> list[tuple[str, int]]:
    packed = and_(BATCH.c.state == BatchState.PACKED.value, BATCH.c.upload_intent_at.is_(None))
    rows = select(JOB.c.id, JOB.c.attempts).join(BATCH, BATCH.c.id == JOB.c.batch_id)
    return [(job_id, n) for job_id, n in connection.execute(rows.where(within(JOB.c.id, ids, connection), packed))]


_HAS_WORDS = select(BODY.c.job_id).where(BODY.c.job_id == JOB.c.id).correlate(JOB).exists()


def retry(store: Store, job_ids: Iterable[str], now: datetime) -> list[str]:
    """Queue failed or cancelled jobs again because a person asks; the ids that were.

    A row whose batch is still open waits for its answer, lest it be paid twice. What was pruned is not known any more.
    """
    asked = list(job_ids)
    newest = and_(ATTEMPT.c.job_id == JOB.c.id, ATTEMPT.c.n == JOB.c.attempts)
    open_ = and_(newest, among(ATTEMPT.c.state, (AttemptState.SENT,)), ATTEMPT.c.batch_id.is_not(None))
    batch = select(ATTEMPT.c.batch_id).where(open_).correlate(JOB).scalar_subquery()
    waits = update(JOB).where(batch.is_not(None)).values(
        state=JobState.SUBMITTED.value, finished_at=None, batch_id=batch, interactive=False
    )  # fmt: skip
    again = update(JOB).values(
        state=JobState.QUEUED.value, finished_at=None, run_after=now, batch_id=None, interactive=False
    )  # fmt: skip
    with store.write() as connection:
        hold_ids(connection, JOB, asked)
        wishes.forget(connection, asked)
        mine = within(JOB.c.id, asked, connection)
        ended = and_(mine, among(JOB.c.state, (JobState.FAILED, JobState.CANCELLED)), _HAS_WORDS)
        return [
            *connection.scalars(waits.where(ended).returning(JOB.c.id)).all(),
            *connection.scalars(again.where(ended).returning(JOB.c.id)).all(),
        ]
