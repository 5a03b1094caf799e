"""Batches at a provider that no row of ours answers to: whose they are, and where what they cost is written down.

A row that was billed once more than the ledger knows gets an attempt of its own, numbered by `db.ids.copy`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, func, insert, select, text, update

from db.budgets import shared
from db.dialect import alone, hold_ids, within
from db.engine import Store
from db.ids import COPIES, copied, copy, new_id
from db.ledger import ATTEMPT, DECISION, JOB
from db.paid import PAID
from db.queue import BATCH
from db.rollups import changing
from db.states import AttemptState, BatchState, CostSource, Lane, Tier
from db.tables import Batch

Key = tuple[str, int]  # job, try

_UNKNOWN = AttemptState.UNKNOWN.value
# In the words of the partial index `attempt_open`, by which SQLite finds it.
_BLIND = text("attempt.state IN ('sent', 'unknown')")


@dataclass(frozen=True, slots=True)
class Found:
    """A batch at the provider, as the ledger keeps it."""

    provider: str
    base_url: str
    provider_batch_id: str
    status: str
    rows: int
    done: int
    created_at: datetime | None
    output_file_id: str | None = None
    error_file_id: str | None = None


def at(store: Store, provider: str, base_url: str) -> list[Batch]:
    """Every provider batch that was made there."""
    with store.read() as connection:
        there = and_(BATCH.c.provider == provider, BATCH.c.base_url == base_url, BATCH.c.lane == Lane.BATCH.value)
        return [Batch(**row._mapping) for row in connection.execute(select(*BATCH.c).where(there).order_by(BATCH.c.id))]


def unknown_in(store: Store) -> dict[str, int]:
    """How many attempts of each batch may have been billed and nobody could tell, where there are any."""
    query = select(ATTEMPT.c.batch_id, func.count()).where(_BLIND, ATTEMPT.c.state == _UNKNOWN)
    with store.read() as connection:
        rows = connection.execute(query.where(ATTEMPT.c.batch_id.is_not(None)).group_by(ATTEMPT.c.batch_id))
        return {batch_id: int(number) for batch_id, number in rows}


def worth(store: Store, batch_ids: Sequence[str]) -> dict[str, int]:
    """What all rows of a batch were expected to cost, in nano-dollars."""
    query = select(ATTEMPT.c.batch_id, func.sum(DECISION.c.cost_nano)).join(JOB, JOB.c.id == ATTEMPT.c.job_id)
    query = query.join(DECISION, DECISION.c.id == JOB.c.decision_id).where(ATTEMPT.c.n < COPIES)
    with store.read() as connection:
        rows = connection.execute(query.where(ATTEMPT.c.batch_id.in_(batch_ids)).group_by(ATTEMPT.c.batch_id))
        return {batch_id: int(nano) for batch_id, nano in rows if nano is not None}


def known(store: Store, job_ids: Sequence[str]) -> set[str]:
    """Those of the jobs that this database has."""
    with store.read() as connection:
        return set(connection.scalars(select(JOB.c.id).where(within(JOB.c.id, job_ids, connection))))


def batch_of(store: Store, key: Key) -> str | None:
    """The batch that a try was a row of."""
    with store.read() as connection:
        row = and_(ATTEMPT.c.job_id == key[0], ATTEMPT.c.n == key[1])
        return connection.scalar(select(ATTEMPT.c.batch_id).where(row))


# ---- adopting ----


def home(store: Store, found: Found, batch_id: str | None, job_id: str, now: datetime) -> str:
    """The batch of ours that stands for the provider's from now on: the one already bound to it; `batch_id`, closed
    and never bound to any; else a new one, of the job's model.
    """
    there = and_(BATCH.c.provider == found.provider, BATCH.c.base_url == found.base_url)
    with store.write(durable=True) as connection:
        alone(connection, "adopt")
        bound = select(BATCH.c.id).where(there, BATCH.c.provider_batch_id == found.provider_batch_id)
        if known_as := connection.scalar(bound):
            return str(known_as)
        closed = and_(BATCH.c.id == batch_id, there, BATCH.c.state == BatchState.IMPORTED.value)
        free = update(BATCH).where(closed, BATCH.c.provider_batch_id.is_(None))
        if batch_id and connection.execute(free.values(_there(found, now))).rowcount:
            return batch_id
        model, made = connection.scalar(select(JOB.c.model).where(JOB.c.id == job_id)), new_id(now)
        connection.execute(insert(BATCH).values(_new(made, found, str(model), now)))
        return made


def _there(found: Found, now: datetime) -> dict[str, Any]:
    files = {"output_file_id": found.output_file_id, "error_file_id": found.error_file_id}
    seen = {"provider_batch_id": found.provider_batch_id, "status": found.status, "done": found.done}
    return files | seen | {"submitted_at": found.created_at or now, "ended_at": now}


def _new(batch_id: str, found: Found, model: str, now: datetime) -> dict[str, Any]:
    what = {"id": batch_id, "state": BatchState.IMPORTED.value, "provider": found.provider, "base_url": found.base_url}
    counts = {"model": model, "rows": max(found.rows, 1), "create_tries": 0, "lane": Lane.BATCH.value,
              "input_tokens": 0}  # fmt: skip
    times = {"packed_at": found.created_at or now, "next_poll_at": now, "imported_at": now}
    why = "it was found at the provider and adopted; no batch of this database had made it"
    return what | counts | times | _there(found, now) | {"error": why}


def unheard(store: Store, batch_id: str, limit: int) -> list[Key]:
    """Tries of the batch that are unknown because nothing was ever heard of their rows."""
    lost = and_(ATTEMPT.c.batch_id == batch_id, ATTEMPT.c.state == _UNKNOWN, ATTEMPT.c.outcome.is_(None))
    with store.read() as connection:
        rows = connection.execute(select(ATTEMPT.c.job_id, ATTEMPT.c.n).where(lost).limit(limit))
        return [(row.job_id, row.n) for row in rows]


def spent(store: Store, batch_id: str) -> int:
    """What the attempts of a batch have cost, as far as it is known, in nano-dollars."""
    with store.read() as connection:
        costs = select(func.sum(PAID)).where(ATTEMPT.c.batch_id == batch_id)
        return int(connection.scalar(costs) or 0)


def places(store: Store, batch_id: str, keys: Iterable[Key], billed: set[Key], now: datetime) -> dict[Key, int]:
    """The attempt that each row's bill belongs to, by its number; rows of unknown jobs, and free ones, have none.

    It is the try itself where that was a row of this batch; else a copy, opened here with what a try puts at risk.
    Asking again finds the same copies.
    """
    keys = list(keys)
    ids = sorted({job_id for job_id, _ in keys})
    with store.write() as connection:
        hold_ids(connection, JOB, ids)
        jobs = set(connection.scalars(select(JOB.c.id).where(within(JOB.c.id, ids, connection))))
        tries = _tries(connection, ids)
        found = {
            key: number
            for key in keys
            if key[0] in jobs and (number := _place(key, tries.get(key[0], {}), batch_id, key in billed))
        }
        new = [(job_id, n) for (job_id, _), n in found.items() if n not in tries.get(job_id, {})]
        _open(connection, batch_id, new, now)
    return found


def _tries(connection: Connection, ids: Sequence[str]) -> dict[str, dict[int, str | None]]:
    """The batch of each attempt of the jobs."""
    rows: dict[str, dict[int, str | None]] = {}
    columns = (ATTEMPT.c.job_id, ATTEMPT.c.n, ATTEMPT.c.batch_id)
    for job_id, n, batch_id in connection.execute(select(*columns).where(within(ATTEMPT.c.job_id, ids, connection))):
        rows.setdefault(job_id, {})[n] = batch_id
    return rows


def _place(key: Key, tries: Mapping[int, str | None], batch_id: str, billed: bool) -> int | None:
    if tries.get(key[1]) == batch_id:
        return key[1]
    copies = [n for n in tries if n >= COPIES and copied(n)[0] == key[1]]
    mine = [n for n in copies if tries[n] == batch_id]
    if mine or not billed:
        return mine[0] if mine else None
    return copy(key[1], 1 + max((copied(n)[1] for n in copies), default=0))


def _open(connection: Connection, batch_id: str, rows: Sequence[Key], now: datetime) -> None:
    if not rows:
        return
    batch = connection.execute(select(BATCH.c.submitted_at, BATCH.c.lane).where(BATCH.c.id == batch_id)).one()
    query = select(JOB.c.id, JOB.c.provider, JOB.c.model, DECISION.c.cost_p90_nano)
    query = query.join(DECISION, DECISION.c.id == JOB.c.decision_id)
    ours = within(JOB.c.id, [job_id for job_id, _ in rows], connection)
    facts = {row.id: row for row in connection.execute(query.where(ours))}
    same = {"state": AttemptState.SENT.value, "lane": batch.lane, "tier": Tier.DEFAULT.value, "batch_id": batch_id,
            "sent_at": batch.submitted_at or now, "cost_source": CostSource.UNKNOWN.value}  # fmt: skip
    values = [
        same | {"job_id": job_id, "n": n, "provider": facts[job_id].provider, "model": facts[job_id].model,
                "at_risk_nano": facts[job_id].cost_p90_nano}
        for job_id, n in rows
    ]  # fmt: skip
    with changing(connection, [job_id for job_id, _ in rows]):
        connection.execute(insert(ATTEMPT), values)
    shared(connection, [(job_id, copied(n)[0], n) for job_id, n in rows])
