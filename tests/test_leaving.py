"""The last reader leaves: cancel, drain or continue, at every moment of a job; the settlement happens even then."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from db import log, queue
from jobs import retry, runner, stream
from jobs.chat import Handling, OnLeave
from jobs.providers import Endpoint
from jobs.runner import Ended
from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings
from tests import wire
from tests.lanes import World
from tests.stream_wire import OPENAI, run
from tests.streams import LONG, at_once, attempt_of, begun, claim, locked, process, sent, until

MANY = "Explain in 200 words how a railway signal works."  # half a second
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


async def leave_between_two_tries(world: World, context: Any, **more: Any) -> tuple[Any, str]:
    """A reader who has just heard that its job is tried again, and the job."""
    claimed = claim(world, context, **more)
    events = stream.watch(context, claimed)
    ended = await anext(events)
    assert isinstance(ended, Ended)
    return events, claimed.job_id


# ---- the three choices ----


def test_cancel_is_the_default(world: World, slow: Sandbox) -> None:
    assert Handling().on_leave is OnLeave.CANCEL

    async def test() -> None:
        async with process(world) as context:
            claimed = claim(world, context, LONG)
            events, shown = await begun(context, claimed)
            await events.aclose()
            found = world.job(claimed.job_id)  # settled when the reader has left, not some time later
            assert (found["state"], found["partial"], found["finish_reason"]) == ("cancelled", True, None)
            assert found["text"].startswith(shown)
            assert found["cost_usd"] is None, "nobody knows the bill: it is not 0"
            assert (attempt_of(found)["state"], attempt_of(found)["outcome"]) == ("unknown", "cancelled")
            assert await asyncio.to_thread(slow.billed, 1)

    run(test)
    assert slow.bill()["rows"][0]["disconnected"]
    world.at_risk()


def test_the_connection_is_closed_at_once(world: World) -> None:
    """Within 100 ms on an idle machine; the bound here is for a busy one."""

    async def test() -> None:
        async with wire.serving(wire.stream(OPENAI["start"], OPENAI["text"], end="silence")) as server:
            endpoint = Endpoint("openai", server.url + "/v1", own=False, key_env="OPENAI_API_KEY")
            async with process(world, endpoints={"openai": endpoint}) as context:
                claimed = claim(world, context)
                events, _ = await begun(context, claimed, 1)
                asked = asyncio.get_running_loop().time()
                await events.aclose()
                await server.left.wait()
                assert asyncio.get_running_loop().time() - asked < 0.5
                assert world.job(claimed.job_id)["text"] == "he"

    run(test)
    assert world.attempts() == {"unknown": 1}


def test_drain_reads_on_for_the_true_bill(world: World, slow: Sandbox) -> None:
    async def test() -> None:
        async with process(world) as context:
            claimed = claim(world, context, MANY, on_leave="drain")
            events, shown = await begun(context, claimed)
            await events.aclose()
            assert world.states() == {"cancelled": 1}, "for its reader the job is over at once"
            assert sent(world.store) == [1], "its attempt is not"
            await context.settled()
            found = world.job(claimed.job_id)
            assert (found["state"], attempt_of(found)["state"], found["partial"]) == ("cancelled", "ok", False)
            assert found["text"].startswith(shown)
            assert len(found["text"].split()) == 200

    run(test)
    assert not slow.bill()["rows"][0]["disconnected"]
    world.even()


def test_a_drained_stream_that_breaks_is_at_risk(world: World, slow: Sandbox) -> None:
    slow.faults([{"kind": "cut", "after": 20}])

    async def test() -> None:
        async with process(world) as context:
            claimed = claim(world, context, on_leave="drain", on_cut="restart")
            await (await begun(context, claimed))[0].aclose()
            await context.settled()
            found = world.job(claimed.job_id)
            assert (found["state"], found["partial"], len(found["attempts"])) == ("cancelled", True, 1)
            assert len(found["text"].split()) == 20
            assert (attempt_of(found)["state"], attempt_of(found)["outcome"]) == ("unknown", "cut")

    run(test)
    world.at_risk()


def test_continue_carries_on_as_if_somebody_read(world: World, slow: Sandbox) -> None:
    async def test() -> None:
        async with process(world) as context:
            claimed = claim(world, context, MANY, on_leave="continue")
            events, shown = await begun(context, claimed)
            await events.aclose()
            assert world.states() == {"running": 1}
            tail = await until(lambda: (read := log.tail(world.store, claimed.job_id, 1, 0)) and read.pieces)
            assert tail[0].text.startswith(shown[:5]), "a reader can come back while it goes on"
            await context.settled()
            found = world.job(claimed.job_id)
            assert (found["state"], found["partial"]) == ("succeeded", False)
            assert found["text"].startswith(shown)

    run(test)
    world.even()


# ---- between two tries ----


@pytest.mark.parametrize("on_leave", ["cancel", "drain"])
def test_leaving_between_two_tries_ends_the_job(world: World, on_leave: str) -> None:
    world.sandbox.faults([BUSY | {"status": 503, "retry_after": 30}])

    async def test() -> None:
        async with process(world) as context:
            events, _ = await leave_between_two_tries(world, context, on_leave=on_leave)
            await events.aclose()
            assert world.states() == {"cancelled": 1}
            await context.stop()

    run(test)
    assert world.attempts() == {"failed": 1}
    world.even()


def test_nothing_is_waited_for_when_a_drained_job_has_nothing_to_drain(world: World) -> None:
    world.sandbox.faults([BUSY | {"status": 503, "retry_after": 30}])

    async def test() -> None:
        async with process(world) as context:
            events, _ = await leave_between_two_tries(world, context, on_leave="drain")
            await events.aclose()
            try:
                async with asyncio.timeout(0.5):
                    await context.settled()
            finally:
                await context.stop()

    run(test)


def test_continue_goes_on_with_the_next_try(world: World) -> None:
    world.sandbox.faults([BUSY | {"times": 1}])

    async def test() -> None:
        async with process(world) as context:
            events, job_id = await leave_between_two_tries(world, context, on_leave="continue")
            await events.aclose()
            await context.settled()
            assert [one["state"] for one in world.job(job_id)["attempts"]] == ["failed", "ok"]

    run(test)
    assert world.states() == {"succeeded": 1}
    world.even()


@pytest.mark.both
def test_leaving_while_the_next_try_is_opened_ends_the_job(world: World) -> None:
    world.sandbox.faults([BUSY | {"times": 1}])

    async def test() -> None:
        async with process(world) as context:
            events, _ = await leave_between_two_tries(world, context)
            with locked(world.store) as release:
                await asyncio.sleep(0.3)  # the next try waits for the lock: its own wait is a tenth of this
                release()
                at_once(lambda: sent(world.store) == [2])  # it is written, and its owner has not heard so
                await events.aclose()

    run(test)
    assert world.states() == {"cancelled": 1}
    assert sent(world.store) == []


# ---- while --post-process runs ----


@pytest.mark.parametrize("on_leave", ["cancel", "drain", "continue"])
def test_leaving_while_the_command_runs(world: World, tmp_path: Path, on_leave: str) -> None:
    """Cancel ends the command and whatever it started; the answer, which is paid for, stays in every case."""
    mark, go = tmp_path / "pid", tmp_path / "go"
    command = f"echo $$ > {mark}.new; mv {mark}.new {mark}; while [ ! -e {go} ]; do sleep 0.02; done; wc -w"

    async def test() -> None:
        async with process(world) as context:
            claimed = claim(world, context, on_leave=on_leave, post_process=command)
            events, _ = await begun(context, claimed, 40)
            await until(mark.exists)
            await events.aclose()
            if on_leave == "cancel":
                with pytest.raises(ProcessLookupError):
                    os.kill(int(mark.read_text()), 0)
            go.touch()
            await context.settled()
            found = world.job(claimed.job_id)
            assert found["state"] == ("succeeded" if on_leave == "continue" else "cancelled")
            assert len(found["text"].split()) == 40
            assert (found["output"] or "").strip() == ("" if on_leave == "cancel" else "40")

    run(test)
    assert world.attempts() == {"ok": 1}
    world.even()


def test_a_worker_that_is_stopped_while_the_command_runs(world: World, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    ident = world.add("hi", lane="stream", post_process=f"touch {mark}; sleep 30")[0]

    async def test() -> None:
        async with process(world) as context:
            claimed = queue.claim(world.store, context.owner, context.until(), 1, world.clock.now(), ["openai"])[0]
            working = asyncio.create_task(runner.run(context, claimed))
            await until(mark.exists)
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working

    run(test)
    found = world.job(ident)
    assert (found["state"], found["output"]) == ("failed", None)
    assert found["error"]["code"] == "post_process"
    assert found["text"].startswith("[sandbox]")
    world.even()
