"""Clients' batches whose window is over: what has no answer by then gets none, and what runs for it is stopped."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from db import facts, gateway_batches, stops
from db.engine import Store
from db.gateway_batches import Asked
from db.states import FINAL

KEY = "batches_expired_until"  # all that was late by then is expired; every server and worker goes on from there
_BEFORE = timedelta(days=30)  # the first look goes so far back; what is older is expired when it is asked for
_STEP = timedelta(minutes=1)  # nothing is written more often
Standing = tuple[Asked, Mapping[str, int], datetime | None]


def look(store: Store, batch: Asked, now: datetime) -> Standing:
    """A batch, how its jobs stand, and since when the last one has; expired first, where it is time."""
    standing = _standing(store, batch)
    if batch.expired_at is None and _late(batch, standing[1], now):
        standing = _expire(store, batch, now)
    return standing


def _standing(store: Store, batch: Asked) -> Standing:
    counts, ended = gateway_batches.standing(store, batch.submission_id) if batch.submission_id else ({}, None)
    return batch, counts, ended


def _late(batch: Asked, counts: Mapping[str, int], now: datetime) -> bool:
    over = now >= batch.expires_at and batch.cancelled_at is None
    return over and any(number for state, number in counts.items() if state not in FINAL)


def _expire(store: Store, batch: Asked, now: datetime) -> Standing:
    assert batch.submission_id is not None
    gateway_batches.change(store, batch.id, expired_at=now)
    stops.stop(store, gateway_batches.jobs_of(store, batch.submission_id), now)
    return _standing(store, batch._replace(expired_at=now))


def expire(store: Store, now: datetime) -> None:
    """Expire what is late since the last time, whether anybody asks for it or not."""
    kept = facts.get(store, KEY)
    since = datetime.fromisoformat(kept) if kept else now - _BEFORE
    for batch in gateway_batches.late(store, since, now):
        look(store, batch, now)
    if now - since >= _STEP:
        facts.put(store, KEY, now.isoformat())
