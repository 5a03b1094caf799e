"""Jobs and their moves: one function a move, each in one transaction with the ledger."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, bindparam, or_, select, update

from db import ledger
from db.bulk import Prepared, insert_rows
from db.engine import Store
from db.ledger import ATTEMPT, DECISION, JOB, Charge, Settled
from db.states import AttemptState, BatchState, JobState, Lane
from db.tables import Batch, Body, Submission, among, table

BODY = table(Body)
BATCH = table(Batch)
SUBMISSION = table(Submission)

_KEYS_A_SELECT = 500
_LIVE = [Lane.SYNC.value, Lane.STREAM.value]
_MOVED = [*_LIVE, Lane.BATCH.value]  # the lanes that a worker moves along


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


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that is ours to run until the lease ends, with the number of its open attempt."""

    job_id: str
    n: int
    lane: str
    tier: str
    provider: str
    model: str
    interactive: bool
    body: str
    post_process: str | None
    handling: str | None
    input_tokens: int  # as estimated when it was decided
    output_p90: int
    lease_by: str
    answered: int = 0  # earlier attempts that brought an answer, which did not fit its schema


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
    with store.write() as connection:
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
    with store.write() as connection:
        if _SAME_KEY.run(connection, [{"key": job.row_key}]).first():
            return None
        _submission(connection, submission_id, "prompt", now, accepted=1)
        _insert(connection, submission_id, [decision], [job], now, lease)
        ledger.open_for(connection, [job.id], now)
    same = {name: getattr(job, name) for name in _OF_CLAIM}
    return Claim(job.id, 1, **same, input_tokens=decision["input_tokens"], output_p90=decision["output_p90"],
                 lease_by=by)  # fmt: skip


_OF_CLAIM = ("lane", "tier", "provider", "model", "interactive", "body", "post_process", "handling")
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
           "leave_by").split()  # fmt: skip
_OF_BODY = {"job_id": "id", "body": "body", "post_process": "post_process", "handling": "handling"}
_job_values = attrgetter(*_OF_JOB)
_body_values = attrgetter(*_OF_BODY.values())


def claim(store: Store, by: str, until: datetime, limit: int, now: datetime, providers: Sequence[str]) -> list[Claim]:
    """Take due jobs of the live lanes under a lease, their attempts open: highest priority, then nearest deadline."""
    due = (
        select(JOB.c.id)
        .where(JOB.c.state == JobState.QUEUED.value, JOB.c.lane.in_(_LIVE), JOB.c.provider.in_(providers))
        .where(JOB.c.run_after <= now)
        .order_by(JOB.c.priority.desc(), JOB.c.deadline_at.is_(None), JOB.c.deadline_at, JOB.c.id)
        .limit(limit)
    )
    taking = (
        update(JOB)
        .where(JOB.c.id.in_(due), JOB.c.state == JobState.QUEUED.value)
        .values(state=JobState.RUNNING.value, lease_by=by, lease_until=until, attempts=JOB.c.attempts + 1)
        .returning(JOB.c.id)
    )
    with store.write() as connection:
        ids = connection.scalars(taking).all()
        if not ids:
            return []
        ledger.open_for(connection, ids, now)
        return _claims(connection, ids, by)


def _claims(connection: Connection, ids: Sequence[str], by: str) -> list[Claim]:
    columns = [JOB.c.id.label("job_id"), JOB.c.attempts.label("n"), JOB.c.lane, JOB.c.tier, JOB.c.provider]
    columns += [JOB.c.model, JOB.c.interactive, BODY.c.body, BODY.c.post_process, BODY.c.handling]
    columns += [DECISION.c.input_tokens, DECISION.c.output_p90]
    rows = connection.execute(
        select(*columns, ledger.ANSWERED.label("answered"))
        .join(BODY, BODY.c.job_id == JOB.c.id)
        .join(DECISION, DECISION.c.id == JOB.c.decision_id)
        .where(JOB.c.id.in_(ids))
    )
    return [Claim(**row._mapping, lease_by=by) for row in rows]


def again(store: Store, claim: Claim, now: datetime) -> Claim | None:
    """Open the next attempt of a job that its owner kept; None when the lease was lost."""
    mine = and_(JOB.c.id == claim.job_id, JOB.c.lease_by == claim.lease_by, JOB.c.state == JobState.RUNNING.value)
    with store.write() as connection:
        if not connection.execute(update(JOB).where(mine).values(attempts=JOB.c.attempts + 1)).rowcount:
            return None
        ledger.open_for(connection, [claim.job_id], now)
        return _claims(connection, [claim.job_id], claim.lease_by)[0]


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
        connection.execute(update(JOB).where(held).values(lease_until=until))


def cancel(store: Store, job_ids: Iterable[str], now: datetime) -> list[str]:
    """Cancel jobs that wait or are inside a provider batch; the ids that were.

    A packed row is taken out only while its file has no upload intent. Later it may be billed: then the import of its
    batch charges its attempt and the job stays cancelled.
    """
    waiting = or_(JOB.c.state == JobState.QUEUED.value, JOB.c.state == JobState.SUBMITTED.value)
    with store.write() as connection:
        cancelling = (
            update(JOB)
            .where(JOB.c.id.in_(list(job_ids)), waiting)
            .values(state=JobState.CANCELLED.value, finished_at=now)
            .returning(JOB.c.id)
        )
        ids = list(connection.scalars(cancelling).all())
        free = Charge.free(AttemptState.CANCELLED, code="cancelled", error="taken out before it was sent")
        ledger.close(connection, [Settled(job_id, n, free) for job_id, n in _not_sent(connection, ids)], now)
    return ids


def _not_sent(connection: Connection, ids: Sequence[str]) -> list[tuple[str, int]]:
    packed = and_(BATCH.c.state == BatchState.PACKED.value, BATCH.c.upload_intent_at.is_(None))
    rows = select(JOB.c.id, JOB.c.attempts).join(BATCH, BATCH.c.id == JOB.c.batch_id)
    return [(job_id, n) for job_id, n in connection.execute(rows.where(JOB.c.id.in_(ids), packed))]


def retry(store: Store, job_ids: Iterable[str], now: datetime) -> list[str]:
    """Queue failed or cancelled jobs again because a person asks; the ids that were.

    A row whose batch is still open waits for that one's answer instead of being paid twice.
    """
    ended = and_(JOB.c.id.in_(list(job_ids)), among(JOB.c.state, (JobState.FAILED, JobState.CANCELLED)))
    newest = and_(ATTEMPT.c.job_id == JOB.c.id, ATTEMPT.c.n == JOB.c.attempts)
    open_ = and_(newest, among(ATTEMPT.c.state, (AttemptState.SENT,)), ATTEMPT.c.batch_id.is_not(None))
    batch = select(ATTEMPT.c.batch_id).where(open_).correlate(JOB).scalar_subquery()
    waits = update(JOB).where(ended, batch.is_not(None)).values(
        state=JobState.SUBMITTED.value, finished_at=None, batch_id=batch, interactive=False
    )  # fmt: skip
    again = update(JOB).where(ended).values(
        state=JobState.QUEUED.value, finished_at=None, run_after=now, batch_id=None, interactive=False
    )  # fmt: skip
    with store.write() as connection:
        return [
            *connection.scalars(waits.returning(JOB.c.id)).all(),
            *connection.scalars(again.returning(JOB.c.id)).all(),
        ]


def next_due(store: Store, providers: Sequence[str]) -> datetime | None:
    """When the next queued job that a worker with these providers can run is due; None when none waits."""
    with store.read() as connection:
        ours = and_(JOB.c.lane.in_(_MOVED), JOB.c.provider.in_(providers))
        queued = select(JOB.c.run_after).where(JOB.c.state == JobState.QUEUED.value, ours)
        return connection.scalar(queued.order_by(JOB.c.run_after).limit(1))


def strangers(store: Store, providers: Sequence[str], now: datetime) -> list[str]:
    """The providers that due jobs wait for, other than these."""
    with store.read() as connection:
        queued = and_(JOB.c.state == JobState.QUEUED.value, JOB.c.run_after <= now, JOB.c.provider.not_in(providers))
        return sorted(connection.scalars(select(JOB.c.provider).where(queued).distinct()))
