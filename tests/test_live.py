"""Bulk as concurrent calls: each slot saves its own answer, and nothing is left behind by a stop."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from db.engine import Store
from db.queue import Claim
from jobs import live
from jobs.runner import Ended
from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings
from tests.lanes import KEY, World

PROMPTS = [f"Name the capital of country number {n}, in one word." for n in range(30)]


@pytest.fixture
def world(store: Store, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return World(store, sandbox, tmp_path)


def drain(world: World, tell: Any = lambda claim, ended: None, **changes: Any) -> int:
    async def work() -> int:
        context = world.context(**changes)
        try:
            return await live.drain(context, tell, asyncio.Event())
        finally:
            await context.close()

    return asyncio.run(work())


def test_all_of_them(world: World) -> None:
    told: list[tuple[Claim, Ended]] = []
    world.add(*PROMPTS, lane="sync")
    assert drain(world, lambda claim, ended: told.append((claim, ended))) == 30
    assert len({claim.job_id for claim, _ in told}) == 30
    assert world.states() == {"succeeded": 30}
    world.even()
    assert drain(world) == 0


def test_no_more_at_once_than_wanted(world: World) -> None:
    with running(SandboxSettings(latency_s=0.05)) as slow:
        world.sandbox = slow
        world.add(*PROMPTS[:8], lane="sync")
        began = asyncio.new_event_loop()
        start = began.time()
        drain(world, concurrency=2)
        assert began.time() - start >= 4 * 0.05
        began.close()
        world.even()


def test_one_that_fails_does_not_stop_the_others(world: World) -> None:
    world.sandbox.faults([{"kind": "status", "status": 400, "match": {"contains": "number 7,"}}])
    world.add(*PROMPTS, lane="sync")
    drain(world)
    assert world.states() == {"succeeded": 29, "failed": 1}
    world.even()


def test_a_stop_finishes_what_is_in_flight_and_takes_nothing_new(world: World) -> None:
    with running(SandboxSettings(latency_s=0.1)) as slow:
        world.sandbox = slow
        world.add(*PROMPTS, lane="sync")

        async def work() -> None:
            context, stop = world.context(concurrency=4), asyncio.Event()
            await live.drain(context, lambda claim, ended: stop.set(), stop)
            await context.close()

        asyncio.run(work())
        done = world.states()
        assert set(done) == {"succeeded", "queued"}
        assert 4 <= done["succeeded"] <= 8
        world.even()


def test_ending_at_once_gives_back_what_is_in_flight(world: World) -> None:
    """An error in one slot, or Ctrl-C twice, cancels no job of anybody's."""
    with running(SandboxSettings(latency_s=0.2)) as slow:
        world.sandbox = slow
        world.add(*PROMPTS[:4], lane="sync")

        async def work() -> None:
            context = world.context(concurrency=4)
            task = asyncio.create_task(live.drain(context, lambda claim, ended: None, asyncio.Event()))
            while slow.requests()["count"] < 4:  # noqa: ASYNC110 - another thread's counter
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await context.close()

        asyncio.run(work())
        assert world.states() == {"queued": 4}
        assert world.attempts() == {"unknown": 4}
        slow.billed(4)
        world.at_risk()


def test_jobs_of_a_provider_without_a_key_are_left_for_another_worker(world: World) -> None:
    world.add(*PROMPTS[:2], lane="sync", model="claude-haiku-5-5")
    world.add(*PROMPTS[:2], lane="sync")
    only = {"openai": world.context().endpoints["openai"]}
    assert drain(world, endpoints=only) == 2
    assert world.states() == {"queued": 2, "succeeded": 2}
