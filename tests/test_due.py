"""What is due, and when the next thing will be."""

from datetime import timedelta
from typing import Any

import pytest

from db import batches, due, queue
from db.engine import Store
from db.packing import Waiting
from tests.lanes import MODEL, NOW, add, job, pack

pytestmark = pytest.mark.both
SOON, LATE = NOW + timedelta(seconds=10), NOW + timedelta(hours=1)
URLS = {"openai": "u"}


def packed(store: Store, name: str = "b") -> None:
    add(store, job())
    pack(store, name, Waiting("openai", MODEL, 1), base_url="u", max_rows=1, max_bytes=10**6, now=NOW)


def found(store: Store, now: Any = NOW, by: str = "me", urls: dict[str, str] = URLS) -> list[str]:
    return [one.id for one in due.batches(store, urls, by, now)]


def test_the_next_job_of_a_lane(store: Store) -> None:
    assert due.jobs(store, due.LIVE, ["openai"]) is None
    add(store, job(lane="sync", now=LATE), now=LATE)
    add(store, job(lane="stream", now=SOON), now=SOON)
    add(store, job(now=NOW), now=NOW)
    assert due.jobs(store, due.LIVE, ["openai"]) == SOON
    assert due.jobs(store, due.BULK, ["openai"]) == NOW
    assert due.jobs(store, due.LIVE, ["anthropic"]) is None
    assert not due.any_job(store, due.LIVE, ["openai"], NOW)
    assert due.any_job(store, due.LIVE, ["openai"], SOON)
    queue.claim(store, "me", LATE, 9, LATE, ["openai"])
    assert due.jobs(store, due.LIVE, ["openai"]) is None


def test_the_next_that_has_to_leave_its_lane(store: Store) -> None:
    assert due.leaving(store) is None
    add(store, job(leave_by=LATE), job(leave_by=SOON))
    assert due.leaving(store) == SOON


def test_batches_that_are_due_the_longest_due_first(store: Store) -> None:
    packed(store, "a")
    packed(store, "b")
    first = batches.get(store, "a")
    assert first is not None
    batches.wait(store, first, SOON)
    assert found(store) == ["b"]
    assert found(store, SOON) == ["b", "a"]
    assert due.next_batch(store, URLS, "me", NOW) == NOW
    batches.imported(store, "b", NOW)
    assert due.next_batch(store, URLS, "me", NOW) == SOON


def test_those_that_another_holds_are_not(store: Store) -> None:
    packed(store)
    batches.take(store, "other", LATE, NOW)
    assert found(store) == []
    assert due.next_batch(store, URLS, "me", NOW) is None
    assert found(store, by="other") == ["b"]
    assert found(store, LATE + timedelta(seconds=1)) == ["b"]


def test_those_of_another_address_are_named(store: Store) -> None:
    packed(store)
    assert found(store, urls={"openai": "v"}) == []
    assert found(store, urls={}) == []
    assert due.elsewhere(store, {"openai": "v"}, NOW) == [("b", "u")]
    assert due.elsewhere(store, URLS, NOW) == []


def test_a_lease_is_renewed_by_who_has_it_alone(store: Store) -> None:
    packed(store)
    batches.take(store, "me", SOON, NOW)
    assert batches.renew(store, "b", "me", LATE)
    assert not batches.renew(store, "b", "other", LATE)
    assert batches.take(store, "other", LATE, SOON + timedelta(seconds=1)) == []
