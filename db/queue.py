"""Jobs and their moves: one function a move, each in one transaction with the ledger."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import blake2b
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, bindparam, or_, select, update
from sqlalchemy.exc import IntegrityError

from db import ledger
from db.bulk import Prepared, insert_rows
from db.claims import BODY, LIVE, admitted, claims_of, due
from db.claims import Claim as Claim
from db.dialect import alone, hold, hold_ids, within
from db.engine import Store
from db.ledger import ATTEMPT, DECISION, JOB, Charge, Settled
from db.rates import Gates
from db.states import AttemptState, BatchState, JobState, Lane
from db.tables import Batch, Submission, among, table

BATCH = table(Batch)
SUBMISSION = table(Submission)

_KEYS_A_SELECT = 500
_CACHED = 4096  # characters: about 1,024 tokens
_MOVED = [*LIVE, Lane.BATCH.value, Lane.BACKGROUND.value]  # the lanes that a worker moves along


class NewJob(NamedTuple):  # a tuple: a file makes hundreds of thousands of them
    """A job as it comes in; `body` is canonical JSON, `row_key` what makes a second submit of it add nothing."""

    id: str
    row_key: str
    client_key: str | None
    decision_id: str
    lane: str
    tier: str
    provider: str
    model: str
    interactive: bool
    priority: int
    tags: dict[str, str] | None
    deadline_at: datetime | None
    leave_by: datetime | None
    body: str
    post_process: str | None
    handling: str | None = None

    @property
    def prefix(self) -> str | None:
        """Equal for bodies that begin alike; None for those that no provider's prompt cache looks at (1,024 tokens)."""
        return blake2b(self.body[:_CACHED].encode(), digest_size=8).hexdigest() if len(self.body) > _CACHED else None


def open_submission(store: Store, submission_id: str, source: str, now: datetime) -> None:
    """Record that a submit began; its counts are added as its jobs are."""
    with store.write() as connection:
        _submission(connection, submission_id, source, now, accepted=0)


def _submission(connection: Connection, submission_id: str, source: str, now: datetime, accepted: int) -> None:
    row = (submission_id, source, now, accepted)
    names = ("id", "source", "submitted_at", "accepted")
    insert_rows(connection, SUBMISSION, {"duplicates": 0, "rejected": 0}, names, [row])


def add(
    store: Store, submission_id: str, decisions: Sequence[dict[str, Any]], jobs: Sequence[NewJob], now: datetime
) -> set[str]:
    """Queue the jobs that are new; the row keys of those that were known already. All or none of them."""
    try:
        return _add(store, submission_id, decisions, jobs, now)
    except IntegrityError:  # on PostgreSQL one of them was submitted by another process in the meantime
        return _add(store, submission_id, decisions, jobs, now)


def _add(
    store: Store, submission_id: str, decisions: Sequence[dict[str, Any]], jobs: Sequence[NewJob], now: datetime
) -> set[str]:
    with store.write() as connection:
        alone(connection, "intake")  # two submits of one file would wait for each other's keys in a circle
        known = _known(connection, [job.row_key for job in jobs])
        fresh = [job for job in jobs if job.row_key not in known]
        _insert(connection, submission_id, decisions, fresh, now)
        counts = {"accepted": SUBMISSION.c.accepted + len(fresh), "duplicates": SUBMISSION.c.duplicates + len(known)}
        connection.execute(update(SUBMISSION).where(SUBMISSION.c.id == submission_id).values(counts))
    return known


def known(store: Store, row_keys: Sequence[str]) -> set[str]:
    """Those of the row keys that have a job."""
    with store.read() as connection:
        return _known(connection, row_keys)


def reject(store: Store, submission_id: str, count: int) -> None:
    """Add to the number of rows that the submission refused."""
    with store.write() as connection:
        rejected = SUBMISSION.c.rejected + count
        connection.execute(update(SUBMISSION).where(SUBMISSION.c.id == submission_id).values(rejected=rejected))


def start(store: Store, job: NewJob, submission_id: str, decision: dict[str, Any], by: str, until: datetime,
          now: datetime) -> Claim | None:  # fmt: skip
    """Add a job that is run at once by its submitter, its first attempt open; None when its key is known."""
    lease = {"state": JobState.RUNNING.value, "attempts": 1, "lease_by": by, "lease_until": until}
    try:
        with store.write() as connection:
            if _SAME_KEY.run(connection, [{"key": job.row_key}]).first():
                return None
            _submission(connection, submission_id, "prompt", now, accepted=1)
            _insert(connection, submission_id, [decision], [job], now, lease)
            ledger.open_for(connection, [job.id], now)
    except IntegrityError:
        if known(store, [job.row_key]):  # on PostgreSQL another process can have it since we looked
            return None
        raise
    same = {name: getattr(job, name) for name in _OF_CLAIM}
    return Claim(job.id, 1, **same, input_tokens=decision["input_tokens"], output_p90=decision["output_p90"],
                 lease_by=by)  # fmt: skip


_OF_CLAIM = ("lane", "tier", "provider", "model", "interactive", "body", "post_process", "handling", "deadline_at")
_SAME_KEY = Prepared(select(JOB.c.id).where(JOB.c.row_key == bindparam("key")))
_SAME_KEYS = select(JOB.c.row_key).where(JOB.c.row_key.in_(bindparam("keys", expanding=True)))


def _known(connection: Connection, keys: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for first in range(0, len(keys), _KEYS_A_SELECT):
        part = keys[first : first + _KEYS_A_SELECT]
        found.update(connection.scalars(_SAME_KEYS, {"keys": part}))
    return found


_QUEUED = {"state": JobState.QUEUED.value, "attempts": 0}


def _insert(connection: Connection, submission_id: str, decisions: Sequence[dict[str, Any]], jobs: Sequence[NewJob],
            now: datetime, state: dict[str, Any] = _QUEUED) -> None:  # fmt: skip
    if not jobs:
        return
    names = list(decisions[0])
    insert_rows(connection, DECISION, {}, names, [tuple(one[name] for name in names) for one in decisions],
                skip_known=True)  # fmt: skip
    same = {"submission_id": submission_id, "step": 0, "submitted_at": now, "run_after": now}
    insert_rows(connection, JOB, same | state, _OF_JOB, map(_job_values, jobs))
    insert_rows(connection, BODY, {}, _OF_BODY, map(_body_values, jobs))


_OF_JOB = ("id row_key client_key decision_id lane tier provider model interactive priority tags deadline_at "
           "leave_by prefix").split()  # fmt: skip
_OF_BODY = {"job_id": "id", "body": "body", "post_process": "post_process", "handling": "handling"}
_job_values = attrgetter(*_OF_JOB)
_body_values = attrgetter(*_OF_BODY.values())


def claim(store: Store, by: str, until: datetime, limit: int, now: datetime, providers: Sequence[str],
          gates: Gates | None = None) -> list[Claim]:  # fmt: skip
    """Take due jobs of the live lanes under a lease, their attempts open: highest priority, then nearest deadline.

    Those that the `gates` hold back are left, whatever their priority: jobs of other models go instead.
    """
    with store.write() as connection:
        if gates is not None and gates.open(connection, now):
            ids = admitted(connection, gates, limit, now, providers)
        else:
            ids = list(connection.scalars(due(limit, now, providers)))
        if not ids:
            return []
        # Nobody can have taken one since: on SQLite this writer is alone, on PostgreSQL it holds them.
        taking = {"state": JobState.RUNNING.value, "lease_by": by, "lease_until": until}
        taken = update(JOB).where(within(JOB.c.id, ids, connection))
        connection.execute(taken.values(attempts=JOB.c.attempts + 1, **taking))
        ledger.open_for(connection, ids, now)
        return claims_of(connection, ids, by)


def again(store: Store, claim: Claim, now: datetime) -> Claim | None:
    """Open the next attempt of a job that its owner kept; None when the lease was lost."""
    mine = and_(JOB.c.id == claim.job_id, JOB.c.lease_by == claim.lease_by, JOB.c.state == JobState.RUNNING.value)
    with store.write() as connection:
        if not connection.execute(update(JOB).where(mine).values(attempts=JOB.c.attempts + 1)).rowcount:
            return None
        ledger.open_for(connection, [claim.job_id], now)
        return claims_of(connection, [claim.job_id], claim.lease_by)[0]


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


def retry(store: Store, job_ids: Iterable[str], now: datetime) -> list[str]:
    """Queue failed or cancelled jobs again because a person asks; the ids that were.

    A row whose batch is still open waits for that one's answer instead of being paid twice.
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
        mine = within(JOB.c.id, asked, connection)
        ended = and_(mine, among(JOB.c.state, (JobState.FAILED, JobState.CANCELLED)))
        return [
            *connection.scalars(waits.where(ended).returning(JOB.c.id)).all(),
            *connection.scalars(again.where(ended).returning(JOB.c.id)).all(),
        ]


def strangers(store: Store, providers: Sequence[str], now: datetime) -> list[str]:
    """The providers that due jobs wait for, other than these."""
    with store.read() as connection:
        queued = and_(JOB.c.state == JobState.QUEUED.value, JOB.c.run_after <= now, JOB.c.provider.not_in(providers))
        return sorted(connection.scalars(select(JOB.c.provider).where(queued).distinct()))
