"""The corners that keep "exactly once" true when a batch is forgotten, left for another lane or cancelled."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from db import queue
from jobs import batch, polling, worker
from tests.corners import (
    DAY_S,
    POSTS,
    PROMPTS,
    Door,
    Pause,
    packed,
    paid_once,
    the_batch,
    to_the_end,
)
from tests.lanes import World, rows

# ---- a provider that forgets, or never ends, a batch ----


def test_held_means_that_nothing_is_sent_again_by_itself(world: World) -> None:
    world.sandbox.faults([{"kind": "forget", "seconds": 0.0, "times": 1}])
    world.settings["on_unknown"] = "hold"
    world.add(*PROMPTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "LINGER_S", 0.25)
        world.work()
        for _ in range(3):
            world.clock.ahead += DAY_S + 3601
            world.work()
    assert world.states() == {"submitted": len(PROMPTS)}
    assert world.made("/v1/batches") == 1
    assert "held: `shunter batches resubmit" in str(the_batch(world).error)
    world.at_risk()


# ---- leaving a slow lane ----


def leaving(world: World, fraction: float, *faults: dict[str, Any], **settings: Any) -> list[str]:
    """Jobs in a batch that does only a part of them, when their hour to leave it comes."""
    world.sandbox.faults([*faults, {"kind": "stall", "fraction": fraction}])
    world.settings |= settings
    leave = world.clock.now() + timedelta(hours=1)
    plan = [{"lane": "batch", "tier": "default", "leave_by": leave.isoformat()},
            {"lane": "sync", "tier": "default", "leave_by": None}]  # fmt: skip
    ids = world.add(*PROMPTS, plan=plan, leave_by=leave)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "LINGER_S", 0.25)
        world.work()
    assert world.states() == {"submitted": len(PROMPTS)}
    world.clock.ahead += 3601
    return ids


def test_a_row_waits_for_the_end_of_its_batch_before_it_runs_elsewhere(world: World) -> None:
    leaving(world, 0.5)
    polls = 0

    async def play() -> None:
        nonlocal polls
        context = world.context()
        provider: Any = context.batch_provider("openai")
        real = provider.poll

        async def poll(ident: str) -> Any:
            nonlocal polls
            polls += 1
            assert not world.sandbox.bill(kind="plain")["rows"]
            return await real(ident)

        provider.poll = poll
        await to_the_end(world, context)

    asyncio.run(play())
    assert polls
    paid_once(world)
    assert world.sandbox.bill(kind="plain")["totals"]["rows"] == len(PROMPTS) / 2


def test_pay_twice_runs_them_at_once_and_charges_both(world: World) -> None:
    """The batch does all of its rows in the moment of its cancel: every answer is charged, the first is the result."""
    ids = leaving(world, 0.0, on_rescue="pay_twice")

    async def play() -> None:
        context = world.context()
        provider: Any = context.batch_provider("openai")
        provider.cancel = provider.poll  # the cancel gets lost
        await to_the_end(world, context)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "LINGER_S", 0.25)
        asyncio.run(play())
    assert world.states() == {"succeeded": len(PROMPTS)}
    assert {world.job(ident)["lane"] for ident in ids} == {"sync"}
    assert world.attempts() == {"ok": len(PROMPTS), "sent": len(PROMPTS)}
    world.sandbox.faults([])
    for _ in range(2):
        world.clock.ahead += 400
        world.work()  # now it is cancelled, and its rows never ran
        world.sandbox.advance(1)
    assert world.attempts() == {"ok": len(PROMPTS), "cancelled": len(PROMPTS)}
    world.even()


def test_rows_with_time_left_go_into_a_new_batch(world: World) -> None:
    world.sandbox.faults([{"kind": "stall", "fraction": 0.0, "times": 1}])
    now = world.clock.now()
    plans = {}
    for minutes in (60, 90):
        leave = now + timedelta(minutes=minutes)
        plan = [{"lane": "batch", "tier": "default", "leave_by": leave.isoformat()},
                {"lane": "sync", "tier": "default", "leave_by": None}]  # fmt: skip
        plans[minutes] = world.add(*PROMPTS[:3], plan=plan, leave_by=leave)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "LINGER_S", 0.25)
        world.work()
    assert the_batch(world).rows == 6  # near enough to go together
    world.clock.ahead += 3601
    world.work()
    paid_once(world)
    assert {world.job(ident)["lane"] for ident in plans[60]} == {"sync"}
    assert {world.job(ident)["lane"] for ident in plans[90]} == {"batch"}


def test_a_batch_that_was_not_created_by_its_hour_is_called_off(world: World) -> None:
    ids = leaving(world, 0.0, {"kind": "status", "status": 503, "match": POSTS})
    assert the_batch(world).provider_batch_id is None
    world.work()
    assert {world.job(ident)["lane"] for ident in ids} == {"sync"}
    assert world.states() == {"succeeded": len(PROMPTS)}
    assert world.attempts() == {"ok": len(PROMPTS), "cancelled": len(PROMPTS)}
    world.even()


# ---- cancelling ----


def test_a_row_that_is_cancelled_while_its_file_is_on_its_way_is_charged_and_stays_cancelled(world: World) -> None:
    async def play() -> None:
        context = world.context()
        pause = Pause(context.batch_provider("openai"), "upload")
        moving = asyncio.create_task(batch.move(context, await packed(world, context)))
        await pause.reached.wait()
        assert queue.cancel(world.store, ids[:2], world.clock.now()) == ids[:2]
        pause.go_on.set()
        await moving
        await to_the_end(world, context)

    ids = world.add(*PROMPTS)
    asyncio.run(play())
    assert world.states() == {"succeeded": 4, "cancelled": 2}
    assert world.attempts() == {"ok": 6}
    world.even()


def test_a_row_that_is_cancelled_before_the_intent_is_not_in_the_file(world: World) -> None:
    async def play() -> None:
        context = world.context()
        found = await packed(world, context)
        door = Door(context, batch._write_file)
        moving = asyncio.create_task(batch.move(door, found))  # type: ignore[arg-type]
        await door.reached.wait()  # the file is written, the intent is not
        assert queue.cancel(world.store, ids[:1], world.clock.now()) == ids[:1]
        door.go_on.set()
        await moving
        await to_the_end(world, context)

    ids = world.add(*PROMPTS)
    asyncio.run(play())
    assert world.states() == {"succeeded": 5, "cancelled": 1}
    assert len(world.sandbox.bill()["rows"]) == 5
    assert rows(world.store, "SELECT state FROM attempt WHERE job_id = :id", id=ids[0])[0][0] == "cancelled"
    world.even()


def test_a_cancel_that_the_provider_never_ends_is_given_up_after_an_hour(world: World) -> None:
    leaving_ids = leaving(world, 0.0)

    async def play() -> None:
        context = world.context()
        provider: Any = context.batch_provider("openai")
        provider.cancel = provider.poll
        await to_the_end(world, context)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "LINGER_S", 0.25)
        asyncio.run(play())
        assert world.states() == {"submitted": len(PROMPTS)}
        world.clock.ahead += polling._LOST_S + 1
        asyncio.run(play())
    assert {world.job(ident)["lane"] for ident in leaving_ids} == {"sync"}
    assert world.attempts() == {"ok": len(PROMPTS), "unknown": len(PROMPTS)}
    world.at_risk()
