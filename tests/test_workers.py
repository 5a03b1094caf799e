"""The workers of one database: who is alive, who takes over, and what becomes of the leases of the dead."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from db import batches, queue, rescue, workers
from db.engine import Store
from db.packing import Waiting
from jobs import presence
from jobs.context import Context
from tests.lanes import NOW, World, add, job, pack, rows

pytestmark = pytest.mark.both
MINUTE = timedelta(minutes=1)
LATER = NOW + 2 * MINUTE


def begin(store: Store, *names: str) -> None:
    for name in names:
        workers.register(store, name, "here", 1, NOW)


def test_a_worker_beats_until_it_says_goodbye(store: Store) -> None:
    assert workers.last_beat(store) is None
    begin(store, "a")
    assert workers.last_beat(store) == NOW
    assert workers.beat(store, "a", NOW + MINUTE)
    assert workers.last_beat(store) == NOW + MINUTE
    workers.goodbye(store, "a", LATER)
    assert not workers.beat(store, "a", LATER)
    assert workers.silent(store, LATER + MINUTE) == []


def test_one_that_never_began_cannot_beat(store: Store) -> None:
    assert not workers.beat(store, "nobody", NOW)


def test_the_silent_are_those_without_a_beat_or_a_goodbye(store: Store) -> None:
    begin(store, "gone", "alive", "polite")
    workers.beat(store, "alive", LATER)
    workers.goodbye(store, "polite", NOW)
    assert workers.silent(store, LATER - MINUTE) == ["gone"]
    assert workers.silent(store, NOW) == []


def test_exactly_one_takes_over(store: Store) -> None:
    begin(store, "dead", *(f"w{n}" for n in range(8)))
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: workers.take_over(store, "dead", f"w{n}", LATER - MINUTE, LATER), range(8)))
    assert won.count(True) == 1
    assert rows(store, "SELECT taken_by FROM worker WHERE id = 'dead'")[0][0] == f"w{won.index(True)}"


def test_one_that_beats_again_in_time_is_not_taken_over(store: Store) -> None:
    begin(store, "slow", "other")
    workers.beat(store, "slow", LATER)
    assert not workers.take_over(store, "slow", "other", LATER - MINUTE, LATER)
    assert workers.beat(store, "slow", LATER)


def test_one_that_was_taken_over_notices(store: Store) -> None:
    begin(store, "paused", "other")
    assert workers.take_over(store, "paused", "other", LATER - MINUTE, LATER)
    assert not workers.beat(store, "paused", LATER)
    workers.goodbye(store, "paused", LATER)  # and leaves the other's mark alone
    assert workers.silent(store, LATER + MINUTE) == ["other", "paused"]


def test_a_rescuer_that_dies_is_followed_by_another(store: Store) -> None:
    begin(store, "dead", "first", "second")
    assert workers.take_over(store, "dead", "first", LATER - MINUTE, LATER)
    assert not workers.take_over(store, "dead", "second", LATER - MINUTE, LATER)
    after = LATER + 2 * MINUTE
    assert workers.take_over(store, "dead", "second", after - MINUTE, after)
    workers.settled(store, "dead", "first", after)  # too late: it is the second one's by now
    assert "dead" in workers.silent(store, after + MINUTE)
    workers.settled(store, "dead", "second", after)
    assert "dead" not in workers.silent(store, after + MINUTE)


@pytest.mark.parametrize("how", ["take_over", "goodbye"])
def test_what_it_held_is_free_at_once(store: Store, how: str) -> None:
    begin(store, "dead", "other")
    add(store, job(lane="sync"), job(lane="sync"), job())
    far = NOW + timedelta(days=1)
    queue.claim(store, "dead", far, 1, NOW, ["openai"])
    queue.claim(store, "other", far, 1, NOW, ["openai"])
    pack(store, "b", Waiting("openai", "gpt-6-luna", 1), base_url="u", max_rows=9, max_bytes=9999, now=NOW)
    assert batches.take(store, "dead", far, NOW)
    if how == "goodbye":
        workers.goodbye(store, "dead", LATER)
    else:
        assert workers.take_over(store, "dead", "other", LATER - MINUTE, LATER)
    assert rescue.rescue(store, LATER, 3) == 1
    assert rows(store, "SELECT lease_by FROM job WHERE state = 'running'") == [("other",)]
    assert len(batches.take(store, "third", far, LATER)) == 1


def test_old_ones_are_forgotten(store: Store) -> None:
    begin(store, "old", "long-lived")
    workers.beat(store, "long-lived", LATER)
    workers.prune(store, LATER - MINUTE)
    assert rows(store, "SELECT id FROM worker") == [("long-lived",)]


def test_a_server_is_no_worker(store: Store) -> None:
    workers.serve(store, "server", "here", 1, NOW)
    assert workers.last_beat(store) is None
    begin(store, "worker")
    workers.serve(store, "server", "here", 1, LATER)
    assert workers.last_beat(store) == NOW
    after = LATER + MINUTE
    assert workers.silent(store, after) == ["server", "worker"]
    assert workers.silent(store, after, workers.SERVES) == ["server"]


def test_a_server_that_stood_still_goes_on_under_its_name(store: Store) -> None:
    workers.serve(store, "paused", "here", 1, NOW)
    add(store, job(lane="sync"))
    queue.claim(store, "paused", NOW + timedelta(days=1), 1, NOW, ["openai"])
    assert workers.take_over(store, "paused", "other", LATER - MINUTE, LATER)
    assert workers.silent(store, LATER + MINUTE) == [], "what it held is all that it had"
    assert rescue.rescue(store, LATER, 3) == 1
    workers.serve(store, "paused", "here", 1, LATER)
    assert rows(store, "SELECT taken_by, stopped_at FROM worker WHERE id = 'paused'") == [(None, None)]
    assert workers.silent(store, LATER + MINUTE) == ["paused"]


# ---- one that is present ----


def test_it_says_goodbye_when_it_ends(world: World) -> None:
    world.work()
    assert rows(world.store, "SELECT count(*) FROM worker WHERE stopped_at IS NOT NULL")[0][0] == 1


def stay(context: Context, seconds: float) -> tuple[list[str], bool]:
    """Be present for a while; what was noted, and whether it was lost."""
    said: list[str] = []

    async def there() -> bool:
        lost = asyncio.Event()
        async with presence.present(context, said.append, lost=lost.set) as beating:
            await asyncio.wait([beating], timeout=seconds)
            return lost.is_set()

    return said, asyncio.run(there())


def test_the_present_take_over_from_the_silent(world: World) -> None:
    now = world.clock.now()
    workers.register(world.store, "dead", "here", 1, now - 2 * MINUTE)
    said, lost = stay(world.context(), 0.3)
    assert ("took over from dead" in said[0], lost) == (True, False)
    assert rows(world.store, "SELECT count(*) FROM worker WHERE taken_by IS NOT NULL")[0][0] == 1


async def until(is_so: Callable[[], bool]) -> None:
    for _ in range(500):
        if is_so():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never came to be so")


def serve(context: Context, is_so: Callable[[], bool]) -> None:
    """Be present as a server until it is so."""

    async def there() -> None:
        async with presence.serving(context):
            await until(is_so)

    asyncio.run(there())


@pytest.mark.parametrize("by", ["a server", "a worker"])
def test_what_a_killed_server_left_is_ended_by_the_next_that_beats(world: World, by: str) -> None:
    now = world.clock.now()
    workers.serve(world.store, "dead", "here", 1, now - 2 * MINUTE)
    add(world.store, job(lane="sync", interactive=True))
    queue.claim(world.store, "dead", now + timedelta(hours=1), 1, now, ["openai"])
    if by == "a server":
        serve(world.context(), lambda: world.states() == {"failed": 1})
    else:
        assert "took over from dead" in stay(world.context(), 0.5)[0][0]
    assert rows(world.store, "SELECT error_code FROM job") == [("abandoned",)]
    assert workers.silent(world.store, now + timedelta(hours=1)) == []


def test_a_server_leaves_silent_workers_to_workers(world: World) -> None:
    now = world.clock.now()
    workers.register(world.store, "dead worker", "here", 1, now - 2 * MINUTE)
    workers.serve(world.store, "dead server", "here", 1, now - 2 * MINUTE)
    taken = "SELECT id FROM worker WHERE taken_by IS NOT NULL"
    serve(world.context(), lambda: rows(world.store, taken) != [])
    assert rows(world.store, taken) == [("dead server",)]


def test_a_server_that_was_taken_for_dead_beats_on(world: World) -> None:
    context = world.context(dead_s=0.4)

    def mark(taken_by: str | None) -> bool:
        return rows(world.store, "SELECT taken_by FROM worker WHERE id = :id", id=context.owner) == [(taken_by,)]

    async def there() -> None:
        async with presence.serving(context):
            await until(lambda: mark(None))
            later = world.clock.now() + MINUTE
            assert await context.db(workers.take_over, context.owner, "other", later, later)
            assert mark("other")
            await until(lambda: mark(None))

    asyncio.run(there())
    assert rows(world.store, "SELECT count(*) FROM worker WHERE stopped_at IS NOT NULL")[0][0] == 1


def test_one_that_stood_still_is_told_that_it_lost(world: World) -> None:
    context = world.context(dead_s=0.4)
    workers.register(world.store, "other", "here", 1, world.clock.now())

    async def both() -> bool:
        lost = asyncio.Event()
        async with presence.present(context, lambda said: None, lost=lost.set):
            later = world.clock.now() + MINUTE
            await context.db(workers.take_over, context.owner, "other", later, later)
            await asyncio.wait_for(lost.wait(), 10)
        return lost.is_set()

    assert asyncio.run(both())
    assert rows(world.store, "SELECT taken_by FROM worker WHERE id = :id", id=context.owner) == [("other",)]


def test_it_outlives_a_database_that_is_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    context, said = world.context(dead_s=0.2), []

    async def there() -> None:
        async with presence.present(context, said.append, lost=lambda: None) as beating:
            with world.store.write() as connection:
                connection.exec_driver_sql("ALTER TABLE worker RENAME TO elsewhere")
            await asyncio.sleep(0.3)
            with world.store.write() as connection:
                connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO worker")
            await asyncio.sleep(0.3)
            assert not beating.done()

    asyncio.run(there())
    assert len(said) == 1
    assert "cannot beat" in said[0]
    assert rows(world.store, "SELECT count(*) FROM worker WHERE stopped_at IS NOT NULL")[0][0] == 1


def test_but_not_for_ever(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "AWAY_S", 0.1)
    context = world.context(dead_s=0.2)

    async def there() -> None:
        async with presence.present(context, lambda said: None, lost=lambda: None) as beating:
            with world.store.write() as connection:
                connection.exec_driver_sql("ALTER TABLE worker RENAME TO elsewhere")
            await beating

    with pytest.raises(presence.Gone, match="database has been away"):
        asyncio.run(there())
