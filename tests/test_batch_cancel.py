"""A batch that a person cancels: at the provider, before it is sent, and while its create is unclear."""

from typing import Any

import pytest

from db import batches, queue
from jobs import worker
from tests.lanes import World, rows
from tests.test_batch_lane import BATCHES, FILES, PROMPTS


def cancel(world: World, ids: list[str]) -> None:
    """What `shunter batches cancel` does."""
    now = world.clock.now()
    queue.cancel(world.store, ids, now)
    [(batch,)] = rows(world.store, "SELECT id FROM batch")
    assert batches.cancelling(world.store, batch, now)


def stop_early(world: World, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(worker, "LINGER_S", -1.0)
        world.work(**changes)


@pytest.mark.both
def test_the_provider_is_told_and_what_was_done_is_charged(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.sandbox.faults([{"kind": "stall", "fraction": 0.5}])
    ids = world.add(*PROMPTS)
    stop_early(world, monkeypatch)
    world.sandbox.advance(5)
    cancel(world, ids)
    world.work()
    assert world.states() == {"cancelled": 10}
    assert world.attempts() == {"ok": 5, "cancelled": 5}
    assert rows(world.store, "SELECT state, status FROM batch") == [("imported", "cancelled")]
    world.even()


def test_a_batch_that_ended_meanwhile_is_imported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = world.add(*PROMPTS)
    stop_early(world, monkeypatch)
    world.sandbox.advance(60)
    cancel(world, ids)
    world.work()
    assert world.states() == {"cancelled": 10}
    assert world.attempts() == {"ok": 10}
    world.even()


def test_an_uploaded_batch_is_not_created(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.sandbox.faults([{"kind": "status", "status": 429, "match": {"path": BATCHES, "method": "POST"}, "times": 1}])
    ids = world.add(*PROMPTS)
    stop_early(world, monkeypatch)
    assert world.made(FILES) == 1
    tried = world.made(BATCHES)
    cancel(world, ids)
    world.work()
    assert world.made(BATCHES) == tried
    assert world.attempts() == {"cancelled": 10}
    world.even()


def test_an_unclear_create_is_adopted_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.sandbox.faults([{"kind": "lost_create", "match": {"path": BATCHES}, "times": 1}, {"kind": "stall"}])
    ids = world.add(*PROMPTS)
    stop_early(world, monkeypatch)
    cancel(world, ids)
    world.work()
    assert world.made(BATCHES) == 1
    assert rows(world.store, "SELECT state, status FROM batch") == [("imported", "cancelled")]
    world.even()


def test_a_job_that_is_cancelled_and_wanted_again_is_not_paid_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = world.add(*PROMPTS)
    stop_early(world, monkeypatch)
    queue.cancel(world.store, ids[:2], world.clock.now())
    assert sorted(queue.retry(world.store, ids[:2], world.clock.now())) == sorted(ids[:2])
    assert world.states() == {"submitted": 10}
    world.work()
    assert world.states() == {"succeeded": 10}
    assert world.attempts() == {"ok": 10}
    world.batch_rows_once()
    world.even()
