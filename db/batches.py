"""Provider batches and their moves, once they are packed: intend, upload, create, poll, end, import; one each."""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, func, not_, or_, select, update

from db.dialect import alone, hold
from db.engine import Store
from db.ledger import ATTEMPT
from db.queue import BATCH
from db.states import AttemptState, BatchState
from db.tables import Batch


def take(store: Store, by: str, until: datetime, now: datetime, batch_id: str | None = None) -> list[Batch]:
    """The open batches that are due, or this one if it is, under a lease, so that one worker at a time moves each."""
    free = or_(BATCH.c.lease_until.is_(None), BATCH.c.lease_until < now)
    due = and_(BATCH.c.state != BatchState.IMPORTED.value, BATCH.c.next_poll_at <= now, free)
    if batch_id is not None:
        due = and_(BATCH.c.id == batch_id, due)
    # On PostgreSQL: what another worker takes or moves now is left to it.
    free_now = select(BATCH.c.id).where(due).with_for_update(skip_locked=True, key_share=True).cte("free")
    with store.write() as connection:
        leased = update(BATCH).where(BATCH.c.id.in_(select(free_now.c.id))).values(lease_by=by, lease_until=until)
        taking = leased.returning(*BATCH.c)
        return sorted((Batch(**row._mapping) for row in connection.execute(taking).all()), key=lambda row: row.id)


def renew(store: Store, batch_id: str, by: str, until: datetime) -> bool:
    """Hold on to a batch; False when it is another's by now, so that nothing more may be done to it."""
    where = and_(BATCH.c.id == batch_id, BATCH.c.lease_by == by)
    return _move(store, where, {"lease_until": until})


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


def release(store: Store, batch_id: str, by: str) -> None:
    """Give back a batch, if this owner still holds it."""
    _move(store, and_(BATCH.c.id == batch_id, BATCH.c.lease_by == by), {"lease_by": None, "lease_until": None})


def unresolved_create(store: Store, batch: Batch) -> bool:
    """Whether another batch of the same provider has a create whose outcome is not known."""
    with store.read() as connection:
        return _unresolved(connection, batch)


def _unresolved(connection: Connection, batch: Batch) -> bool:
    unclear = and_(BATCH.c.create_intent_at.is_not(None), BATCH.c.provider_batch_id.is_(None), BATCH.c.id != batch.id)
    open_ = and_(BATCH.c.provider == batch.provider, BATCH.c.state != BatchState.IMPORTED.value)
    return connection.execute(select(BATCH.c.id).where(unclear, open_).limit(1)).first() is not None


# Each move below names the state that it leaves, so a worker that lost its lease while it was paused changes nothing.


def _move(store: Store, where: Any, values: dict[str, Any], *, durable: bool = False) -> bool:
    with store.write(durable=durable) as connection:
        return _moved(connection, where, values)


def _as_read(batch: Batch) -> Any:
    """It stands where it stood when `batch` was read: what was seen since then is of no other state or create."""
    same = BATCH.c.provider_batch_id.is_not_distinct_from(batch.provider_batch_id)
    return and_(BATCH.c.id == batch.id, BATCH.c.state == batch.state, same)


def _moved(connection: Connection, where: Any, values: dict[str, Any]) -> bool:
    hold(connection, select(BATCH.c.id).where(where).order_by(BATCH.c.id))  # it sees what came before it ends
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
    """The old file is dead: back to packed, so that a late create of a paused owner names nothing.

    False when it has another file by now, or the create that `batch` was read with is not its last one.
    """
    sent = BATCH.c.state.in_([BatchState.UPLOADED.value, BatchState.UNSURE.value])
    same = and_(BATCH.c.file_id == batch.file_id, BATCH.c.create_intent_at.is_not_distinct_from(batch.create_intent_at))
    where = and_(BATCH.c.id == batch.id, sent, same, BATCH.c.provider_batch_id.is_(None))
    gone = {"state": BatchState.PACKED.value, "file_id": None, "upload_intent_at": None, "create_intent_at": None}
    return _move(store, where, gone, durable=True)


def held_up(store: Store, batch: Batch, until: datetime, why: str) -> bool:
    """The provider's queue was full: what it made of the file ran nothing, so the file is sent again at `until`."""
    where = and_(BATCH.c.id == batch.id, BATCH.c.provider_batch_id == batch.provider_batch_id,
                 BATCH.c.state == BatchState.SUBMITTED.value)  # fmt: skip
    gone = {"provider_batch_id": None, "create_intent_at": None, "status": None, "submitted_at": None}
    waits = {"state": BatchState.UPLOADED.value, "expires_at": None, "next_poll_at": until, "error": why}
    return _move(store, where, gone | waits, durable=True)


def intend_create(store: Store, batch: Batch, now: datetime, *, only: bool = False) -> bool:
    """Win the right to POST the batch; False when another worker has it.

    `only`: also False while another create at its provider is unclear, for where they could not be told apart.
    """
    same = BATCH.c.create_intent_at.is_not_distinct_from(batch.create_intent_at)
    where = and_(BATCH.c.id == batch.id, BATCH.c.state == batch.state, same, BATCH.c.provider_batch_id.is_(None))
    intent = {"create_intent_at": now, "create_tries": BATCH.c.create_tries + 1}
    with store.write(durable=True) as connection:
        if only:
            alone(connection, f"create at {batch.provider}")
            if _unresolved(connection, batch):
                return False
        return _moved(connection, where, intent)


def forget_intent(store: Store, batch: Batch, intent_at: datetime) -> bool:
    """Nothing was created under the intent of that time, so the next POST may go out at once."""
    with store.write() as connection:
        return forgotten(connection, batch, intent_at)


def forgotten(connection: Connection, batch: Batch, intent_at: datetime) -> bool:
    """The same as a part of a transaction."""
    column = BATCH.c.upload_intent_at if batch.state == BatchState.PACKED.value else BATCH.c.create_intent_at
    where = and_(BATCH.c.id == batch.id, BATCH.c.provider_batch_id.is_(None), column == intent_at)
    return _moved(connection, where, {column.name: None})


def unsent(store: Store, batch: Batch, *, status: str, error: str, now: datetime) -> bool:
    """Nothing of it is at the provider and nothing will be: only its rows are to be settled, by `error` ("code: why").

    False when it has moved on since it was read, or another POST has been intended: what was seen is not of that one.
    """
    intents = (BATCH.c.upload_intent_at, BATCH.c.create_intent_at)
    same = and_(*(intent.is_not_distinct_from(getattr(batch, intent.name)) for intent in intents))
    open_ = BATCH.c.state.in_([BatchState.PACKED.value, BatchState.UPLOADED.value, BatchState.UNSURE.value])
    where = and_(_as_read(batch), open_, same, BATCH.c.provider_batch_id.is_(None))
    final = {"state": BatchState.ENDED.value, "status": status, "error": error, "ended_at": now, "next_poll_at": now}
    return _move(store, where, final | {"create_intent_at": None}, durable=True)


def created(store: Store, batch_id: str, *, provider_batch_id: str, status: str, expires_at: datetime | None,
            next_poll_at: datetime, now: datetime) -> bool:  # fmt: skip
    """The batch is at the provider under this id; False when it was known under another already, or was given up."""
    over = BATCH.c.state.in_([BatchState.ENDED.value, BatchState.IMPORTED.value])
    where = and_(BATCH.c.id == batch_id, BATCH.c.provider_batch_id.is_(None), not_(over))
    known = {"state": BatchState.SUBMITTED.value, "provider_batch_id": provider_batch_id, "status": status}
    times = {"submitted_at": now, "expires_at": expires_at, "next_poll_at": next_poll_at, "error": None}
    return _move(store, where, known | times, durable=True)


def known(store: Store, batch: Batch) -> bool:
    """It has a provider's id, so that it is there, whatever an older look at the provider's list said after that."""
    over = BATCH.c.state.in_([BatchState.ENDED.value, BatchState.IMPORTED.value])
    where = and_(_as_read(batch), not_(over), BATCH.c.provider_batch_id.is_not(None))
    return _move(store, where, {"state": BatchState.SUBMITTED.value, "error": None})


def polled(store: Store, batch: Batch, *, status: str, done: int, expires_at: datetime | None,
           next_poll_at: datetime) -> bool:  # fmt: skip
    """It is not at its end yet."""
    where = and_(_as_read(batch), BATCH.c.state == BatchState.SUBMITTED.value)
    seen = {"status": status, "done": done, "next_poll_at": next_poll_at, "error": None}
    return _move(store, where, seen | ({"expires_at": expires_at} if expires_at else {}))


def cancelling(store: Store, batch_id: str, now: datetime) -> bool:
    """It is to be cancelled: the worker asks the provider, or sends nothing where nothing was created yet."""
    over = BATCH.c.state.in_([BatchState.ENDED.value, BatchState.IMPORTED.value])
    where = and_(BATCH.c.id == batch_id, not_(over))
    return _move(store, where, {"cancel_at": now, "next_poll_at": now})


def ended(store: Store, batch: Batch, *, status: str, done: int, output_file_id: str | None,
          error_file_id: str | None, error: str | None, now: datetime) -> bool:  # fmt: skip
    """The provider will not change it any more."""
    where = and_(_as_read(batch), BATCH.c.state == BatchState.SUBMITTED.value)
    files = {"output_file_id": output_file_id or None, "error_file_id": error_file_id or None}
    final = {"state": BatchState.ENDED.value, "status": status, "done": done, "error": error, "ended_at": now,
             "next_poll_at": now}  # fmt: skip
    return _move(store, where, files | final)


def imported(store: Store, batch_id: str, now: datetime) -> bool:
    """Every row of it is settled."""
    where = and_(BATCH.c.id == batch_id, BATCH.c.state != BatchState.IMPORTED.value)
    return _move(store, where, {"state": BatchState.IMPORTED.value, "imported_at": now, "lease_by": None,
                                "lease_until": None})  # fmt: skip


def wait(store: Store, batch: Batch, until: datetime, *, error: str | None = None, state: BatchState | None = None
         ) -> bool:  # fmt: skip
    """Look at it again at `until`; `error` says what it waits for. False when it has moved on since it was read."""
    where = and_(_as_read(batch), BATCH.c.state != BatchState.IMPORTED.value)
    return _move(store, where, {"next_poll_at": until, "error": error} | ({"state": state.value} if state else {}))
