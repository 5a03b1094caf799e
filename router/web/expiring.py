"""Batches whose window is over: what has no answer by then gets none, and what runs for it is stopped."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from db import gateway_batches, stops
from db.engine import Store
from db.gateway_batches import Asked
from db.states import FINAL

_BEFORE = timedelta(days=30)  # a server that begins looks so far back; what is older is expired when it is asked for
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


def expire(store: Store, since: datetime | None, now: datetime) -> datetime:
    """Expire what is late since the last time, whether anybody asks for it or not; when that was, for the next time."""
    for batch in gateway_batches.late(store, since or now - _BEFORE, now):
        look(store, batch, now)
    return now
