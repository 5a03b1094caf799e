"""Responses in the background go through the same limits as live calls, of all workers together."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from time import monotonic
from typing import Any

import pytest

from db import background, queue, rates
from db.buckets import Gauge
from db.engine import Store
from db.rates import Gates, Lesson
from jobs import worker
from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings
from tests.lanes import MODEL, NOW, World, add, job, rows
from tests.past import BOTH

pytestmark = pytest.mark.both
RESPONSES = "/v1/responses"
URL = "http://here/v1"
URLS = {"openai": URL}
PLAN: list[dict[str, Any]] = [{"lane": "background", "tier": "default", "leave_by": None, "window": "2h"}]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with running(SandboxSettings(background_seconds=0.02)) as server:
        yield server


def learn(store: Store, url: str = URL, at: Any = NOW, **heard: Any) -> None:
    rates.learn(store, [Lesson("openai", url, MODEL, **heard)], at)


def packed(store: Store, count: int, **more: Any) -> None:
    add(store, *(job(f"number {n}", lane="background", **more) for n in range(count)), plan=PLAN)
    background.pack(store, URLS, count, NOW)


def sent(store: Store, by: str, seconds: float, limit: int = 9) -> int:
    """How many this worker wins the right to POST at that time."""
    now = NOW + timedelta(seconds=seconds)
    taken = background.take(store, URLS, by, now + timedelta(hours=1), limit, now)
    return sum(background.intend(store, one, now, Gates(URLS)) for one in taken)


def test_two_workers_share_one_limit_with_each_other_and_with_live_calls(store: Store) -> None:
    packed(store, 60)
    learn(store, requests=Gauge(600, 0))
    went = [sent(store, by, n / 4) for n in range(1, 9) for by in ("me", "they")]
    assert sum(went) == 20  # two seconds of ten
    add(store, *(job(f"live {n}", lane="sync") for n in range(9)))
    later = NOW + timedelta(seconds=2.5)
    assert len(queue.claim(store, "me", later, 9, later, BOTH, Gates(URLS))) == 5
    assert sent(store, "they", 2.5) == 0


def test_what_finds_no_room_waits_as_long_as_it_takes_and_without_a_lease(store: Store) -> None:
    packed(store, 20)
    learn(store, requests=Gauge(60, 1))
    assert sent(store, "me", 0) == 1
    found = rows(store, "SELECT DISTINCT next_poll_at, lease_by, error FROM batch WHERE create_intent_at IS NULL")
    assert len(found) == 1
    assert tuple(found[0][1:]) == (None, "waits for a limit of its provider")
    assert background.next_due(store, URLS, NOW) == NOW + timedelta(seconds=1)
    assert background.take(store, URLS, "they", NOW + timedelta(hours=1), 99, NOW) == []
    assert sent(store, "they", 1) == 1


def test_tokens_are_spent_and_another_model_goes_on(store: Store) -> None:
    packed(store, 5)
    packed(store, 4, model="gpt-4o-mini", decision_id="e")
    learn(store, tokens=Gauge(6000, 6))  # a decision of the tests sets two aside
    assert sent(store, "me", 0, limit=99) == 3 + 4


def test_what_another_worker_holds_is_left_to_it(store: Store) -> None:
    packed(store, 3)
    learn(store, requests=Gauge(60, 0))
    (mine,) = background.take(store, URLS, "me", NOW + timedelta(hours=1), 1, NOW)
    theirs = background.take(store, URLS, "they", NOW + timedelta(hours=1), 1, NOW)
    assert not background.intend(store, mine, NOW, Gates(URLS))
    assert {row[0] for row in rows(store, "SELECT lease_by FROM batch")} == {None, "they"}
    assert not background.intend(store, theirs[0], NOW, Gates(URLS))
    assert background.intend(store, background.take(store, URLS, "me", NOW, 9, NOW + timedelta(seconds=2))[0],
                             NOW + timedelta(seconds=2), Gates(URLS))  # fmt: skip


def test_two_workers_post_no_faster_than_they_are_told(world: World) -> None:
    url = world.context().endpoints["openai"].base_url
    world.add(*(f"Name the capital of country number {n}." for n in range(30)), lane="background", plan=PLAN)
    learn(world.store, url, world.clock.now(), requests=Gauge(600, 0))

    async def both() -> None:
        await asyncio.gather(world.once(concurrency=4), world.once(concurrency=4))

    began = monotonic()
    asyncio.run(both())
    assert monotonic() - began > 2.0  # thirty, at ten a second
    assert world.states() == {"succeeded": 30}
    assert world.made(RESPONSES) == 30
    world.even()


def test_a_create_that_is_turned_away_holds_up_the_others_of_its_model(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned_away = {"kind": "status", "status": 429, "retry_after": 300, "times": 1}
    world.sandbox.faults([turned_away | {"match": {"path": RESPONSES, "method": "POST"}}])
    world.add("Name a bird.", lane="background", plan=PLAN)
    with monkeypatch.context() as patch:
        patch.setattr(worker, "LINGER_S", -1.0)
        world.work()
        world.add("Name a town.", "Name a hill.", lane="background", plan=PLAN)
        world.add("Name a river.", lane="sync")
        world.work()
    assert (world.made(RESPONSES), world.made("/v1/chat/completions")) == (1, 0)
    world.clock.ahead += 301
    world.work()
    world.clock.ahead += 301
    world.work()
    assert world.states() == {"succeeded": 4}
    assert world.made(RESPONSES) == 4
    world.even()
