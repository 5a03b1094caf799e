"""The worker: it ends when nothing is due, says what stands in the way, and takes over from the dead."""

import asyncio
import socket
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from db import batches, facts, queue
from db.engine import Store
from db.tables import Batch
from jobs import batch, packing, polling, windows, worker
from jobs.clock import Clock
from jobs.context import Context
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


@pytest.mark.both
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


@pytest.mark.both
def test_what_a_dead_worker_left_is_taken_over(world: World) -> None:
    world.add(*PROMPTS, lane="sync")
    now = world.clock.now()
    queue.claim(world.store, "dead", now + timedelta(seconds=5), 4, now, ["openai"])
    world.clock.ahead += 6
    world.work()
    assert world.states() == {"succeeded": 6}
    assert world.attempts() == {"ok": 6, "unknown": 4}
    world.at_risk()


@pytest.mark.both
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


def told_to_stop(world: World, **settings: Any) -> None:
    """A worker that is told to stop when its first call has ended."""

    async def work() -> None:
        context, stop = world.context(**settings), asyncio.Event()
        await worker.once(context, worker.Told(job=lambda claim, ended: stop.set()), stop)
        await context.close()

    asyncio.run(work())


def test_it_ends_when_it_is_told_to(world: World) -> None:
    world.add(*PROMPTS, lane="sync")
    told_to_stop(world, concurrency=1)
    assert world.states()["queued"] >= 4
    assert "running" not in world.states()


def test_what_does_not_end_in_time_is_cut_off_and_settled(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "STOP_S", 0.2)
    world.sandbox.faults([{"kind": "slow_first_token", "seconds": 60.0, "match": {"contains": "number 0"}}])
    world.add(*PROMPTS[:2], lane="sync")
    told_to_stop(world)
    assert world.states() == {"queued": 1, "succeeded": 1}
    assert world.attempts() == {"ok": 1, "unknown": 1}


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


# ---- batches, beside live jobs and beside other workers ----


def test_batches_move_along_while_live_calls_go_on(world: World) -> None:
    world.sandbox.faults([{"kind": "slow_first_token", "seconds": 2.0, "match": {"path": "/v1/chat/completions"}}])
    world.add(*PROMPTS, lane="sync")
    world.add(*PROMPTS)
    seen: list[Counter[str]] = []

    async def work() -> None:
        context = world.context(concurrency=3)
        told = worker.Told(batch=lambda moved: seen.append(Counter(world.states())))
        await worker.once(context, told, asyncio.Event())
        await context.close()

    asyncio.run(work())
    assert world.states() == {"succeeded": 12}
    assert any(states["succeeded"] >= 6 and states["running"] for states in seen)  # imported before the calls ended


def packed(world: World) -> str:
    """Put what waits into a batch; its id."""

    async def pack() -> None:
        context = world.context()
        await packing.pack(context)
        await context.close()

    asyncio.run(pack())
    return str(rows(world.store, "SELECT id FROM batch")[0][0])


async def _slow(context: Context, batch: Batch) -> None:
    await asyncio.sleep(1.0)
    await context.db(batches.wait, batch, context.clock.now() + timedelta(hours=1))


def test_the_lease_of_a_batch_is_renewed_while_it_is_worked_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "move", _slow)
    world.add(*PROMPTS)
    batch_id = packed(world)

    async def both() -> tuple[bool, list[Batch]]:
        context = world.context(lease_s=0.3)
        moving = asyncio.create_task(worker.move(context, worker.Told(), batch_id))
        await asyncio.sleep(0.7)  # past the lease, had it not been renewed
        now = world.clock.now()
        taken = batches.take(world.store, "other", now + timedelta(hours=1), now)
        return await moving, taken

    assert asyncio.run(both()) == (True, [])
    assert rows(world.store, "SELECT lease_by FROM batch") == [(None,)]


def test_who_lost_a_batch_touches_it_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "move", _slow)
    world.add(*PROMPTS)
    batch_id, said = packed(world), []

    async def both() -> None:
        context = world.context(lease_s=0.3)
        moving = asyncio.create_task(worker.move(context, worker.Told(note=said.append), batch_id))
        await asyncio.sleep(0.05)
        batches.release(world.store, batch_id, context.owner)
        now = world.clock.now()
        assert batches.take(world.store, "other", now + timedelta(hours=1), now)
        await moving

    asyncio.run(both())
    assert "another worker has it now" in said[0]
    (row,) = rows(world.store, "SELECT lease_by, next_poll_at < :soon FROM batch", soon=world.clock.now())
    assert tuple(row) == ("other", 1)


def test_a_batch_that_another_holds_is_left_to_it(world: World) -> None:
    world.add(*PROMPTS)
    packed(world)
    now = world.clock.now()
    batches.take(world.store, "other", now + timedelta(hours=1), now)
    world.work()
    assert world.states() == {"submitted": 6}
    assert "a batch is another worker's; if that one died, the next run takes over from" in world.notes[-1]


# ---- the window ----


def window_in(world: World, hours: float) -> None:
    """Set a window of an hour that opens so many hours from now."""
    opens = world.clock.now() + timedelta(hours=hours)
    facts.put(world.store, windows.KEY, f"{opens:%H:%M}-{opens + timedelta(hours=1):%H:%M} UTC")


def test_bulk_work_waits_for_its_hours_and_says_so(world: World) -> None:
    window_in(world, 3)
    world.add(*PROMPTS)
    world.add(*PROMPTS, lane="sync")
    world.work()
    assert world.states() == {"queued": 6, "succeeded": 6}
    assert "bulk work waits for the window, which opens at" in world.notes[-1]
    world.clock.ahead += 3.1 * 3600
    world.work()
    assert world.states() == {"succeeded": 12}
    world.even()


def test_what_is_at_the_provider_is_seen_to_at_any_hour(world: World) -> None:
    world.add(*PROMPTS)
    packed(world)
    window_in(world, 3)
    world.work()
    assert world.states() == {"succeeded": 6}


def test_what_must_leave_before_its_hours_leaves(world: World) -> None:
    window_in(world, 3)
    leave_by = world.clock.now() + timedelta(hours=1)
    plan = [{"lane": "batch", "tier": "default", "leave_by": leave_by.isoformat()},
            {"lane": "sync", "tier": "default", "leave_by": None}]  # fmt: skip
    world.add(*PROMPTS, plan=plan, leave_by=leave_by)
    world.work()
    assert world.states() == {"queued": 6}
    world.clock.ahead += 3601
    world.work()
    assert world.states() == {"succeeded": 6}
    assert rows(world.store, "SELECT DISTINCT lane FROM attempt") == [("sync",)]
    world.even()
