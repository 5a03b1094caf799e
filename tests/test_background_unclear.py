"""The background lane when nobody can tell: creates without an answer, owners that sleep, what is forgotten."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from db import background as moves
from db import queue
from db.tables import Batch
from jobs import background
from jobs.context import Context
from jobs.retry import MAX_ATTEMPTS
from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings
from tests.lanes import World, rows
from tests.test_background import LATER, PROMPTS, RESPONSES, attempts, billed, done, plan_until, send, stop_early

LOST = {"kind": "lost_create", "match": {"path": RESPONSES}}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with running(SandboxSettings(background_seconds=0.02)) as server:
        yield server


@pytest.mark.both
def test_a_create_without_an_answer_is_unknown_and_tried_again(world: World) -> None:
    world.sandbox.faults([LOST | {"times": 3}])
    send(world)
    world.work()
    assert world.states() == {"succeeded": 10}
    assert world.attempts() == {"ok": 10, "unknown": 3}
    assert billed(world) == 13
    world.at_risk()


def test_three_creates_without_an_answer_are_enough(world: World) -> None:
    world.sandbox.faults([LOST])
    [ident] = send(world, PROMPTS[0])
    world.work()
    assert world.states() == {"failed": 1}
    assert world.attempts() == {"unknown": MAX_ATTEMPTS}
    assert world.job(ident)["error"]["code"] == "cut"
    world.at_risk()


def test_what_may_have_been_billed_is_held_where_that_is_wanted(world: World) -> None:
    world.sandbox.faults([LOST | {"times": 1}])
    [ident] = send(world, PROMPTS[0])
    world.work(on_unknown="hold")
    found = world.job(ident)
    assert (found["state"], found["error"]["code"]) == ("failed", "held")
    assert "`shunter jobs retry ID` sends it again" in found["error"]["message"]
    assert world.attempts() == {"unknown": 1}
    queue.retry(world.store, [ident], world.clock.now())
    world.work(on_unknown="hold")
    assert world.states() == {"succeeded": 1}
    assert world.attempts() == {"unknown": 1, "ok": 1}
    world.at_risk()


def test_after_its_hour_it_goes_on_to_the_next_step(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, leave = plan_until(world, 60)
    world.sandbox.faults([{"kind": "forget"} | LATER])
    send(world, PROMPTS[0], plan=plan, leave_by=leave)
    stop_early(world, monkeypatch)
    world.clock.ahead += 700
    world.work()
    assert world.states() == {"succeeded": 1}
    assert [tuple(row) for row in attempts(world)] == [
        (1, "background", "2h", "unknown", "batch_lost"),
        (2, "sync", "default", "ok", None),
    ]


def test_a_response_that_is_not_found_at_first_is_looked_for_again(world: World) -> None:
    world.sandbox.faults([{"kind": "status", "status": 404, "times": 6, "match": {"method": "GET"}}])
    send(world, *PROMPTS[:3])
    world.work()
    done(world, 3)


def test_a_forgotten_response_is_given_up_after_the_grace(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.sandbox.faults([{"kind": "forget", "times": 2}])
    send(world)
    stop_early(world, monkeypatch)
    world.clock.ahead += 601
    world.work()
    assert world.states() == {"succeeded": 10}
    assert world.attempts() == {"ok": 10, "unknown": 2}
    assert {row[4] for row in map(tuple, attempts(world)) if row[3] == "unknown"} == {"batch_lost"}
    assert billed(world) == 12
    world.at_risk()


def test_a_response_that_never_ends_is_cancelled_after_a_day(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.sandbox.faults([{"kind": "stall", "times": 1}])
    send(world, PROMPTS[0], window="8h")
    stop_early(world, monkeypatch)
    for _ in range(2):
        world.clock.ahead += 25 * 3600 + 60
        world.work()
    assert world.states() == {"succeeded": 1}
    assert world.attempts() == {"cancelled": 1, "ok": 1}
    world.even()


def test_a_response_that_cannot_be_cancelled_is_given_up_in_an_hour(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = {"kind": "status", "status": 400, "match": {"path": f"{RESPONSES}/*", "method": "POST"}}
    world.sandbox.faults([{"kind": "stall", "times": 1}, refused])
    [ident] = send(world, PROMPTS[0])
    stop_early(world, monkeypatch)
    queue.cancel(world.store, [ident], world.clock.now())
    stop_early(world, monkeypatch)
    world.clock.ahead += 3700
    world.work()
    assert world.states() == {"cancelled": 1}
    assert world.attempts() == {"unknown": 1}
    world.at_risk()


# ---- owners that sleep ----


async def taken(context: Context) -> Batch:
    here = {"openai": context.endpoint("openai").base_url}
    await background.pack(context)
    now = context.clock.now()
    [batch] = await context.db(moves.take, here, context.owner, context.until(), 10, now)
    return batch


def stuck_in_its_post(world: World, then: Any) -> None:
    """An owner sleeps between its intent and the answer to its POST, while `then` happens."""

    async def test() -> None:
        context = world.context()
        try:
            batch = await taken(context)
            provider: Any = context.batch_provider("openai", "background")
            submit = provider.submit

            async def slow(ticket: Any) -> Any:
                remote = await submit(ticket)
                await asyncio.to_thread(then)
                return remote

            provider.submit = slow
            await background.move(context, batch)
        finally:
            await context.close()

    asyncio.run(test())


@pytest.mark.both
def test_a_late_answer_to_a_create_that_was_given_up_is_cancelled_and_charged(world: World) -> None:
    send(world, PROMPTS[0])

    def others() -> None:
        world.clock.ahead += 600
        world.work()
        assert world.states() == {"succeeded": 1}
        assert world.attempts() == {"unknown": 1, "ok": 1}

    stuck_in_its_post(world, others)
    assert rows(world.store, "SELECT state FROM batch ORDER BY id")[0][0] == "submitted"
    world.work()
    assert world.states() == {"succeeded": 1}
    assert sum(world.attempts().values()) == 2
    assert world.attempts()["unknown"] == 0
    world.even()


def test_a_create_under_way_is_waited_for(world: World) -> None:
    send(world, PROMPTS[0])

    def others() -> None:
        world.clock.ahead += 121  # past the lease, not past what a POST may take
        asyncio.run(look())

    async def look() -> None:
        other = world.context(owner="other", grace_s=6000.0)
        provider: Any = other.batch_provider("openai", "background")
        provider.post_seconds = 1000.0
        here = {"openai": other.endpoint("openai").base_url}
        now = other.clock.now()
        [batch] = await other.db(moves.take, here, other.owner, other.until(), 10, now)
        await background.move(other, batch)
        await other.close()

    stuck_in_its_post(world, others)
    world.work()
    done(world, 1)
    assert world.made(RESPONSES) == 1


def test_whoever_lost_its_lease_does_not_post(world: World) -> None:
    send(world, PROMPTS[0])

    async def test() -> None:
        context = world.context()
        batch = await taken(context)
        world.clock.ahead += 121
        await asyncio.to_thread(world.work)
        await background.move(context, batch)
        await context.close()

    asyncio.run(test())
    done(world, 1)
    assert world.made(RESPONSES) == 1


def test_a_job_that_is_taken_out_meanwhile_is_not_posted(world: World) -> None:
    [ident] = send(world, PROMPTS[0])

    async def test() -> None:
        context = world.context()
        batch = await taken(context)
        queue.cancel(world.store, [ident], world.clock.now())
        await background.move(context, batch)
        await context.close()

    asyncio.run(test())
    world.work()
    assert world.states() == {"cancelled": 1}
    assert world.made(RESPONSES) == 0
    world.even()
