"""Two workers at one batch: what the slower of them writes last changes nothing that the other has learned."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from db import batches, settle
from jobs import batch
from tests.corners import (
    DAY_S,
    GRACE_S,
    POSTS,
    PROMPTS,
    After,
    Door,
    Pause,
    at_the_provider,
    packed,
    paid_once,
    the_batch,
    to_the_end,
)
from tests.lanes import CLAUDE, MODEL, World

LEASE_S = 300.0
RUNNING = {"kind": "batch_takes", "seconds": DAY_S / 2}
UNSEEN = {"kind": "late_list", "seconds": DAY_S / 2, "match": POSTS}


@pytest.mark.both
@pytest.mark.parametrize(
    ("provider", "model", "drill"), [("anthropic", CLAUDE, RUNNING), ("openai", MODEL, UNSEEN)], ids=["runs", "unseen"]
)
def test_a_create_that_is_answered_while_another_looks_for_it(
    world: World, provider: str, model: str, drill: dict[str, Any]
) -> None:
    """Its successor's look at the list shows one that may be it, or nothing yet, and is written down after the answer:
    once the batch is known under its id it is unsure no more.
    """

    async def play() -> None:
        slow, other = world.context(), world.context()
        answer = Pause(slow.batch_provider(provider), "submit", behind=True)
        posting = asyncio.create_task(batch.move(slow, await packed(world, slow)))
        await answer.reached.wait()
        world.clock.ahead += LEASE_S
        look = Pause(other.batch_provider(provider), "find", behind=True)
        looking = asyncio.create_task(batch.move(other, the_batch(world)))
        await look.reached.wait()
        answer.go_on.set()
        await posting
        look.go_on.set()
        await looking
        found = the_batch(world)
        assert (found.state, found.error) == ("submitted", None)
        world.sandbox.advance(DAY_S)
        await slow.close()
        await to_the_end(world, other)

    world.sandbox.faults([drill])
    world.add(*PROMPTS, model=model)
    asyncio.run(play())
    assert the_batch(world).state == "imported"
    assert world.made("/v1/batches") + world.made("/v1/messages/batches") == 1
    paid_once(world)


REFUSED = {"kind": "status", "status": 400, "message": "no such thing", "times": 1}
FILES = {"path": "/v1/files", "method": "POST"}


async def stands_still(world: World, post: str, *, behind: bool) -> None:
    """A worker whose POST was refused is held at, or behind, its next step in the database, while another one goes on
    with the batch, whose POST would be taken.
    """
    slow, other = world.context(), world.context()
    still = After(slow, slow.batch_provider("openai"), post, behind=behind)
    refused = asyncio.create_task(batch.move(still, await packed(world, slow)))  # type: ignore[arg-type]
    await still.reached.wait()
    world.clock.ahead += LEASE_S if behind else GRACE_S + 1
    await batch.move(other, the_batch(world))
    still.go_on.set()
    await refused
    await slow.close()
    world.clock.ahead += 10
    await to_the_end(world, other)


@pytest.mark.both
@pytest.mark.parametrize(("post", "path"), [("upload", FILES), ("submit", POSTS)])
@pytest.mark.parametrize("behind", [False, True])
def test_a_refusal_that_was_overtaken_closes_no_running_batch(
    world: World, post: str, path: dict[str, str], behind: bool
) -> None:
    """Either its refusal counts, and nobody posts the batch again, or the other one's batch runs and is paid for."""
    world.sandbox.faults([REFUSED | {"match": path}])
    world.add(*PROMPTS)
    asyncio.run(stands_still(world, post, behind=behind))
    assert the_batch(world).state == "imported"
    assert world.states() == {"failed" if behind else "succeeded": len(PROMPTS)}
    made = asyncio.run(at_the_provider(world))
    assert made == ({} if behind else {"completed": 1})
    world.even()
    world.batch_rows_once()


@pytest.mark.both
@pytest.mark.parametrize("behind", [False, True])
def test_a_refusal_of_one_line_that_was_overtaken_fails_no_row_that_runs(world: World, behind: bool) -> None:
    world.sandbox.faults([REFUSED | {"match": FILES, "message": "line 3 is bad"}])
    world.add(*PROMPTS)
    asyncio.run(stands_still(world, "upload", behind=behind))
    world.even()
    world.batch_rows_once()
    ended = {"succeeded": len(PROMPTS) - 1, "failed": 1} if behind else {"succeeded": len(PROMPTS)}
    assert world.states() == ended
    assert world.sandbox.bill(kind="batch")["totals"]["rows"] == ended["succeeded"]


@pytest.mark.both
def test_a_batch_that_is_known_is_polled_though_an_old_look_called_it_unsure(world: World) -> None:
    """As workers left it before looks named what they had read."""

    async def play() -> None:
        context = world.context()
        await batch.move(context, await packed(world, context))
        assert the_batch(world).state == "submitted"
        with world.store.write() as connection:
            connection.execute(text("UPDATE batch SET state = 'unsure', error = 'looking for what it made'"))
        world.clock.ahead += GRACE_S + 1
        world.sandbox.advance(DAY_S)
        await to_the_end(world, context)

    world.sandbox.faults([RUNNING])
    world.add(*PROMPTS)
    asyncio.run(play())
    assert (the_batch(world).state, the_batch(world).error) == ("imported", None)
    assert (world.made("/v1/files"), world.made("/v1/batches")) == (1, 1)
    paid_once(world)


@pytest.mark.both
def test_a_batch_that_is_called_off_is_not_posted_by_who_read_it_before(world: World) -> None:
    async def play() -> None:
        slow, other = world.context(), world.context()
        await batch.move(slow, await packed(world, slow))
        before = the_batch(world)
        assert (before.state, before.create_intent_at) == ("uploaded", None)
        batches.cancelling(world.store, before.id, world.clock.now())
        door = Door(other, settle.settle)
        leaving = asyncio.create_task(batch.move(door, the_batch(world)))  # type: ignore[arg-type]
        await door.reached.wait()
        await batch.move(slow, before)
        door.go_on.set()
        await leaving
        await slow.close()
        assert await at_the_provider(world) == {}
        await to_the_end(world, other)

    world.sandbox.faults([REFUSED | {"match": POSTS, "status": 429}])
    world.add(*PROMPTS)
    asyncio.run(play())
    paid_once(world)
