"""The rate of a key, over all servers of one database."""

from datetime import UTC, datetime

import pytest

from db import keys, pace
from db.engine import Store, connect


@pytest.mark.both
def test_a_key_s_rate_is_one_over_all_servers(store: Store, database_url: str) -> None:
    now = datetime.now(UTC)
    key, words = keys.new("somebody", None, 2, now)
    keys.create(store, key, words)
    other = connect(database_url)
    assert [pace.take(one, key.id, 2, 100.0) for one in (store, other)] == [0.0, 0.0]
    assert pace.take(store, key.id, 2, 100.0) == 30.0
    assert pace.take(other, key.id, 2, 115.0) == 15.0
    assert [pace.take(one, key.id, 2, 130.0) for one in (store, other)] == [0.0, 30.0]
    assert [pace.take(store, key.id, 2, 1000.0) for _ in range(3)] == [0.0, 0.0, 30.0]
    other.close()


@pytest.mark.parametrize("a_minute", [1, 7, 59, 1000])
def test_all_of_a_minute_may_come_at_once(store: Store, a_minute: int) -> None:
    now = datetime.now(UTC)
    key, words = keys.new("somebody", None, a_minute, now)
    keys.create(store, key, words)
    at = now.timestamp()
    waits = [pace.take(store, key.id, a_minute, at) for _ in range(a_minute + 1)]
    assert waits[:-1] == [0.0] * a_minute
    assert waits[-1] == pytest.approx(60 / a_minute, abs=0.002)
