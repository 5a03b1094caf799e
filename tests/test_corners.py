"""The corners that keep "exactly once" true at the POSTs, each with the interleaving that it is there for."""

import asyncio
from collections.abc import Callable
from typing import Any

import anthropic
import pytest

from db import batches
from jobs import batch, worker
from tests.corners import (
    DAY_S,
    GRACE_S,
    POSTS,
    PROMPTS,
    Door,
    Pause,
    at_the_provider,
    packed,
    paid_once,
    the_batch,
    to_the_end,
)
from tests.lanes import CLAUDE, World

# ---- a paused owner ----


def test_an_owner_paused_before_its_post_names_a_dead_file(world: World) -> None:
    async def play() -> None:
        paused, other = world.context(), world.context()
        pause = Pause(paused.batch_provider("openai"), "submit")
        late = asyncio.create_task(batch.move(paused, await packed(world, paused)))
        await pause.reached.wait()
        world.clock.ahead += GRACE_S + 1
        await to_the_end(world, other)  # looked, found nothing, deleted the file, sent it anew
        pause.go_on.set()
        await late
        await paused.close()
        assert await at_the_provider(world) == {"completed": 1}

    world.add(*PROMPTS)
    asyncio.run(play())
    assert (world.made("/v1/files"), world.made("/v1/batches")) == (2, 2)  # the late one was refused
    paid_once(world)


@pytest.mark.parametrize("intent", [batches.intend_upload, batches.intend_create])
def test_an_owner_paused_between_its_intent_and_its_post_gives_up(world: World, intent: Callable[..., Any]) -> None:
    async def play() -> None:
        context = world.context()
        door = Door(context, intent)
        moving = asyncio.create_task(batch.move(door, await packed(world, context)))  # type: ignore[arg-type]
        await door.reached.wait()
        posts = world.made("/v1/files") + world.made("/v1/batches")
        world.clock.ahead += GRACE_S * 0.2
        door.go_on.set()
        await moving
        assert world.made("/v1/files") + world.made("/v1/batches") == posts
        found = the_batch(world)
        assert (found.upload_intent_at is None) or (found.create_intent_at is None)  # the next one need not wait
        await to_the_end(world, context)

    world.add(*PROMPTS)
    asyncio.run(play())
    assert (world.made("/v1/files"), world.made("/v1/batches")) == (1, 1)
    paid_once(world)


def test_a_create_that_loses_its_save_cancels_its_own_batch(world: World) -> None:
    """The list shows a batch later than the grace period: the one thing that nobody can rule out."""
    late_list = {"kind": "late_list", "seconds": DAY_S, "match": POSTS, "times": 1}
    world.sandbox.faults([late_list, {"kind": "stall", "fraction": 0.0, "times": 1}])

    async def play() -> None:
        slow, other = world.context(), world.context()
        pause = Pause(slow.batch_provider("openai"), "submit", behind=True)
        late = asyncio.create_task(batch.move(slow, await packed(world, slow)))
        await pause.reached.wait()
        world.clock.ahead += GRACE_S + 1
        await to_the_end(world, other)
        pause.go_on.set()
        await late
        await slow.close()
        world.sandbox.advance(2 * DAY_S)
        assert await at_the_provider(world) == {"completed": 1, "cancelled": 1}

    world.add(*PROMPTS)
    asyncio.run(play())
    paid_once(world)


def test_a_refusal_that_another_worker_caused_fails_nothing(world: World) -> None:
    async def play() -> None:
        context = world.context()
        pause = Pause(context.batch_provider("openai"), "submit")
        late = asyncio.create_task(batch.move(context, await packed(world, context)))
        await pause.reached.wait()
        assert batches.upload_anew(world.store, the_batch(world))  # another worker has begun again
        pause.go_on.set()
        await late
        assert world.states() == {"submitted": len(PROMPTS)}
        assert world.attempts() == {"sent": len(PROMPTS)}
        await to_the_end(world, context)

    world.sandbox.faults([{"kind": "status", "status": 400, "match": POSTS, "times": 1}])
    world.add(*PROMPTS)
    asyncio.run(play())
    paid_once(world)


# ---- Anthropic: nothing names a batch ----


def test_a_batch_of_another_program_with_as_many_rows_is_not_adopted(world: World) -> None:
    path = "/v1/messages/batches"

    async def play() -> None:
        context = world.context()
        pause = Pause(context.batch_provider("anthropic"), "submit")
        moving = asyncio.create_task(batch.move(context, await packed(world, context)))
        await pause.reached.wait()
        _somebody_elses(world, len(PROMPTS))
        pause.go_on.set()
        await moving
        assert the_batch(world).provider_batch_id is None
        world.clock.ahead += 10
        await to_the_end(world, context)
        assert the_batch(world).state == "unsure"  # only once the grace is over is it sure that nothing was made
        world.clock.ahead += GRACE_S
        await to_the_end(world, world.context())

    world.sandbox.faults([{"kind": "drop", "match": {"path": path, "method": "POST"}, "times": 1}])
    world.add(*PROMPTS, model=CLAUDE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "LINGER_S", 1.0)
        asyncio.run(play())
    assert world.states() == {"succeeded": len(PROMPTS)}
    assert {row["custom_id"] for row in world.sandbox.bill(kind="batch")["rows"]} >= {f"other-{n}" for n in range(6)}
    world.batch_rows_once()


def _somebody_elses(world: World, count: int) -> None:
    world.sandbox.faults([])
    with anthropic.Anthropic(base_url=world.sandbox.url, api_key="sk-x") as client:
        params: Any = {"model": CLAUDE, "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
        client.messages.batches.create(requests=[{"custom_id": f"other-{n}", "params": params} for n in range(count)])
    world.sandbox.faults([{"kind": "drop", "match": {"path": "/v1/messages/batches", "method": "POST"}, "times": 1}])
