"""Bulk as concurrent calls: each slot saves its own answer, and nothing is left behind by a stop."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from db import queue, settle
from db.engine import Store, StoreError
from db.queue import Claim
from jobs import live, retry
from jobs.runner import Ended
from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings
from tests.lanes import CLAUDE, KEY, World, rows

PROMPTS = [f"Name the capital of country number {n}, in one word." for n in range(30)]


@pytest.fixture
def world(store: Store, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    return World(store, sandbox, tmp_path)


def drain(world: World, tell: Any = lambda claim, ended: None, **changes: Any) -> int:
    async def work() -> int:
        context = world.context(**changes)
        try:
            return await live.drain(context, tell, asyncio.Event())
        finally:
            await context.close()

    return asyncio.run(work())


@pytest.mark.both
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


# ---- limits ----


def refused(world: World) -> int:
    """How many calls were turned away."""
    return rows(world.store, "SELECT count(*) FROM attempt WHERE outcome = 'busy'")[0][0]  # type: ignore[no-any-return]


@contextmanager
def limited(world: World, **settings: Any) -> Iterator[World]:
    with running(SandboxSettings(**settings)) as sandbox:
        world.sandbox = sandbox
        yield world
        assert sandbox.bill()["totals"]["rows"] == len(rows(world.store, "SELECT 1 FROM attempt WHERE state = 'ok'"))
        world.even()


@pytest.mark.both
def test_a_storm_of_429s_ends_with_every_job_done_once(world: World) -> None:
    with limited(world, requests_per_minute=1200, burst_seconds=0.25):
        world.add(*PROMPTS, lane="sync")
        for _ in range(20):
            drain(world, concurrency=16)
            if world.states() == {"succeeded": 30}:
                break
            time.sleep(0.2)
        assert world.states() == {"succeeded": 30}
        assert refused(world) > 0


def test_a_provider_that_says_no_more_than_429(world: World) -> None:
    """More often than a job has tries, and for nobody's fault."""
    world.sandbox.faults([{"kind": "status", "status": 429, "retry_after": 0, "times": 4, "match": {"contains": "7,"}}])
    (ident,) = world.add(PROMPTS[7], lane="sync")
    for _ in range(5):
        drain(world)
        world.clock.ahead += 120
    found = world.job(ident)
    assert (found["state"], len(found["attempts"])) == ("succeeded", 5)
    assert [one["outcome"] for one in found["attempts"]] == ["busy"] * 4 + ["complete"]
    assert [one["cost_usd"] for one in found["attempts"][:4]] == ["0"] * 4
    world.even()


def test_it_is_not_for_ever(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "MOST_TURNED_AWAY", 5)
    world.sandbox.faults([{"kind": "status", "status": 429}])
    (ident,) = world.add(PROMPTS[0], lane="sync")
    for _ in range(9):
        drain(world)
        world.clock.ahead += 120
    found = world.job(ident)
    assert (found["state"], len(found["attempts"])) == ("failed", 5)
    assert "turned away 5 times" in found["error"]["message"]


def test_past_its_deadline_it_has_the_usual_tries(world: World) -> None:
    world.sandbox.faults([{"kind": "status", "status": 429}])
    (ident,) = world.add(PROMPTS[0], lane="sync", deadline_at=world.clock.now())
    for _ in range(5):
        drain(world)
        world.clock.ahead += 120
    found = world.job(ident)
    assert (found["state"], len(found["attempts"])) == ("failed", 3)


def test_retry_after_is_obeyed_by_every_worker(world: World) -> None:
    world.sandbox.faults([{"kind": "status", "status": 429, "retry_after": 300, "times": 1}])
    world.add(PROMPTS[0], lane="sync")
    drain(world)
    world.add(*PROMPTS[1:4], lane="sync")
    world.add(*PROMPTS[4:6], lane="sync", model=CLAUDE)
    asked = world.sandbox.requests()["count"]
    assert drain(world) == 2  # another model's
    assert world.sandbox.requests()["count"] == asked + 2
    world.clock.ahead += 301
    drain(world)
    assert world.states()["succeeded"] >= 3


@pytest.mark.both
def test_two_workers_stay_below_a_limit_that_they_are_told(world: World) -> None:
    with limited(world, requests_per_minute=1800, burst_seconds=1):
        world.add(PROMPTS[0], lane="sync")
        drain(world)  # one call, and it is known
        world.add(*(f"{prompt} {again}" for again in range(3) for prompt in PROMPTS), lane="sync")

        async def both() -> None:
            contexts = [world.context(concurrency=8), world.context(concurrency=8)]
            await asyncio.gather(*(live.drain(one, lambda claim, ended: None, asyncio.Event()) for one in contexts))
            await asyncio.gather(*(one.close() for one in contexts))

        asyncio.run(both())
        assert world.states()["succeeded"] >= 90 - 4
        assert refused(world) <= 4


def test_requests_of_more_tokens_than_the_limit_go_one_by_one(world: World) -> None:
    with limited(world, tokens_per_minute=60, answer_tokens=300):
        world.add(*PROMPTS[:3], lane="sync")
        for _ in range(3):
            drain(world, concurrency=1)
            world.clock.ahead += 900
            world.sandbox.advance(900)
        assert world.states() == {"succeeded": 3}
        assert refused(world) <= 2  # what they take is known when they have


def test_an_answer_is_saved_before_its_slot_is_free(world: World) -> None:
    """What was answered and is not saved, and what is in flight, are together never more than the slots."""
    world.add(*PROMPTS, lane="sync")
    most = 0

    def look(claim: Claim, ended: Ended) -> None:
        nonlocal most
        open_ = rows(world.store, "SELECT count(*) FROM attempt WHERE state = 'sent'")[0][0]
        most = max(most, open_)

    drain(world, look, concurrency=5)
    assert 1 <= most <= 5
    world.even()


def test_what_cannot_be_saved_ends_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slots owe their answers, and none is sent again."""
    world.add(*PROMPTS[:4], lane="sync")

    def full(*_: Any) -> None:
        time.sleep(0.2)  # the others are answered meanwhile, and are to be saved when all is being closed
        raise StoreError("the disk is full")

    async def work() -> None:
        context = world.context(concurrency=4)
        with monkeypatch.context() as patched:
            patched.setattr(settle, "settle", full)
            with pytest.raises(StoreError):
                await live.drain(context, lambda claim, ended: None, asyncio.Event())
            assert asyncio.all_tasks() == {asyncio.current_task()}, "no slot goes on"
        assert len(context.owed) == 4
        await context.close()

    asyncio.run(work())
    assert world.states() == {"succeeded": 4}
    world.even()


# ---- what may have been billed already ----


@pytest.mark.parametrize(("on_unknown", "state"), [("retry", "queued"), ("hold", "failed")])
def test_a_lost_answer_is_held_where_that_is_asked_for(world: World, on_unknown: str, state: str) -> None:
    world.sandbox.faults([{"kind": "cut", "times": 1}])
    (ident,) = world.add(PROMPTS[0], lane="sync")
    drain(world, on_unknown=on_unknown)
    found = world.job(ident)
    assert found["state"] == state
    assert world.attempts() == {"unknown": 1}
    if on_unknown == "hold":
        assert found["error"]["code"] == "held"
        assert "shunter jobs retry" in found["error"]["message"]
        queue.retry(world.store, [ident], world.clock.now())
    world.clock.ahead += 10
    drain(world, on_unknown=on_unknown)
    assert world.states() == {"succeeded": 1}
    world.at_risk()


def test_what_was_never_sent_is_not_held(world: World) -> None:
    world.sandbox.faults([{"kind": "status", "status": 500, "times": 1}])
    (ident,) = world.add(PROMPTS[0], lane="sync")
    drain(world, on_unknown="hold")
    assert world.job(ident)["state"] == "queued"
