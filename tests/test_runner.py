"""One job run in its lane against every way in which a call can end; what it cost is what the sandbox bills."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from db import queue
from db.engine import Store
from db.ids import new_id
from db.queue import Claim
from jobs import retry, runner, stream
from jobs.chat import Delta
from jobs.context import Context
from jobs.providers import Timeouts
from jobs.runner import Ended
from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings
from tests.lanes import CLAUDE, KEY, World, decision, job, rows, settled

LONG = "Explain step by step how a railway signal works, in detail."
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
WANTED = {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}}
TOOL = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
QUICK = Timeouts(first_token=0.3, idle=0.3, total=5.0, connect=2.0)
LANES = ["stream", "sync"]
Leave = Callable[[int], bool]


@pytest.fixture
def world(store: Store, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.02)
    return World(store, sandbox, tmp_path)


def claim(world: World, context: Context, prompt: str = LONG, lane: str = "stream", **more: Any) -> Claim:
    now = world.clock.now()
    new = job(prompt, now=now, lane=lane, interactive=True, decision_id=new_id(now), **more)
    claimed = queue.start(world.store, new, new.id, decision(new.decision_id), context.owner, context.until(), now)
    assert claimed is not None
    return claimed


def watch(world: World, prompt: str = LONG, lane: str = "stream", timeouts: Timeouts = QUICK, **more: Any) -> Any:
    """Run a prompt to its end as its submitter does; the text that was shown, and the job."""

    async def all_of() -> tuple[str, Any]:
        context = world.context(timeouts=timeouts)
        claimed = claim(world, context, prompt, lane, **more)
        shown = ""
        async with aclosing(stream.watch(context, claimed)) as events:
            async for event in events:
                shown += event.text if isinstance(event, Delta) else ""
        await context.close()
        return shown, world.job(claimed.job_id)

    return asyncio.run(all_of())


def faults(world: World, *given: dict[str, Any]) -> None:
    world.sandbox.faults(list(given))


def unknown(world: World) -> None:
    """One attempt whose cost nobody knows, with its money at risk; the bill is within that."""
    assert world.attempts() == {"unknown": 1}
    world.at_risk()
    _, blind, risk = settled(world.store)
    assert (blind, 0 < risk <= 10_000_000) == (1, True)


# ---- what goes well ----


@pytest.mark.both
@pytest.mark.parametrize("model", ["gpt-6-luna", CLAUDE])
@pytest.mark.parametrize("lane", LANES)
def test_an_answer(world: World, lane: str, model: str) -> None:
    shown, found = watch(world, lane=lane, model=model)
    assert found["state"] == "succeeded"
    assert found["finish_reason"] in ("stop", "end_turn")
    assert not found["truncated"]
    assert found["text"].startswith("[sandbox]")
    assert shown == (found["text"] if lane == "stream" else "")
    only = found["attempts"][0]
    assert (only["state"], only["lane"], only["n"]) == ("ok", lane, 1)
    assert only["total_ms"] > 0
    assert (only["first_token_ms"] is not None) is (lane == "stream")
    world.even()


@pytest.mark.parametrize("lane", LANES)
def test_the_length_limit_is_a_success(world: World, lane: str) -> None:
    _, found = watch(world, lane=lane, model="gpt-4o-mini", sent={"max_tokens": 5})
    assert (found["state"], found["truncated"], found["finish_reason"]) == ("succeeded", True, "length")
    world.even()


@pytest.mark.parametrize("lane", LANES)
def test_tool_calls_are_joined_and_parsed(world: World, lane: str) -> None:
    _, found = watch(world, lane=lane, sent={"tools": [TOOL], "tool_choice": "required"})
    assert found["state"] == "succeeded"
    assert found["tool_calls"][0]["name"] == "look"
    assert set(found["tool_calls"][0]["arguments"]) == {"city"}
    world.even()


@pytest.mark.parametrize("lane", LANES)
def test_malformed_arguments_are_kept_raw_with_the_error_on_that_call(world: World, lane: str) -> None:
    faults(world, {"kind": "malformed_arguments"})
    _, found = watch(world, lane=lane, sent={"tools": [TOOL], "tool_choice": "required"})
    assert found["state"] == "succeeded"
    only = found["tool_calls"][0]
    assert only["arguments"] is None
    assert only["error"]
    assert only["raw"]
    world.even()


# ---- tried again before the first delta ----


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("fault", [{"status": 429, "retry_after": 0.2}, {"status": 500}, {"status": 503}])
def test_a_busy_server_is_asked_again(world: World, lane: str, fault: dict[str, Any]) -> None:
    faults(world, {"kind": "status", "times": 1, **fault})
    _, found = watch(world, lane=lane)
    assert found["state"] == "succeeded"
    assert [one["state"] for one in found["attempts"]] == ["failed", "ok"]
    assert found["attempts"][0]["cost_usd"] == "0"
    sent = [row[0] for row in rows(world.store, "SELECT julianday(sent_at) * 86400 FROM attempt ORDER BY n")]
    assert sent[1] - sent[0] >= fault.get("retry_after", 0.01)
    world.even()


def test_three_tries_in_all(world: World) -> None:
    faults(world, {"kind": "status", "status": 500})
    _, found = watch(world)
    assert found["state"] == "failed"
    assert "500" in found["error"]["message"]
    assert "(tried 3 times)" in found["error"]["message"]
    assert world.attempts() == {"failed": 3}
    world.even()


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_what_would_fail_again_is_not_tried_again(world: World, status: int) -> None:
    faults(world, {"kind": "status", "status": status})
    _, found = watch(world)
    assert found["state"] == "failed"
    assert world.attempts() == {"failed": 1}
    assert "\n" not in found["error"]["message"]
    world.even()


# ---- broken after the first delta ----


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"kind": "cut", "after": 3, "how": "fin"}, "cut"),
        ({"kind": "cut", "after": 3, "how": "rst"}, "cut"),
        ({"kind": "silence", "after": 3}, "idle_timeout"),
        ({"kind": "malformed", "after": 3}, "malformed"),
        ({"kind": "stream_error", "after": 3, "billed": True}, "server_is_overloaded"),
        ({"kind": "no_finish"}, None),
    ],
)
def test_a_stream_that_breaks_fails_with_what_had_come(world: World, fault: dict[str, Any], code: str | None) -> None:
    faults(world, fault)
    shown, found = watch(world)
    assert found["state"] == "failed"
    assert found["text"] == shown != ""
    assert found["partial"]
    assert code is None or found["error"]["code"] == code
    assert len(found["attempts"]) == 1, "nothing is tried again after the first delta"
    unknown(world)


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("kind", ["refusal", "content_filter"])
def test_refused_and_filtered(world: World, lane: str, kind: str) -> None:
    faults(world, {"kind": kind})
    _, found = watch(world, lane=lane)
    assert found["state"] == "failed"
    assert found["error"]["code"] in ("refused", "filtered")
    assert found["refusal"] or found["text"] or kind == "content_filter"
    assert len(found["attempts"]) == 1
    world.even()


def test_an_answer_without_its_usage_has_no_price(world: World) -> None:
    faults(world, {"kind": "no_usage"})
    _, found = watch(world)
    assert found["state"] == "succeeded"
    assert found["cost_usd"] is None
    unknown(world)


def test_a_slow_first_token_is_given_up_and_asked_again(world: World) -> None:
    faults(world, {"kind": "slow_first_token", "seconds": 3.0, "times": 1})
    _, found = watch(world)
    assert found["state"] == "succeeded"
    assert [one["state"] for one in found["attempts"]] == ["unknown", "ok"]


# ---- structured answers ----


@pytest.mark.parametrize("lane", LANES)
def test_an_answer_that_fits_its_schema(world: World, lane: str) -> None:
    _, found = watch(world, "Give me a number.", lane=lane, sent=WANTED)
    assert found["state"] == "succeeded"
    assert found["text"].startswith("{")
    world.even()


@pytest.mark.parametrize("lane", LANES)
def test_one_that_does_not_is_asked_for_once_more(world: World, lane: str) -> None:
    faults(world, {"kind": "length", "times": 1})
    _, found = watch(world, "Give me a number.", lane=lane, sent=WANTED)
    assert found["state"] == "succeeded"
    assert found["text"].endswith("}"), "the answer that fits is the result"
    assert [one["state"] for one in found["attempts"]] == ["ok", "ok"]
    world.even()


@pytest.mark.both
@pytest.mark.parametrize("lane", LANES)
def test_one_that_never_does_fails_with_its_text(world: World, lane: str) -> None:
    faults(world, {"kind": "length"})
    _, found = watch(world, "Give me a number.", lane=lane, sent=WANTED)
    assert found["state"] == "failed"
    assert found["error"]["code"] == "schema_mismatch"
    assert found["text"]
    assert len(found["attempts"]) == 2
    world.even()


def test_it_is_asked_once_more_after_another_kind_of_failure_too(world: World) -> None:
    faults(world, {"kind": "status", "status": 500, "times": 1}, {"kind": "length", "times": 1})
    _, found = watch(world, "Give me a number.", lane="sync", sent=WANTED)
    assert found["state"] == "succeeded"
    assert [one["state"] for one in found["attempts"]] == ["failed", "ok", "ok"]
    world.even()


# ---- the reader leaves ----


@pytest.fixture
def slow(world: World) -> Any:
    with running(SandboxSettings(tokens_per_second=200.0)) as server:
        world.sandbox = server
        yield server


async def leave_by_close(events: AsyncIterator[Any]) -> None:
    seen = 0
    async with aclosing(events) as open_events:  # type: ignore[type-var]
        async for event in open_events:
            seen += isinstance(event, Delta)
            if seen == 3:
                break


async def leave_by_cancel(events: AsyncIterator[Any]) -> None:
    third = asyncio.Event()

    async def read() -> None:
        seen = 0
        async with aclosing(events) as open_events:  # type: ignore[type-var]
            async for event in open_events:
                seen += isinstance(event, Delta)
                if seen == 3:
                    third.set()

    task = asyncio.create_task(read())
    await third.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("leave", [leave_by_close, leave_by_cancel])
def test_a_reader_who_leaves_cancels_the_job_and_closes_the_connection(
    world: World, slow: Sandbox, leave: Callable[[Any], Any]
) -> None:
    async def left() -> str:
        context = world.context()
        claimed = claim(world, context)
        await leave(stream.watch(context, claimed))
        found = world.job(claimed.job_id)  # settled when aclose() or the cancelled task is done, not some time later
        assert found["state"] == "cancelled"
        assert found["partial"]
        assert found["text"].startswith("[sandbox]")
        await asyncio.to_thread(slow.billed, 1)
        await context.close()
        return claimed.job_id

    asyncio.run(left())
    assert slow.bill()["rows"][0]["disconnected"]
    unknown(world)


def test_a_reader_who_leaves_between_two_tries_cancels_the_job(world: World) -> None:
    faults(world, {"kind": "status", "status": 429, "retry_after": 30})

    async def left(close: bool) -> str:
        context = world.context()
        claimed = claim(world, context)
        events = stream.watch(context, claimed)
        assert isinstance(await anext(events), Ended)
        if close:
            await events.aclose()
        else:
            waiting = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await context.close()
        return world.job(claimed.job_id)["state"]  # type: ignore[no-any-return]

    assert asyncio.run(left(True)) == "cancelled"
    assert asyncio.run(left(False)) == "cancelled"
    world.even()


def test_leaving_between_two_tries_keeps_what_may_have_been_billed(world: World) -> None:
    faults(world, {"kind": "cut", "after": 0})

    async def left() -> None:
        context = world.context()
        events = stream.watch(context, claim(world, context))
        assert isinstance(await anext(events), Ended)
        await events.aclose()
        await context.close()

    asyncio.run(left())
    assert world.states() == {"cancelled": 1}
    unknown(world)


def test_a_claim_that_is_never_watched(world: World) -> None:
    async def left() -> None:
        context = world.context()
        await stream.leave(context, claim(world, context))
        await context.close()

    asyncio.run(left())
    assert world.states() == {"cancelled": 1}
    assert world.attempts() == {"cancelled": 1}
    world.even()


# ---- for a worker ----


def asked(world: World) -> None:
    """Back when the sandbox has a request."""
    while not world.sandbox.requests()["count"]:
        time.sleep(0.005)


def test_a_worker_leaves_the_retry_to_the_queue(world: World) -> None:
    faults(world, {"kind": "status", "status": 500})

    async def once() -> Ended:
        context = world.context()
        world.add("hi", lane="sync")
        claimed = queue.claim(world.store, context.owner, context.until(), 1, world.clock.now(), ["openai"])[0]
        ended = await runner.run(context, claimed)
        await context.close()
        return ended

    ended = asyncio.run(once())
    assert ended.n == 1
    assert world.states() == {"queued": 1}
    world.even()


def test_a_worker_that_is_stopped_cancels_nothing_of_anybodys(world: World) -> None:
    """The call in flight may be billed; the job, which nobody cancelled, is tried again."""
    faults(world, {"kind": "slow_first_token", "seconds": 30})

    async def stopped() -> None:
        context = world.context()
        world.add("hi", lane="sync")
        claimed = queue.claim(world.store, context.owner, context.until(), 1, world.clock.now(), ["openai"])[0]
        task = asyncio.create_task(runner.run(context, claimed))
        await asyncio.to_thread(asked, world)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await context.close()

    asyncio.run(stopped())
    assert world.states() == {"queued": 1}
    assert world.attempts() == {"unknown": 1}
    assert rows(world.store, "SELECT error_code FROM attempt")[0][0] == "stopped"


# ---- post-processing ----


@pytest.mark.parametrize("lane", LANES)
def test_the_answer_is_given_to_a_command(world: World, lane: str) -> None:
    _, found = watch(world, lane=lane, post_process="tr a-z A-Z")
    assert found["state"] == "succeeded"
    assert found["output"] == found["text"].upper()
    world.even()


def test_a_command_that_fails_keeps_the_answer(world: World) -> None:
    _, found = watch(world, lane="sync", post_process="echo no good >&2; exit 3")
    assert found["state"] == "failed"
    assert found["error"]["code"] == "post_process"
    assert "ended with 3: no good" in found["error"]["message"]
    assert found["text"].startswith("[sandbox]")
    world.even()
