"""Provider batches and their moves: pack, intend, upload, create, poll, end, import; one function each."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, LargeBinary, and_, cast, func, insert, not_, or_, select, update

from db import ledger
from db.engine import Store
from db.ledger import ATTEMPT, JOB
from db.queue import BATCH, BODY
from db.states import AttemptState, BatchState, JobState, Lane
from db.tables import Batch

_ROWS_A_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Waiting:
    """Queued rows of one model that can be packed together."""

    provider: str
    model: str
    rows: int


def waiting(store: Store, now: datetime) -> list[Waiting]:
    """What is due for the batch lane, by provider and model."""
    with store.read() as connection:
        groups = (
            select(JOB.c.provider, JOB.c.model, func.count()).where(_due(now)).group_by(JOB.c.provider, JOB.c.model)
        )
        return [Waiting(*row) for row in connection.execute(groups)]


def _due(now: datetime) -> Any:
    queued = and_(JOB.c.state == JobState.QUEUED.value, JOB.c.lane == Lane.BATCH.value)
    return and_(queued, JOB.c.run_after <= now)


def pack(
    store: Store, batch_id: str, group: Waiting, *, base_url: str, max_rows: int, max_bytes: int, now: datetime
) -> int:
    """Put due jobs into a new batch, their attempts open, in one transaction; how many, 0 when none is left.

    Earliest `leave_by` first. `max_bytes` bounds the bodies; the caller leaves room for what goes around them.
    """
    due = and_(_due(now), JOB.c.provider == group.provider, JOB.c.model == group.model)
    order = (JOB.c.leave_by.is_(None), JOB.c.leave_by, JOB.c.id)
    with store.write() as connection:
        count, leave_by = _fitting(connection, due, order, max_rows, max_bytes)
        if not count:
            return 0
        new = {"id": batch_id, "state": BatchState.PACKED.value, "provider": group.provider, "base_url": base_url}
        times = {"packed_at": now, "next_poll_at": now, "leave_by": leave_by}
        counts = {"model": group.model, "rows": count, "create_tries": 0, "done": 0}
        connection.execute(insert(BATCH).values(new | times | counts))
        chosen = select(JOB.c.id).where(due).order_by(*order).limit(count)
        held = {"state": JobState.SUBMITTED.value, "batch_id": batch_id, "attempts": JOB.c.attempts + 1}
        connection.execute(update(JOB).where(JOB.c.id.in_(chosen)).values(held))
        ledger.open_batch(connection, batch_id, now)
    return count


def _fitting(
    connection: Connection, due: Any, order: Sequence[Any], max_rows: int, max_bytes: int
) -> tuple[int, datetime | None]:
    size = func.length(cast(BODY.c.body, LargeBinary))
    rows = connection.execute(
        select(size, JOB.c.leave_by).join(BODY, BODY.c.job_id == JOB.c.id).where(due).order_by(*order).limit(max_rows)
    )
    count, total, earliest = 0, 0, None
    for length, leave_by in rows:
        total += length
        if count and total > max_bytes:
            break
        count += 1
        earliest = earliest or leave_by
    return count, earliest


def take(store: Store, by: str, until: datetime, now: datetime) -> list[Batch]:
    """The open batches that are due, under a lease, so that one worker at a time moves each."""
    free = or_(BATCH.c.lease_until.is_(None), BATCH.c.lease_until < now)
    due = and_(BATCH.c.state != BatchState.IMPORTED.value, BATCH.c.next_poll_at <= now, free)
    with store.write() as connection:
        taking = update(BATCH).where(due).values(lease_by=by, lease_until=until).returning(*BATCH.c)
        return sorted((Batch(**row._mapping) for row in connection.execute(taking).all()), key=lambda row: row.id)


def get(store: Store, batch_id: str) -> Batch | None:
    """The batch with this id."""
    with store.read() as connection:
        row = connection.execute(select(*BATCH.c).where(BATCH.c.id == batch_id)).first()
        return Batch(**row._mapping) if row else None


def recent(store: Store, limit: int) -> list[Batch]:
    """The newest batches first."""
    with store.read() as connection:
        rows = connection.execute(select(*BATCH.c).order_by(BATCH.c.id.desc()).limit(limit))
        return [Batch(**row._mapping) for row in rows]


def release(store: Store, by: str) -> None:
    """Give back every batch that this owner held."""
    with store.write() as connection:
        connection.execute(update(BATCH).where(BATCH.c.lease_by == by).values(lease_by=None, lease_until=None))


def rows_of(store: Store, batch_id: str) -> Iterator[tuple[str, int, str]]:
    """Job, attempt and body of every row that is still to be sent, in the order of the jobs, a page at a time."""
    after = ""
    while True:
        page = (
            select(ATTEMPT.c.job_id, ATTEMPT.c.n, BODY.c.body)
            .join(BODY, BODY.c.job_id == ATTEMPT.c.job_id)
            .where(ATTEMPT.c.batch_id == batch_id, ATTEMPT.c.state == AttemptState.SENT.value, ATTEMPT.c.job_id > after)
            .order_by(ATTEMPT.c.job_id)
            .limit(_ROWS_A_PAGE)
        )
        with store.read() as connection:
            rows = connection.execute(page).all()
        for row in rows:
            yield tuple(row)
        if len(rows) < _ROWS_A_PAGE:
            return
        after = rows[-1].job_id


def open_rows(store: Store, batch_id: str, limit: int) -> list[tuple[str, int]]:
    """Attempts of the batch that nothing has settled yet."""
    with store.read() as connection:
        rows = select(ATTEMPT.c.job_id, ATTEMPT.c.n).where(
            ATTEMPT.c.batch_id == batch_id, ATTEMPT.c.state == AttemptState.SENT.value
        )
        return [tuple(row) for row in connection.execute(rows.limit(limit))]


def holds(store: Store, batch_id: str, job_id: str, n: int) -> bool:
    """Whether this attempt is a row of the batch."""
    with store.read() as connection:
        row = select(ATTEMPT.c.batch_id).where(ATTEMPT.c.job_id == job_id, ATTEMPT.c.n == n)
        return connection.scalar(row) == batch_id


def row_at(store: Store, batch_id: str, line: int) -> tuple[str, int] | None:
    """The attempt on a line of the batch's file, counted from 1."""
    with store.read() as connection:
        rows = select(ATTEMPT.c.job_id, ATTEMPT.c.n).where(
            ATTEMPT.c.batch_id == batch_id, ATTEMPT.c.state == AttemptState.SENT.value
        )
        row = connection.execute(rows.order_by(ATTEMPT.c.job_id).offset(line - 1).limit(1)).first()
        return tuple(row) if row else None


def judged(store: Store, job_ids: Sequence[str]) -> dict[str, tuple[str, str | None, int]]:
    """Body, post-process command and number of earlier answers of those jobs whose answers must be looked at whole."""
    whole = or_(BODY.c.post_process.is_not(None), BODY.c.body.contains('"response_format"'))
    with store.read() as connection:
        query = select(*BODY.c, ledger.ANSWERED.label("answered")).join(JOB, JOB.c.id == BODY.c.job_id)
        rows = connection.execute(query.where(BODY.c.job_id.in_(job_ids), whole))
        return {row.job_id: (row.body, row.post_process, row.answered) for row in rows}


def never_ran(store: Store, job_ids: Sequence[str]) -> dict[str, int]:
    """How many attempts of each job expired or were cancelled before they ran, where there are any."""
    idle = [AttemptState.EXPIRED.value, AttemptState.CANCELLED.value]
    counted = select(ATTEMPT.c.job_id, func.count()).where(ATTEMPT.c.job_id.in_(job_ids), ATTEMPT.c.state.in_(idle))
    with store.read() as connection:
        return {str(job_id): int(times) for job_id, times in connection.execute(counted.group_by(ATTEMPT.c.job_id))}


def unresolved_create(store: Store, batch: Batch) -> bool:
    """Whether another batch of the same provider has a create whose outcome is not known."""
    unclear = and_(BATCH.c.create_intent_at.is_not(None), BATCH.c.provider_batch_id.is_(None), BATCH.c.id != batch.id)
    open_ = and_(BATCH.c.provider == batch.provider, BATCH.c.state != BatchState.IMPORTED.value)
    with store.read() as connection:
        return connection.execute(select(BATCH.c.id).where(unclear, open_).limit(1)).first() is not None


# Each move below names the state that it leaves, so a worker that lost its lease while it was paused changes nothing.


def _move(store: Store, where: Any, values: dict[str, Any], *, durable: bool = False) -> bool:
    with store.write(durable=durable) as connection:
        return connection.execute(update(BATCH).where(where).values(values)).rowcount == 1


def intend_upload(store: Store, batch: Batch, rows: int, now: datetime) -> bool:
    """Win the right to POST the file; False when another worker has it, or a row was taken out since it was written."""
    same = BATCH.c.upload_intent_at.is_not_distinct_from(batch.upload_intent_at)
    still = select(func.count()).where(ATTEMPT.c.batch_id == batch.id, ATTEMPT.c.state == AttemptState.SENT.value)
    whole = still.scalar_subquery() == rows
    where = and_(
        BATCH.c.id == batch.id, BATCH.c.state == BatchState.PACKED.value, same, BATCH.c.file_id.is_(None), whole
    )
    return _move(store, where, {"upload_intent_at": now, "rows": rows}, durable=True)


def uploaded(store: Store, batch_id: str, file_id: str | None) -> bool:
    """The file is at the provider, or it needs none."""
    where = and_(BATCH.c.id == batch_id, BATCH.c.state == BatchState.PACKED.value)
    return _move(store, where, {"state": BatchState.UPLOADED.value, "file_id": file_id}, durable=True)


def upload_anew(store: Store, batch: Batch) -> bool:
    """The old file is dead: back to packed, so that a late create of a paused owner names nothing."""
    sent = BATCH.c.state.in_([BatchState.UPLOADED.value, BatchState.UNSURE.value])
    where = and_(BATCH.c.id == batch.id, sent, BATCH.c.file_id == batch.file_id, BATCH.c.provider_batch_id.is_(None))
    gone = {"state": BatchState.PACKED.value, "file_id": None, "upload_intent_at": None, "create_intent_at": None}
    return _move(store, where, gone, durable=True)


def intend_create(store: Store, batch: Batch, now: datetime) -> bool:
    """Win the right to POST the batch; False when another worker has it."""
    same = BATCH.c.create_intent_at.is_not_distinct_from(batch.create_intent_at)
    where = and_(BATCH.c.id == batch.id, BATCH.c.state == batch.state, same, BATCH.c.provider_batch_id.is_(None))
    return _move(store, where, {"create_intent_at": now, "create_tries": BATCH.c.create_tries + 1}, durable=True)


def forget_intent(store: Store, batch: Batch) -> bool:
    """A clear refusal: nothing was created, so the next create may go out at once."""
    where = and_(BATCH.c.id == batch.id, BATCH.c.provider_batch_id.is_(None))
    column = "upload_intent_at" if batch.state == BatchState.PACKED.value and not batch.create_intent_at else None
    return _move(store, where, {column or "create_intent_at": None})


def created(store: Store, batch_id: str, *, provider_batch_id: str, status: str, expires_at: datetime | None,
            next_poll_at: datetime, now: datetime) -> bool:  # fmt: skip
    """The batch is at the provider under this id; False when it was known under another already."""
    where = and_(BATCH.c.id == batch_id, BATCH.c.provider_batch_id.is_(None))
    known = {"state": BatchState.SUBMITTED.value, "provider_batch_id": provider_batch_id, "status": status}
    times = {"submitted_at": now, "expires_at": expires_at, "next_poll_at": next_poll_at, "error": None}
    return _move(store, where, known | times, durable=True)


def polled(store: Store, batch_id: str, *, status: str, done: int, expires_at: datetime | None,
           next_poll_at: datetime) -> bool:  # fmt: skip
    """It is not at its end yet."""
    where = and_(BATCH.c.id == batch_id, BATCH.c.state == BatchState.SUBMITTED.value)
    seen = {"status": status, "done": done, "next_poll_at": next_poll_at, "error": None}
    return _move(store, where, seen | ({"expires_at": expires_at} if expires_at else {}))


def cancelling(store: Store, batch_id: str, now: datetime) -> bool:
    """It is to be cancelled: the worker asks the provider, or sends nothing where nothing was created yet."""
    over = BATCH.c.state.in_([BatchState.ENDED.value, BatchState.IMPORTED.value])
    where = and_(BATCH.c.id == batch_id, not_(over))
    return _move(store, where, {"cancel_at": now, "next_poll_at": now})


def ended(store: Store, batch_id: str, *, status: str, done: int, output_file_id: str | None,
          error_file_id: str | None, error: str | None, now: datetime) -> bool:  # fmt: skip
    """The provider will not change it any more."""
    where = and_(BATCH.c.id == batch_id, BATCH.c.state == BatchState.SUBMITTED.value)
    files = {"output_file_id": output_file_id or None, "error_file_id": error_file_id or None}
    final = {"state": BatchState.ENDED.value, "status": status, "done": done, "error": error, "ended_at": now}
    return _move(store, where, files | final)


def imported(store: Store, batch_id: str, now: datetime) -> bool:
    """Every row of it is settled."""
    where = and_(BATCH.c.id == batch_id, BATCH.c.state != BatchState.IMPORTED.value)
    return _move(store, where, {"state": BatchState.IMPORTED.value, "imported_at": now, "lease_by": None,
                                "lease_until": None})  # fmt: skip


def wait(store: Store, batch_id: str, until: datetime, *, error: str | None = None, state: BatchState | None = None
         ) -> bool:  # fmt: skip
    """Look at it again at `until`; `error` says what it waits for."""
    where = and_(BATCH.c.id == batch_id, BATCH.c.state != BatchState.IMPORTED.value)
    return _move(store, where, {"next_poll_at": until, "error": error} | ({"state": state.value} if state else {}))


def next_due(store: Store, base_urls: Iterable[str]) -> datetime | None:
    """When the next open batch at these addresses is to be looked at; None when there is none."""
    with store.read() as connection:
        here = and_(BATCH.c.state != BatchState.IMPORTED.value, BATCH.c.base_url.in_(list(base_urls)))
        still = select(BATCH.c.next_poll_at).where(here)
        return connection.scalar(still.order_by(BATCH.c.next_poll_at).limit(1))
