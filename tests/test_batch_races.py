"""Two workers at one batch: what the slower of them writes last changes nothing that the other has learned."""

import asyncio
from typing import Any

import pytest

from jobs import batch
from tests.corners import DAY_S, POSTS, PROMPTS, Pause, packed, paid_once, the_batch, to_the_end
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
