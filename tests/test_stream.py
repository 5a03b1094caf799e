"""A job carried by a task of its own: who reads it, who holds it, and how it ends whatever is cancelled meanwhile."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, suppress
from typing import Any

import pytest

from db import rescue
from jobs import retry, stream
from jobs.chat import Delta, Message, Request
from jobs.runner import Event
from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings
from jobs.stream import Carried, Feed
from router import Router
from tests.lanes import MODEL, World, rows
from tests.stream_wire import run
from tests.streams import LONG, all_of, begun, claim, locked, process, seen, sent, until

BUSY = {"kind": "status", "status": 500}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.02)


@pytest.fixture
def slow(world: World) -> Iterator[Sandbox]:
    """A model that writes 400 words a second."""
    with running(SandboxSettings(tokens_per_second=400.0)) as server:
        world.sandbox = server
        yield server


# ---- one job, several readers ----


async def every(feed: Feed) -> list[Event]:
    return [event async for event in feed.read()]


@pytest.mark.both
def test_a_carried_job_is_heard_by_all_who_read_its_feed(world: World) -> None:
    async def test() -> None:
        async with process(world) as context:
            carried = Carried(context, claim(world, context))
            early = asyncio.create_task(every(carried.feed))
            await context.settled()
            late = await every(carried.feed)
            assert await early == late
            assert seen(late)[1:] == [(1, "Succeeded")]

    run(test)
    world.even()


def test_a_reader_who_stops_at_the_end_changes_nothing(world: World) -> None:
    async def test() -> None:
        async with process(world) as context, aclosing(stream.watch(context, claim(world, context))) as events:
            async for event in events:
                if not isinstance(event, Delta):
                    break

    run(test)
    assert world.states() == {"succeeded": 1}
    world.even()


# ---- in the middle of the settlement ----


@pytest.mark.both
@pytest.mark.parametrize(
    ("fault", "state", "attempt"),
    [
        (None, "succeeded", "ok"),
        ({"kind": "status", "status": 400}, "failed", "failed"),
        (BUSY, "cancelled", "failed"),
    ],
)  # fmt: skip
def test_leaving_in_the_middle_of_the_settlement(world: World, fault: Any, state: str, attempt: str) -> None:
    world.sandbox.faults([fault] if fault else [])

    async def test() -> None:
        async with process(world) as context:
            claimed = claim(world, context)
            reading = asyncio.create_task(all_of(context, claimed))
            with locked(world.store) as release:
                await until(lambda: world.sandbox.requests()["count"])
                await asyncio.sleep(0.3)  # the answer is there, and the settlement waits for the lock
                reading.cancel()
                await asyncio.sleep(0.05)
                reading.cancel()  # the second time hurries nothing
                release()
                with pytest.raises(asyncio.CancelledError):
                    await reading
            await context.settled()

    run(test)
    assert world.attempts() == {attempt: 1}
    assert world.states() == {state: 1}
    world.even()


def test_a_second_cancellation_leaves_the_settlement_alone(world: World, slow: Sandbox) -> None:
    async def test() -> None:
        async with process(world) as context:
            claimed = claim(world, context, LONG)
            events, _ = await begun(context, claimed)
            with locked(world.store) as release:
                leaving = asyncio.ensure_future(events.aclose())
                for _ in range(3):
                    await asyncio.sleep(0.02)
                    leaving.cancel()
                    for task in context.carried:
                        task.cancel()
                release()
                with suppress(asyncio.CancelledError):
                    await leaving
            await context.settled()
            assert world.job(claimed.job_id)["text"]

    run(test)
    assert (world.states(), world.attempts()) == ({"cancelled": 1}, {"unknown": 1})
    slow.billed(1)
    world.at_risk()


# ---- whoever holds it ----


def lease(world: World) -> str:
    return str(rows(world.store, "SELECT lease_until FROM job")[0][0])


def test_the_lease_is_renewed_while_nobody_reads(world: World, slow: Sandbox) -> None:
    async def test() -> None:
        async with process(world, lease_s=0.3) as context:
            claimed = claim(world, context, "Explain in 240 words how a railway signal works.", on_leave="continue")
            await (await begun(context, claimed))[0].aclose()
            first = lease(world)
            await until(lambda: lease(world) > first)
            await asyncio.sleep(0.3)  # the first lease is over by now
            assert rescue.rescue(world.store, world.clock.now(), 3) == 0
            await context.settled()

    run(test)
    assert world.states() == {"succeeded": 1}
    world.even()


def test_a_drain_is_not_taken_for_an_orphan(world: World, slow: Sandbox) -> None:
    async def test() -> None:
        async with process(world, lease_s=0.1) as context:
            claimed = claim(world, context, "Explain in 240 words how a railway signal works.", on_leave="drain")
            await (await begun(context, claimed))[0].aclose()
            await asyncio.sleep(0.2)
            assert rescue.rescue(world.store, world.clock.now(), 3) == 0
            assert sent(world.store) == [1]

    run(test)
    assert (world.states(), world.attempts()) == ({"cancelled": 1}, {"ok": 1})
    world.even()


# ---- at the front door ----


def test_a_caller_who_leaves_while_the_job_is_recorded_leaves_nothing_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{world.sandbox.url}/v1")
    monkeypatch.setenv("SHUNTER_DATABASE_URL", world.store.url)
    asked = Request(model=MODEL, messages=[Message(role="user", content=LONG)], interactive=True)

    async def test() -> None:
        router = Router()
        router.context()
        with locked(world.store) as release:
            asking = asyncio.create_task(router.submit(asked))
            await asyncio.sleep(0.2)  # it waits for the lock
            asking.cancel()
            release()
            with pytest.raises(asyncio.CancelledError):
                await asking
        await until(lambda: rows(world.store, "SELECT id FROM job"))
        await router.close()

    run(test)
    assert world.states() == {"cancelled": 1}
    assert sent(world.store) == []


# ---- the end of a process ----


def test_settled_waits_for_all_that_runs_here(world: World, slow: Sandbox) -> None:
    async def test() -> None:
        async with process(world) as context:
            await context.settled()  # nothing runs: it does not wait
            for on_leave in ("continue", "drain", "continue"):
                await (await begun(context, claim(world, context, on_leave=on_leave), 1))[0].aclose()
            assert len(context.carried) == 3
            await context.settled()
            assert not context.carried

    run(test)
    assert world.states() == {"succeeded": 2, "cancelled": 1}
    world.even()


@pytest.mark.parametrize("on_leave", ["cancel", "drain", "continue"])
def test_stop_cancels_and_settles_whatever_was_said_of_leaving(world: World, slow: Sandbox, on_leave: str) -> None:
    async def test() -> None:
        async with process(world) as context:
            claimed = claim(world, context, LONG, on_leave=on_leave)
            events, shown = await begun(context, claimed)
            await context.stop()
            found = world.job(claimed.job_id)
            assert (found["state"], found["partial"]) == ("cancelled", True)
            assert found["text"].startswith(shown)
            rest = [event async for event in events]
            assert all(isinstance(event, Delta) for event in rest), "its reader is let go"

    run(test)
    assert world.attempts() == {"unknown": 1}
    slow.billed(1)
    world.at_risk()


def test_stop_settles_what_has_hardly_begun(world: World) -> None:
    async def test() -> None:
        async with process(world) as context:
            reading = asyncio.create_task(all_of(context, claim(world, context)))
            await asyncio.sleep(0)  # it is watched; its own task has not had a turn yet
            await context.stop()
            try:
                async with asyncio.timeout(0.5):
                    await reading
            except TimeoutError:
                pytest.fail("its reader was never let go")

    run(test)
    assert world.states() == {"cancelled": 1}
    assert sent(world.store) == []


def test_a_database_that_fails_is_heard_by_the_reader(world: World) -> None:
    async def test() -> None:
        async with process(world) as context:
            claimed = claim(world, context)
            with world.store.write() as connection:
                connection.exec_driver_sql("CREATE TRIGGER full BEFORE UPDATE ON attempt BEGIN "
                                           "SELECT raise(ABORT, 'no room'); END")  # fmt: skip
            with pytest.raises(Exception, match="no room"):
                await all_of(context, claimed)

    run(test)
