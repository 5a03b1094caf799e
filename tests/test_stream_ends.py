"""What must not be lost when a database, an event loop or a server ends things at the wrong moment."""

import asyncio
from typing import Any

import pytest

from db import engine
from db.engine import Store, StoreError, connect
from db.ledger import Charge
from db.log import Piece, Writer
from db.settle import Settlement, Succeeded, Text, settle
from db.states import AttemptState
from jobs.chat import Answer, Delta, Outcome, Request, Usage
from jobs.errors import Permanent
from jobs.follow import Anew, Heard, Position, follow
from jobs.log import Log
from jobs.providers import anthropic_wire, openai_wire
from router import Router
from tests import wire
from tests.lanes import NOW, World, rows
from tests.stream_wire import IDLE, bytes_of, ended, part
from tests.streams import LONG, all_of, claim, locked, opened, process, tail
from tests.test_provider_stream_times import dripping


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "sk-test-1234567890")


# ---- the database ----


def test_a_settlement_that_the_database_could_not_take_is_made_up_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner lives and renews the lease: nobody else would ever settle it."""
    monkeypatch.setattr(engine, "BUSY_MS", 50)
    impatient = connect(world.store.url)
    world.sandbox.faults([{"kind": "silence", "after": 5, "seconds": 0.3}])

    async def test() -> None:
        async with process(world, store=impatient) as context:
            claimed = claim(world, context)
            reading = asyncio.create_task(all_of(context, claimed))
            await asyncio.sleep(0.15)
            with locked(world.store), pytest.raises(StoreError):
                await reading
            assert world.states() == {"running": 1}
            await context.pay()
            assert world.states() == {"succeeded": 1}

    asyncio.run(test())
    impatient.close()
    assert world.attempts() == {"ok": 1}


def test_a_log_whose_connection_failed_once_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, raw, failures = opened(store), store.raw, ["no descriptor left"]

    def fails_once() -> Any:
        if failures:
            raise OSError(failures.pop())
        return raw()

    monkeypatch.setattr(store, "raw", fails_once)
    writing = Log(store)
    entry = writing.open(mine.job_id, 1)
    entry.add(Delta("lost? "))

    async def test() -> str:
        said = ""
        for _ in range(200):
            if not failures:
                entry.add(Delta("no "))
            await asyncio.sleep(0.05)
            if said := "".join(piece.text for piece in tail(store, mine.job_id).pieces):
                break
        await writing.close()
        return said

    assert asyncio.run(test()).startswith("lost? no ")


# ---- the event loop ----


def test_whoever_ends_the_event_loop_leaves_nothing_open(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """`asyncio.run` cancels every task at its end, those that shield another too."""
    monkeypatch.setenv("OPENAI_BASE_URL", f"{world.sandbox.url}/v1")
    monkeypatch.setenv("SHUNTER_DATABASE_URL", world.store.url)
    world.sandbox.faults([{"kind": "silence", "after": 3}])
    tasks = []

    async def main(seconds: float) -> None:
        router = Router()
        body = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": LONG}]}
        tasks.extend(asyncio.create_task(router.submit(Request.from_body(body, interactive=True))) for _ in range(8))
        await asyncio.sleep(seconds)

    for seconds in (0.0, 0.005, 0.02, 0.1):
        asyncio.run(main(seconds))
        assert not rows(world.store, "SELECT 1 FROM attempt WHERE state = 'sent'"), seconds
        assert set(world.states()) <= {"cancelled"}, seconds


# ---- the reader ----


def test_a_replacement_without_a_word_still_replaces(store: Store) -> None:
    """The second attempt asked for a tool: what was heard of the first one is void."""
    mine = opened(store)
    writer = Writer(store)
    writer.append([Piece(mine.job_id, 1, 0, 0, 0, "text", "old words")])
    writer.close()

    async def test() -> list[Any]:
        events = follow(store, mine.job_id, Position())
        seen = [await anext(events)]
        with store.write() as connection:
            connection.exec_driver_sql("UPDATE job SET attempts = 2")
        done = Succeeded(Text("", "tool_calls", tool_calls=[{"name": "f"}]))
        settle(store, [Settlement(mine.job_id, 2, Charge(AttemptState.UNKNOWN), done, logged=True)], NOW)
        return seen + [event async for event in events]

    first, second, *_ = asyncio.run(test())
    assert isinstance(first, Heard)
    assert second == Anew(2)


# ---- the server ----


def test_anthropic_that_never_says_its_final_usage_is_not_charged_for_one_token() -> None:
    wire_ = anthropic_wire.Accumulator()
    usage = {"input_tokens": 10, "output_tokens": 1}
    wire_.feed({"type": "message_start", "message": {"content": [], "usage": usage}})
    wire_.feed({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "fifty words"}})
    wire_.feed({"type": "message_delta", "delta": {"stop_reason": "end_turn"}})
    answer = wire_.finish()
    assert (answer.outcome, answer.usage) == (Outcome.COMPLETE, None)


@pytest.mark.parametrize(("late", "known"), [(False, None), (True, Usage(3, 9))])
def test_a_count_that_came_before_the_last_word_is_no_bill(late: bool, known: Usage | None) -> None:
    wire_ = openai_wire.Accumulator()
    wire_.feed(part("one") | {"usage": {"prompt_tokens": 3, "completion_tokens": 1}})
    wire_.feed(part("two") | ({"usage": {"prompt_tokens": 3, "completion_tokens": 9}} if late else {}))
    wire_.feed(part(finish="stop"))
    assert wire_.finish().usage == known


PINGS = {"openai": wire.sse({"choices": []}), "anthropic": wire.sse({"type": "ping"}, named=True)}


@pytest.mark.parametrize("name", PINGS)
def test_events_without_a_word_keep_nothing_alive(name: str) -> None:
    _, end = ended(name, dripping(PINGS[name], bytes_of(name, "start", "text")), IDLE)
    assert isinstance(end, Answer)
    assert (end.outcome, end.error_code, end.first.text) == (Outcome.TIMED_OUT, "idle_timeout", "he")


@pytest.mark.parametrize("name", PINGS)
def test_nobody_is_sent_on(name: str) -> None:
    """A redirect round in circles cost sixty requests, each of which may have been billed."""
    _, end = ended(name, wire.reply(b"{}", status=302, location="/v1/elsewhere"))
    assert isinstance(end, Permanent)
    assert "set the base URL" in str(end)
