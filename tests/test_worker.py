"""The worker: it ends when nothing is due, says what stands in the way, and takes over from the dead."""

import asyncio
import socket
from datetime import timedelta
from pathlib import Path

import pytest

from db import queue
from db.engine import Store
from jobs import polling, worker
from jobs.clock import Clock
from jobs.providers import Endpoint
from jobs.sandbox.server import Sandbox
from tests.lanes import KEY, NOW, World, rows

PROMPTS = [f"Name the capital of country number {n}, in one word." for n in range(6)]


@pytest.fixture
def world(store: Store, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setattr(polling, "_FIRST_POLL_S", 0.05)
    return World(store, sandbox, tmp_path)


def test_every_lane_at_once(world: World) -> None:
    for lane in ("batch", "sync", "stream"):
        world.add(*PROMPTS, lane=lane)
    world.work()
    assert world.states() == {"succeeded": 18}
    world.even()


def test_a_retry_that_is_due_soon_is_waited_for(world: World) -> None:
    world.sandbox.faults([{"kind": "status", "status": 429, "retry_after": 0.2, "times": 2}])
    world.add(*PROMPTS, lane="sync")
    world.work()
    assert world.states() == {"succeeded": 6}
    world.even()


def test_one_that_is_due_late_is_left(world: World) -> None:
    world.sandbox.faults([{"kind": "status", "status": 429, "retry_after": 60, "times": 1}])
    world.add(PROMPTS[0], lane="sync")
    world.work()
    assert world.states() == {"queued": 1}
    world.clock.ahead += 61
    world.work()
    assert world.states() == {"succeeded": 1}


def test_what_a_dead_worker_left_is_taken_over(world: World) -> None:
    world.add(*PROMPTS, lane="sync")
    now = world.clock.now()
    queue.claim(world.store, "dead", now + timedelta(seconds=5), 4, now, ["openai"])
    world.clock.ahead += 6
    world.work()
    assert world.states() == {"succeeded": 6}
    assert world.attempts() == {"ok": 6, "unknown": 4}
    world.at_risk()


def test_two_workers_share_the_work(world: World) -> None:
    world.add(*PROMPTS)
    world.add(*PROMPTS, lane="sync")

    async def both() -> None:
        await asyncio.gather(world.once(), world.once())

    asyncio.run(both())
    world.work()
    assert world.states() == {"succeeded": 12}
    world.even()
    world.batch_rows_once()


def test_jobs_without_a_key_are_named_and_do_not_keep_it(world: World) -> None:
    world.add(PROMPTS[0], lane="sync", model="claude-haiku-5-5")
    world.add(PROMPTS[0], lane="batch", model="claude-haiku-5-5")
    world.add(PROMPTS[0])
    world.settings["endpoints"] = {"openai": world.context().endpoints["openai"]}
    world.work()
    assert world.states() == {"queued": 2, "succeeded": 1}
    assert "set ANTHROPIC_API_KEY" in world.troubles[0]


class Fast(Clock):
    """Twenty times as fast: an hour of waiting is a matter of minutes."""

    def __init__(self) -> None:
        self._start = super().now()

    def now(self):  # type: ignore[no-untyped-def]
        real = super().now()
        return self._start + (real - self._start) * 20


@pytest.mark.parametrize("known", [True, False])
def test_a_server_that_cannot_be_reached_does_not_keep_it_for_ever(world: World, known: bool) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        world.settings["endpoints"] = {"openai": Endpoint("openai", url, own=False, key_env="OPENAI_API_KEY")}
        world.settings["clock"] = Fast()
        if known:
            world.settings["has_batch"] = {"openai": True}
        world.add(*PROMPTS)
        world.work()
    assert world.states() in ({"queued": 6}, {"submitted": 6})
    said = world.troubles or [row[0] for row in rows(world.store, "SELECT error FROM batch")]
    assert "cannot reach 127.0.0.1" in said[0]
    assert rows(world.store, "SELECT count(*) FROM attempt WHERE state <> 'sent'")[0][0] == 0


def test_a_lane_that_nothing_moves_does_not_keep_it(world: World) -> None:
    world.add(PROMPTS[0], lane="background")
    world.work()
    assert world.states() == {"queued": 1}


def test_it_ends_when_it_is_told_to(world: World) -> None:
    world.add(*PROMPTS, lane="sync")

    async def work() -> None:
        context, stop = world.context(concurrency=1), asyncio.Event()
        await worker.forever(context, worker.Told(job=lambda claim, ended: stop.set()), stop, 60.0)
        await context.close()

    asyncio.run(work())
    assert world.states()["queued"] >= 4
    assert "running" not in world.states()


def test_a_lease_is_renewed_while_its_call_runs(world: World) -> None:
    world.sandbox.faults([{"kind": "slow_first_token", "seconds": 1.0}])
    world.add(PROMPTS[0], lane="sync")

    async def both() -> None:
        await asyncio.gather(world.once(lease_s=0.3), later(world))

    async def later(world: World) -> None:
        await asyncio.sleep(0.6)  # past the lease, had it not been renewed
        await world.once()

    asyncio.run(both())
    assert world.states() == {"succeeded": 1}
    assert world.attempts() == {"ok": 1}
    assert world.clock.now() > NOW
