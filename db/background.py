"""Responses in the background: each job is a batch of one row, taken and moved many at once.

There is no list to look for one in, so an intent without an answer is not repeated: whoever finds it gives it up.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, bindparam, func, insert, or_, select, update

from db import ledger, rollups
from db.claims import BODY
from db.dialect import hold, hold_ids, within
from db.engine import Store
from db.ids import new_id
from db.ledger import ATTEMPT, DECISION, JOB
from db.plans import Onto, step_of
from db.queue import BATCH
from db.rates import Gates
from db.reserving import Purse, reserve
from db.rooms import put_off
from db.states import AttemptState, BatchState, JobState, Lane, Tier
from db.tables import Batch

_NO_LEASE: dict[str, Any] = {"lease_by": None, "lease_until": None}
_LOOK_S = 60.0  # what finds no room is looked at again after this, at the latest
_OURS = and_(BATCH.c.lane == Lane.BACKGROUND.value, BATCH.c.state != BatchState.IMPORTED.value)


class OneRow(NamedTuple):
    """The row of a batch."""

    job_id: str
    n: int
    body: str
    output_cap: int | None  # tokens of a choice, that its reservation rests on
    sent: bool  # its attempt is open: nothing has settled it yet


# ---- pack ----


def pack(store: Store, endpoints: Mapping[str, str], limit: int, now: datetime, purse: Purse | None = None) -> int:
    """Give each due job of these providers, by their base URLs, a batch of its own, its attempt open; how many.

    Earliest `leave_by` first. The window is the one that the job's step of its plan names. Those that no budget has
    room for wait, or fail; they count, too.
    """
    order = (JOB.c.leave_by.is_(None), JOB.c.leave_by, JOB.c.id)
    free = select(JOB.c.id).where(_queued(endpoints, now), JOB.c.run_after <= now).order_by(*order).limit(limit)
    with store.write() as connection:
        ids = connection.scalars(free.with_for_update(skip_locked=True, key_share=True)).all()
        if not ids:
            return 0
        made = _batches(connection, ids, endpoints, now)
        windows = {job_id: batch["completion_window"] for job_id, batch in made if batch["completion_window"]}
        reserved = reserve(connection, purse, ids, now, windows)
        put_off(connection, reserved.refused, now)
        if not reserved.fits:
            return len(ids)
        made = [(job_id, batch) for job_id, batch in made if job_id not in reserved.refused]
        connection.execute(insert(BATCH), [batch for _, batch in made])
        connection.execute(_HOLD, [{"b_id": job_id, "b_batch": batch["id"]} for job_id, batch in made])
        ledger.open_for(connection, sorted(reserved.fits), now)
        reserved.keep(connection)
        asks = [{"b_batch": batch["id"], "b_tier": windows[job_id]} for job_id, batch in made if job_id in windows]
        if asks:
            connection.execute(_ASK, asks)
        rollups.opened(connection, [batch["id"] for _, batch in made])
    return len(ids)


def _queued(providers: Mapping[str, str], now: datetime) -> Any:
    """Jobs whose hour to leave the lane has come are not packed any more."""
    queued = and_(JOB.c.state == JobState.QUEUED.value, JOB.c.lane == Lane.BACKGROUND.value)
    stays = or_(JOB.c.leave_by.is_(None), JOB.c.leave_by > now)
    return and_(queued, stays, JOB.c.provider.in_(list(providers)))


def _batches(
    connection: Connection, ids: Sequence[str], endpoints: Mapping[str, str], now: datetime
) -> list[tuple[str, dict[str, Any]]]:
    jobs = connection.execute(
        select(JOB.c.id, JOB.c.provider, JOB.c.model, JOB.c.leave_by, JOB.c.step, JOB.c.decision_id)
        .where(within(JOB.c.id, ids, connection))
        .order_by(JOB.c.id)
    ).all()
    decided = sorted({job.decision_id for job in jobs})
    plans = select(DECISION.c.id, DECISION.c.plan).where(within(DECISION.c.id, decided, connection))
    by_id: dict[str, Any] = {row.id: row.plan for row in connection.execute(plans)}
    same = {"state": BatchState.PACKED.value, "lane": Lane.BACKGROUND.value, "rows": 1, "create_tries": 0, "done": 0,
            "packed_at": now, "next_poll_at": now, "input_tokens": 0}  # fmt: skip
    made = []
    for job in jobs:
        steps = by_id[job.decision_id][job.step : job.step + 1]
        own = {"id": new_id(now), "provider": job.provider, "base_url": endpoints[job.provider], "model": job.model,
               "leave_by": job.leave_by, "completion_window": steps[0].get("window") if steps else None}  # fmt: skip
        made.append((job.id, same | own))
    return made


_HOLD = (
    update(JOB)
    .where(JOB.c.id == bindparam("b_id"))
    .values(state=JobState.SUBMITTED.value, batch_id=bindparam("b_batch"), attempts=JOB.c.attempts + 1)
)
_ASK = update(ATTEMPT).where(ATTEMPT.c.batch_id == bindparam("b_batch")).values(tier=bindparam("b_tier"))


# ---- take ----


def take(
    store: Store, endpoints: Mapping[str, str], by: str, until: datetime, limit: int, now: datetime
) -> list[Batch]:
    """At most so many that are due and that nobody holds, under a lease; the longest due first."""
    free = or_(BATCH.c.lease_until.is_(None), BATCH.c.lease_until < now)
    due = and_(_here(endpoints), BATCH.c.next_poll_at <= now, free)
    some = select(BATCH.c.id).where(due).order_by(BATCH.c.next_poll_at).limit(limit)
    held = some.with_for_update(skip_locked=True, key_share=True).cte("free")
    taking = update(BATCH).where(BATCH.c.id.in_(select(held.c.id))).values(lease_by=by, lease_until=until)
    with store.write() as connection:
        rows = connection.execute(taking.returning(*BATCH.c)).all()
    return sorted((Batch(**row._mapping) for row in rows), key=lambda row: row.next_poll_at)


def next_due(store: Store, endpoints: Mapping[str, str], now: datetime) -> datetime | None:
    """When the next job or response of this lane is due; None when there is none, or others hold all of them."""
    free = or_(BATCH.c.lease_until.is_(None), BATCH.c.lease_until < now)
    with store.read() as connection:
        job = connection.scalar(select(func.min(JOB.c.run_after)).where(_queued(endpoints, now)))
        batch = connection.scalar(select(func.min(BATCH.c.next_poll_at)).where(_here(endpoints), free))
    return min((at for at in (job, batch) if at), default=None)


def _here(endpoints: Mapping[str, str]) -> Any:
    here = (and_(BATCH.c.provider == name, BATCH.c.base_url == url) for name, url in endpoints.items())
    return and_(_OURS, or_(False, *here))


def row_of(store: Store, batch_id: str) -> OneRow:
    """The one row of a batch, whatever became of it."""
    query = select(
        ATTEMPT.c.job_id, ATTEMPT.c.n, BODY.c.body, ATTEMPT.c.output_cap, ATTEMPT.c.state == AttemptState.SENT.value
    )
    with store.read() as connection:
        rows = query.join(BODY, BODY.c.job_id == ATTEMPT.c.job_id).where(ATTEMPT.c.batch_id == batch_id)
        return OneRow(*connection.execute(rows).one())


def next_step(store: Store, job_id: str) -> Onto:
    """Where a job goes on when its server takes nothing in the background: its next step, else a plain call."""
    query = select(JOB.c.step, DECISION.c.plan).join(DECISION, DECISION.c.id == JOB.c.decision_id)
    with store.read() as connection:
        step, plan = connection.execute(query.where(JOB.c.id == job_id)).one()
    return step_of(plan, step + 1) or Onto(step + 1, Lane.SYNC.value, Tier.DEFAULT.value, None)


# Each move below names the state that it leaves, and gives the lease back.


def _move(store: Store, where: Any, values: dict[str, Any], *, durable: bool = False) -> bool:
    with store.write(durable=durable) as connection:
        hold(connection, select(BATCH.c.id).where(where).order_by(BATCH.c.id))
        return connection.execute(update(BATCH).where(where).values(values)).rowcount == 1


def intend(store: Store, batch: Batch, now: datetime, gates: Gates | None = None) -> bool:
    """Win the right to POST it, once and for all; False when it is another's by now, or was taken out.

    False, too, where the `gates`, which live calls go through as well, have no room: then what waits for the same model
    is looked at again when they may.
    """
    mine = and_(BATCH.c.id == batch.id, BATCH.c.lease_by == batch.lease_by, BATCH.c.cancel_at.is_(None))
    fresh = and_(BATCH.c.state == BatchState.PACKED.value, BATCH.c.create_intent_at.is_(None))
    open_ = select(ATTEMPT.c.n).where(ATTEMPT.c.batch_id == batch.id, ATTEMPT.c.state == AttemptState.SENT.value)
    intent = {"upload_intent_at": now, "create_intent_at": now, "create_tries": BATCH.c.create_tries + 1}
    where = and_(mine, fresh, open_.exists())
    with store.write(durable=True) as connection:
        known = gates is not None and gates.open(connection, now)  # before the batch: whoever claims does so, too
        if known and gates and not gates.admit((batch.provider, batch.model), _tokens(connection, batch)):
            _hold_back(connection, batch, now, now + timedelta(seconds=min(gates.wait_s or 0.0, _LOOK_S)))
            return False
        hold(connection, select(BATCH.c.id).where(where).order_by(BATCH.c.id))
        won = connection.execute(update(BATCH).where(where).values(intent)).rowcount == 1
        if won and known and gates:
            gates.keep(connection)
        return won


def _tokens(connection: Connection, batch: Batch) -> int:
    """What its response is expected to take."""
    query = select(DECISION.c.input_tokens + DECISION.c.output_p90).join(JOB, JOB.c.decision_id == DECISION.c.id)
    query = query.join(ATTEMPT, ATTEMPT.c.job_id == JOB.c.id).where(ATTEMPT.c.batch_id == batch.id)
    return int(connection.scalar(query) or 0)


def _hold_back(connection: Connection, batch: Batch, now: datetime, until: datetime) -> None:
    """What this owner holds or nobody does of the model's unsent responses waits: each would find no room."""
    free = or_(BATCH.c.lease_until.is_(None), BATCH.c.lease_until < now)
    where = and_(_here({batch.provider: batch.base_url}), BATCH.c.model == batch.model, BATCH.c.next_poll_at < until)
    where = and_(where, BATCH.c.state == BatchState.PACKED.value, BATCH.c.create_intent_at.is_(None))
    mine = and_(BATCH.c.id == batch.id, BATCH.c.lease_by == batch.lease_by)
    theirs = select(BATCH.c.id).where(where, or_(mine, free)).order_by(BATCH.c.id)
    ids = connection.scalars(theirs.with_for_update(skip_locked=True, key_share=True)).all()
    waits = {"next_poll_at": until, "error": "waits for a limit of its provider"}
    connection.execute(update(BATCH).where(within(BATCH.c.id, ids, connection)).values(waits | _NO_LEASE))


def take_back(store: Store, batch_id: str, until: datetime, error: str) -> bool:
    """A clear refusal: nothing was made, so that it may be sent again at `until`."""
    where = and_(BATCH.c.id == batch_id, BATCH.c.state == BatchState.PACKED.value)
    none = {"upload_intent_at": None, "create_intent_at": None, "next_poll_at": until, "error": error}
    return _move(store, where, none | _NO_LEASE)


def created(store: Store, batch_id: str, response_id: str, status: str, next_poll_at: datetime, now: datetime) -> bool:
    """It is at the provider under this id; False when it was given up meanwhile."""
    where = and_(BATCH.c.id == batch_id, BATCH.c.state == BatchState.PACKED.value)
    known = {"state": BatchState.SUBMITTED.value, "provider_batch_id": response_id, "status": status}
    times = {"submitted_at": now, "next_poll_at": next_poll_at, "error": None}
    return _move(store, where, known | times | _NO_LEASE, durable=True)


def came_late(store: Store, batch_id: str, response_id: str, status: str, now: datetime) -> bool:
    """It was given up and is there after all: it is cancelled, and charged for what it did until then."""
    where = and_(BATCH.c.id == batch_id, BATCH.c.provider_batch_id.is_(None))
    where = and_(where, BATCH.c.state == BatchState.IMPORTED.value)
    known = {"state": BatchState.SUBMITTED.value, "provider_batch_id": response_id, "status": status}
    times = {"submitted_at": now, "next_poll_at": now, "cancel_at": now, "imported_at": None, "error": None}
    return _move(store, where, known | times | _NO_LEASE, durable=True)


def wait(store: Store, batch_id: str, until: datetime, *, status: str | None = None, error: str | None = None) -> bool:
    """Look at it again at `until`; `error` says what it waits for."""
    where = and_(BATCH.c.id == batch_id, BATCH.c.state != BatchState.IMPORTED.value)
    seen = {"status": status} if status else {}
    return _move(store, where, {"next_poll_at": until, "error": error} | seen | _NO_LEASE)


def close(store: Store, batch_id: str, now: datetime, *, status: str | None = None, done: int = 0,
          error: str | None = None) -> bool:  # fmt: skip
    """Its row is settled."""
    where = and_(BATCH.c.id == batch_id, BATCH.c.state != BatchState.IMPORTED.value)
    seen = {"status": status, "ended_at": now, "done": done} if status else {}
    ended = {"state": BatchState.IMPORTED.value, "imported_at": now, "error": error}
    return _move(store, where, ended | seen | _NO_LEASE)


def release(store: Store, by: str) -> None:
    """Give back what this owner holds: it was taken, and not moved."""
    where = and_(BATCH.c.lane == Lane.BACKGROUND.value, BATCH.c.lease_by == by)
    with store.write() as connection:
        hold_ids(connection, BATCH, connection.scalars(select(BATCH.c.id).where(where)).all())
        connection.execute(update(BATCH).where(where).values(_NO_LEASE))
