"""What doctor reads besides the account: money at risk, and who shares this database. Read only."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, or_, select, text

from db.engine import Store
from db.ledger import ATTEMPT
from db.lookup import iso
from db.money import usd
from db.queue import BATCH
from db.states import AttemptState, BatchState
from db.workers import WORKER

# In the words of the partial index `attempt_open`, by which SQLite finds it.
_BLIND = text("attempt.state IN ('sent', 'unknown')")


def at_risk(store: Store) -> dict[str, Any]:
    """Attempts of which nobody can tell whether they were billed: how many, what at most, since when."""
    sums = (
        func.count(),
        func.count(ATTEMPT.c.at_risk_nano),
        func.sum(ATTEMPT.c.at_risk_nano),
        func.min(ATTEMPT.c.sent_at),
    )
    query = select(ATTEMPT.c.lane, *sums).where(_BLIND, ATTEMPT.c.state == AttemptState.UNKNOWN.value)
    with store.read() as connection:
        found = [tuple(row) for row in connection.execute(query.group_by(ATTEMPT.c.lane).order_by(ATTEMPT.c.lane))]
    oldest = [row[4] for row in found]
    return {
        "attempts": sum(row[1] for row in found),
        "unpriced": sum(row[1] - row[2] for row in found),  # of models without a price
        "at_risk_usd": usd(sum(int(row[3] or 0) for row in found)),
        "oldest_at": iso(min(oldest, default=None)),
        "lanes": [{"lane": row[0], "attempts": row[1], "at_risk_usd": usd(int(row[3] or 0))} for row in found],
    }


def overdue(store: Store, since: datetime) -> list[str]:
    """Open batches that should have ended by then, or that nobody has looked at since they were due."""
    late = or_(BATCH.c.expires_at < since, BATCH.c.next_poll_at < since)
    with store.read() as connection:
        found = select(BATCH.c.id).where(BATCH.c.state != BatchState.IMPORTED.value, late).order_by(BATCH.c.id.desc())
        return list(connection.scalars(found))


def present(store: Store, kind: str, now: datetime, dead_s: float) -> list[dict[str, Any]]:
    """Those of the kind that have not said goodbye and were not taken over, longest running first.

    `alive` ones have beaten in the last `dead_s` seconds.
    """
    here = WORKER.c.stopped_at.is_(None), WORKER.c.taken_by.is_(None), WORKER.c.kind == kind
    columns = WORKER.c.id, WORKER.c.host, WORKER.c.pid, WORKER.c.started_at, WORKER.c.beat_at
    with store.read() as connection:
        found = connection.execute(select(*columns).where(*here).order_by(WORKER.c.started_at, WORKER.c.pid)).all()
    return [
        {
            "id": row.id,
            "host": row.host,
            "pid": row.pid,
            "started_at": iso(row.started_at),
            "beat_at": iso(row.beat_at),
            "alive": row.beat_at >= now - timedelta(seconds=dead_s),
        }
        for row in found
    ]
