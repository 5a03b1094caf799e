"""What was known at a time: a past job is decided by what had been seen when it came in, not by what came after."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from db import turnarounds
from db.engine import Store
from db.replay import BATCH
from router import replaying
from tests.lanes import NOW
from tests.past import SYNC, batched, called, packed, paid, router

pytestmark = pytest.mark.both


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def happened(store: Store, at: datetime, seconds: float, status: str = "completed") -> None:
    """The newest batch was submitted at once and ended, whole or not, so long after it was packed."""
    ended = at + timedelta(seconds=seconds)
    facts = {"state": "imported", "status": status, "provider_batch_id": f"b{at}{seconds}"}
    times = {"submitted_at": at, "ended_at": ended, "imported_at": ended}
    with store.write() as connection:
        connection.execute(update(BATCH).where(BATCH.c.packed_at == at).values(**facts, **times))


def test_a_batch_was_open_until_it_ended(store: Store) -> None:
    packed(store, NOW)
    happened(store, NOW, 600)
    assert turnarounds.batches(store, after(-1)) == []
    (then,) = turnarounds.batches(store, after(100))
    assert (then.seconds, then.done, then.lost) == (100, False, False)
    (now,) = turnarounds.batches(store, after(601))
    assert (now.seconds, now.done, now.lost) == (600, True, False)


def test_nobody_knew_that_a_batch_would_expire(store: Store) -> None:
    packed(store, NOW)
    happened(store, NOW, 86_400, "expired")
    assert [one.lost for seconds in (100, 90_000) for one in turnarounds.batches(store, after(seconds))] == [
        False,
        True,
    ]


def test_calls_and_money_are_known_when_they_were(store: Store) -> None:
    called(store, 5, charge=paid(SYNC, total_ms=4000.0))
    assert [len(turnarounds.calls(store, after(seconds))) for seconds in (4, 6)] == [0, 1]
    assert len(turnarounds.calls(store)) == 1
    assert [turnarounds.spent(store, NOW, after(seconds)) for seconds in (0, 2)] == [0, SYNC]


def test_what_came_later_does_not_change_how_a_job_is_decided(store: Store, database_url: str, tmp_path: Path) -> None:
    def ways(*period: datetime) -> Any:
        made = router(database_url, tmp_path)
        try:
            return [(one["to"], one["jobs"]) for one in replaying.over(made, *period)["moves"]]
        finally:
            asyncio.run(made.close())

    soon = {"deadline_at": after(2400)}
    batched(store, 600, **soon)
    before = ways(NOW, after(3600))
    assert before == [("batch, then sync", 1)]
    for hour in range(40):
        at = after(86_400 + 3600 * hour)
        batched(store, 30, at)
        happened(store, at, 30)
    late = after(10 * 86_400)
    batched(store, 600, late, deadline_at=late + timedelta(seconds=2400))
    assert ways(NOW, after(3600)) == before
    assert ways(late, late + timedelta(hours=1)) == [("batch", 1)]  # by then it was known how quick they are
