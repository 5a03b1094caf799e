"""Limits that are kept in the database: shared by all workers, and spent in the transaction that claims."""

from datetime import timedelta

import pytest

from db import queue, rates
from db.buckets import Gauge
from db.engine import Store, connect
from db.queue import Claim
from db.rates import Gates, Lesson
from tests.lanes import CLAUDE, MODEL, NOW, add, job, rows, states

pytestmark = pytest.mark.both

URL = "http://here/v1"
URLS = {"openai": URL, "anthropic": "http://there"}
UNTIL = NOW + timedelta(hours=1)


def at(seconds: float) -> object:
    return NOW + timedelta(seconds=seconds)


def claim(store: Store, gates: Gates, limit: int, seconds: float = 0.0, by: str = "me") -> list[Claim]:
    return queue.claim(store, by, UNTIL, limit, NOW + timedelta(seconds=seconds), list(URLS), gates)


def learn(store: Store, seconds: float = 0.0, **heard: object) -> None:
    facts = {"provider": "openai", "base_url": URL, "model": MODEL} | heard
    rates.learn(store, [Lesson(**facts)], NOW + timedelta(seconds=seconds))


def jobs(store: Store, count: int, **more: object) -> None:
    add(store, *(job(f"number {n}", lane="sync", **more) for n in range(count)))


def kept(store: Store, column: str) -> object:
    return rows(store, f"SELECT {column} FROM rate")[0][0]


def test_nothing_known_holds_nothing_back_and_keeps_nothing(store: Store) -> None:
    jobs(store, 5)
    learn(store, unspent=10.0)
    gates = Gates(URLS)
    assert len(claim(store, gates, 5)) == 5
    assert gates.wait_s is None
    assert rows(store, "SELECT 1 FROM rate") == []


def test_a_limit_lets_through_what_is_left_and_time_brings_more(store: Store) -> None:
    jobs(store, 20)
    learn(store, requests=Gauge(60, 3))
    gates = Gates(URLS)
    assert len(claim(store, gates, 10)) == 3
    assert gates.wait_s == pytest.approx(1.0)
    assert claim(store, gates, 10, 0.5) == []
    assert gates.wait_s == pytest.approx(0.5)
    assert [len(claim(store, gates, 10, seconds)) for seconds in (1, 2, 3)] == [1, 1, 1]
    assert len(claim(store, gates, 10, 60)) == 1  # a minute's worth at once is let through where an answer tells of it
    learn(store, 61, requests=Gauge(60, 9))
    assert len(claim(store, gates, 10, 61)) == 9
    assert states(store) == {"queued": 4, "running": 16}


def test_two_workers_share_it(store: Store) -> None:
    other = connect(f"sqlite:///{store.path}") if store.path else store
    jobs(store, 40)
    learn(store, requests=Gauge(600, 0))
    mine, theirs = Gates(URLS), Gates(URLS)
    taken = [len(claim(store, mine, 5, n / 4, "me")) + len(claim(other, theirs, 5, n / 4, "they")) for n in range(1, 9)]
    assert sum(taken) == 20  # two seconds of ten
    assert max(taken) <= 3
    if other is not store:
        other.close()


def test_tokens_are_set_aside_and_what_was_not_used_comes_back(store: Store) -> None:
    jobs(store, 20)
    learn(store, tokens=Gauge(6000, 10))  # a decision of the tests sets two aside
    gates = Gates(URLS)
    assert len(claim(store, gates, 20)) == 5
    learn(store, unspent=4.0)
    assert len(claim(store, gates, 20)) == 2
    assert gates.wait_s == pytest.approx(0.02)


def test_one_model_at_its_limit_holds_up_no_other(store: Store) -> None:
    jobs(store, 6, priority=9)
    jobs(store, 6, model=CLAUDE, decision_id="e")
    learn(store, requests=Gauge(60, 1))
    gates = Gates(URLS)
    claims = claim(store, gates, 6)
    assert sorted(one.model for one in claims) == [CLAUDE] * 5 + [MODEL]
    assert gates.wait_s == pytest.approx(1.0)
    assert {one.model for one in claim(store, gates, 6)} == {CLAUDE}


def test_priority_and_deadline_keep_their_order(store: Store) -> None:
    jobs(store, 2)
    (urgent,) = add(store, job(lane="sync", priority=5))
    (soon,) = add(store, job(lane="sync", deadline_at=UNTIL))
    learn(store, requests=Gauge(60, 1))
    gates = Gates(URLS)
    assert [claim(store, gates, 9, n)[0].job_id for n in range(2)] == [urgent, soon]


def test_retry_after_holds_for_everybody(store: Store) -> None:
    jobs(store, 4)
    learn(store, refused="requests", sent_at=NOW, wait_s=30.0)
    gates = Gates(URLS)
    assert claim(store, gates, 4, 29, "they") == []
    assert gates.wait_s == pytest.approx(1.0)
    assert len(claim(store, gates, 4, 30, "they")) == 1  # without a burst


def test_a_pause_is_an_hour_at_most(store: Store) -> None:
    learn(store, refused="requests", sent_at=NOW, wait_s=1e6)
    jobs(store, 1)
    assert len(claim(store, Gates(URLS), 1, 3601)) == 1


def test_a_crowd_of_refusals_is_one(store: Store) -> None:
    learn(store, requests=Gauge(600, 600))
    for seconds in (1, 1.1, 1.2):  # calls that were sent before it was known
        learn(store, seconds, refused="requests", sent_at=NOW)
    assert kept(store, "requests_pace") == pytest.approx(480, rel=0.02)
    learn(store, 2, refused="requests", sent_at=NOW + timedelta(seconds=1.5))
    assert kept(store, "requests_pace") == pytest.approx(248, rel=0.02)


def test_who_was_not_told_is_not_slowed(store: Store) -> None:
    learn(store, refused="requests", sent_at=NOW, requests=Gauge(600, 0))
    assert (kept(store, "requests_limit"), kept(store, "requests_pace")) == (600, None)
    jobs(store, 30)
    assert len(claim(store, Gates(URLS), 30, 1)) == 10


def test_without_a_word_it_is_learned_from_what_got_through(store: Store) -> None:
    jobs(store, 100)
    for one in queue.claim(store, "me", UNTIL, 100, NOW, ["openai"]):
        rows_of = "UPDATE attempt SET state = 'ok', ended_at = sent_at, cost_nano = 0, cost_source = 'computed' "
        with store.write() as connection:
            connection.exec_driver_sql(f"{rows_of} WHERE job_id = '{one.job_id}'")
    learn(store, 5, refused="requests", sent_at=NOW)
    assert kept(store, "requests_pace") == pytest.approx(0.8 * 100 / 5 * 60)


def test_what_nobody_tells_any_more_is_forgotten(store: Store) -> None:
    jobs(store, 3)
    learn(store, requests=Gauge(1, 0))
    assert claim(store, Gates(URLS), 3, 1) == []
    assert len(queue.claim(store, "me", UNTIL, 3, NOW + timedelta(days=2), ["openai"], Gates(URLS))) == 3


def test_another_address_has_limits_of_its_own(store: Store) -> None:
    jobs(store, 3)
    learn(store, requests=Gauge(1, 0))
    assert len(claim(store, Gates(URLS | {"openai": "http://elsewhere"}), 3)) == 3
