"""Attempts of unknown cost, and what a person says of them who has seen the provider's bill."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Row, select

from db import ledger
from db.dialect import hold_ids
from db.engine import Store
from db.ledger import ATTEMPT, JOB, Charge, Settled
from db.states import AttemptState, CostSource

BILLED = "a person, by the bill"  # the price that such an attempt names
FREE = "not billed"

_UNKNOWN = ATTEMPT.c.state == AttemptState.UNKNOWN.value
_SAME = [name for name in Charge._fields if name in ATTEMPT.c and name not in ("at_risk_nano", "state")]


class Unknown(NamedTuple):
    """An attempt that may have been billed: nano-dollars at risk and set aside, None where nobody can tell."""

    job_id: str
    n: int
    lane: str
    model: str
    sent_at: datetime
    at_risk_nano: int | None
    reserved_nano: int | None


def unknown(store: Store, job_id: str | None = None, limit: int = 1000) -> list[Unknown]:
    """The attempts of unknown cost, of this job or of all, the oldest first."""
    query = select(*(ATTEMPT.c[name] for name in Unknown._fields)).where(_UNKNOWN)
    query = query.where(ATTEMPT.c.job_id == job_id) if job_id else query
    with store.read() as connection:
        rows = connection.execute(query.order_by(ATTEMPT.c.sent_at, ATTEMPT.c.job_id, ATTEMPT.c.n).limit(limit))
        return [Unknown(*row) for row in rows]


def settle(store: Store, attempts: Sequence[tuple[str, int]], cost_nano: int, now: datetime) -> list[tuple[str, int]]:
    """Each of these attempts (job, number) has cost so much: booked on its budgets, and what it held is given back.

    Those that came back; one that is no longer unknown is left as it is. Its job stays as it is, too.
    """
    wanted = sorted(attempts)
    with store.write() as connection:
        hold_ids(connection, JOB, sorted({job_id for job_id, _ in wanted}))
        query = select(ATTEMPT.c.job_id, ATTEMPT.c.n, *(ATTEMPT.c[name] for name in _SAME)).where(_UNKNOWN)
        rows = [connection.execute(query.where(ATTEMPT.c.job_id == job, ATTEMPT.c.n == n)).first() for job, n in wanted]
        ends = [Settled(row.job_id, row.n, _charge(row, cost_nano)) for row in rows if row is not None]
        ledger.close(connection, ends, now)
    return [(one.job_id, one.n) for one in ends]


def _charge(row: Row[Any], cost_nano: int) -> Charge:
    """The charge as it was, with its cost: what happened to the call has not changed."""
    same = {name: row._mapping[name] for name in _SAME}
    cost = {"cost_nano": cost_nano, "standard_nano": cost_nano, "cost_source": CostSource.REPORTED}
    return Charge(AttemptState.FAILED, **same | cost | {"price": BILLED if cost_nano else FREE})
