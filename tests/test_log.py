"""The log of deltas: every word in order and soon, for readers at any offset, and never in a reader's way."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from statistics import median
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db import engine, log, queue, settle
from db.engine import Store, connect
from db.ledger import Charge
from db.log import Piece, Tail, Writer
from db.queue import Claim
from db.settle import Cancelled, Failed, Held, Settlement, Succeeded, Text
from db.states import AttemptState, CostSource
from jobs.chat import Delta
from jobs.log import Entry, Log
from tests.lanes import NOW, World, rows
from tests.stream_wire import run
from tests.streams import LONG, begun, claim, come, locked, logged, opened, process, size, tail

PAID = Charge(AttemptState.OK, 700, CostSource.COMPUTED)


@pytest.fixture
def writing(store: Store) -> Iterator[Log]:
    made = Log(store)
    yield made
    asyncio.run(made.close())


def begin(store: Store, writing: Log) -> tuple[Claim, Entry]:
    mine = opened(store)
    return mine, writing.open(mine.job_id, mine.n)


def end(store: Store, mine: Claim, ending: Any, charge: Charge = PAID) -> None:
    settle.settle(store, [Settlement(mine.job_id, mine.n, charge, ending, logged=True)], NOW)


def shape(pieces: list[Piece]) -> list[tuple[int, str, str]]:
    """Pieces as choice, kind and text, joined over the borders of groups."""
    runs = groupby(pieces, key=lambda piece: (piece.choice, piece.kind))
    return [(*which, "".join(piece.text for piece in run)) for which, run in runs]


def spoken(deltas: list[Delta]) -> list[tuple[int, str, str]]:
    """The same of deltas, by a plain reading of what the log should hold."""
    said = [(delta.choice, kind, getattr(delta, kind))
            for delta in deltas for kind in ("reasoning", "text", "refusal") if getattr(delta, kind)]  # fmt: skip
    runs = groupby(said, key=lambda one: one[:2])
    return [(*which, "".join(text for *_, text in run)) for which, run in runs]


# ---- what is written ----


def test_deltas_that_come_together_are_one_piece(store: Store, writing: Log) -> None:
    mine, entry = begin(store, writing)
    for text in ("The ", "wagons ", "arrive"):
        entry.add(Delta(text))
    assert come(store, mine.job_id, 17) == [Piece(mine.job_id, 1, 0, 0, 0, "text", "The wagons arrive")]


@pytest.mark.both
def test_kinds_and_choices_are_kept_apart_in_their_order(store: Store, writing: Log) -> None:
    mine, entry = begin(store, writing)
    for delta in (
        Delta(reasoning="hm"),
        Delta("a"),
        Delta("b", choice=1),
        Delta("cd"),
        Delta(refusal="no"),
        Delta("e"),
    ):
        entry.add(delta)
    assert come(store, mine.job_id, 9) == [
        Piece(mine.job_id, 1, 0, 0, 0, "reasoning", "hm"),
        Piece(mine.job_id, 1, 2, 0, 0, "text", "a"),
        Piece(mine.job_id, 1, 3, 1, 1, "text", "b"),
        Piece(mine.job_id, 1, 4, 1, 0, "text", "cd"),
        Piece(mine.job_id, 1, 6, 3, 0, "refusal", "no"),
        Piece(mine.job_id, 1, 8, 3, 0, "text", "e"),
    ]


def test_a_delta_of_a_call_alone_is_no_piece(store: Store, writing: Log) -> None:
    mine, entry = begin(store, writing)
    entry.add(Delta())
    entry.add(Delta("x"))
    assert len(come(store, mine.job_id, 1)) == 1


def test_a_word_is_there_at_once(store: Store, writing: Log) -> None:
    """At most 50 ms behind on an idle machine; the bound here is for a busy one."""
    (mine, entry), took = begin(store, writing), []
    for number in range(1, 6):
        asked = time.monotonic()
        entry.add(Delta("x"))
        come(store, mine.job_id, number)
        took.append(time.monotonic() - asked)
    assert median(took) < 0.5


@pytest.mark.both
def test_many_attempts_share_the_writer_and_keep_their_own_words(store: Store, writing: Log) -> None:
    mine = [begin(store, writing) for _ in range(5)]
    for _ in range(20):
        for number, (_, entry) in enumerate(mine):
            entry.add(Delta(str(number)))
    for number, (one, _) in enumerate(mine):
        assert shape(come(store, one.job_id, 20)) == [(0, "text", str(number) * 20)]
    assert sum(thread.name == "delta-log" for thread in threading.enumerate()) == 1


# ---- what is read ----


texts = st.text(st.characters(codec="utf-8"), max_size=6)
deltas = st.builds(Delta, texts, texts, texts, st.integers(0, 2), st.just(()), st.none())


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(deltas, st.sampled_from([0, 0, 0, 0, 0.04])), max_size=20))
def test_the_tail_from_any_offset_gives_back_the_whole(
    store: Store, writing: Log, said: list[tuple[Delta, float]]
) -> None:
    mine, entry = begin(store, writing)
    for delta, pause in said:
        entry.add(delta)
        time.sleep(pause)
    pieces = come(store, mine.job_id, sum(len(text) for *_, text in spoken([delta for delta, _ in said])))
    assert shape(pieces) == spoken([delta for delta, _ in said])
    whole = "".join(piece.text for piece in pieces)
    for seq in range(len(whole) + 1):
        rest = tail(store, mine.job_id, 1, seq).pieces
        assert whole[:seq] + "".join(piece.text for piece in rest)[seq - rest[0].seq if rest else 0 :] == whole
    for piece in pieces:
        before = "".join(one.text for one in pieces if one.seq < piece.seq and (one.choice, one.kind) == (0, "text"))
        assert piece.position == len(before)


def test_an_offset_of_another_attempt_gets_the_newest_whole(store: Store, writing: Log) -> None:
    mine, entry = begin(store, writing)
    entry.add(Delta("hello"))
    come(store, mine.job_id, 5)
    assert [piece.text for piece in tail(store, mine.job_id, attempt=7, seq=4).pieces] == ["hello"]


def test_there_is_no_tail_of_no_job(store: Store) -> None:
    assert log.tail(store, "nobody", 1, 0) is None


@pytest.mark.both
def test_the_stored_result_serves_after_the_end(store: Store, writing: Log) -> None:
    mine, entry = begin(store, writing)
    entry.add(Delta("hello"))
    come(store, mine.job_id, 5)
    end(store, mine, Succeeded(Text("hello", "stop")))
    for seq in range(6):
        assert tail(store, mine.job_id, 1, seq) == Tail("succeeded", 1, (), "hello")  # type: ignore[arg-type]


def test_while_another_attempt_replaces_it_a_partial_text_does_not_serve(store: Store, writing: Log) -> None:
    mine, _ = begin(store, writing)
    end(store, mine, Held(Text("ha", partial=True)), Charge(AttemptState.UNKNOWN))
    assert tail(store, mine.job_id).stored == "ha"
    second = queue.again(store, mine, NOW)
    assert second is not None
    writing.open(second.job_id, second.n).add(Delta("hello"))
    come(store, mine.job_id, 5)
    found = tail(store, mine.job_id, attempt=1, seq=2)
    assert (found.attempt, found.stored, [piece.text for piece in found.pieces]) == (2, None, ["hello"])


# ---- what is dropped ----


@pytest.mark.both
@pytest.mark.parametrize(
    "ending", [Succeeded(Text("he", "stop")), Failed("cut", "cut", Text("he")), Cancelled(Text("he"))]
)
def test_the_settlement_prunes_the_log(store: Store, writing: Log, ending: Any) -> None:
    other, noise = begin(store, writing)
    mine, entry = begin(store, writing)
    for each in (noise, entry):
        each.add(Delta("he"))
    come(store, other.job_id, 2)
    come(store, mine.job_id, 2)
    end(store, mine, ending)
    assert rows(store, "SELECT DISTINCT job_id FROM delta") == [(other.job_id,)]


@pytest.mark.both
def test_what_comes_after_the_settlement_is_dropped(store: Store) -> None:
    mine, other = opened(store), opened(store)
    end(store, mine, Succeeded(Text("he", "stop")))
    writer = Writer(store)
    writer.append([Piece(one.job_id, 1, 0, 0, 0, "text", "he") for one in (mine, other)])
    writer.close()
    assert rows(store, "SELECT job_id FROM delta") == [(other.job_id,)]


@pytest.mark.both
def test_nothing_of_a_job_is_left_when_it_has_its_answer(world: World) -> None:
    async def test() -> None:
        async with process(world) as context:
            events, _ = await begun(context, claim(world, context))
            assert [event async for event in events]

    run(test)
    assert logged(world.store) == 0
    assert world.states() == {"succeeded": 1}


# ---- a database that is busy, full or slow ----


@pytest.mark.both
def test_a_locked_database_slows_no_writer_of_deltas_and_loses_nothing(store: Store, writing: Log) -> None:
    mine, entry = begin(store, writing)
    with locked(store) as release:
        asked = time.monotonic()
        for _ in range(200):
            for _ in range(50):
                entry.add(Delta("x"))
            time.sleep(0.0005)  # the writer has its turn, and waits for the lock
        assert time.monotonic() - asked < 2.0
        assert size(store, mine.job_id) == 0
        release()
    assert shape(come(store, mine.job_id, 10_000)) == [(0, "text", "x" * 10_000)]


def test_a_locked_database_slows_no_reader(world: World) -> None:
    async def test() -> None:
        async with process(world) as context:
            claimed = claim(world, context, LONG)
            with locked(world.store) as release:
                events, shown = await begun(context, claimed, 900)
                assert len(shown.split()) == 900
                release()
                assert [type(event).__name__ async for event in events] == ["Ended"]
            assert world.job(claimed.job_id)["text"] == shown

    run(test)
    world.even()


def failing(store: Store, monkeypatch: pytest.MonkeyPatch, then: Callable[[Entry], None]) -> str:
    """What the log holds after a write that failed, not one that waited: the database was locked for too long."""
    monkeypatch.setattr(engine, "BUSY_MS", 20)
    impatient = connect(store.url)
    mine = opened(store)
    writing = Log(impatient)
    entry = writing.open(mine.job_id, 1)
    try:
        with locked(store):
            entry.add(Delta("hel"))
            time.sleep(0.4)
        then(entry)
        time.sleep(0.4)
        return "".join(piece.text for piece in tail(store, mine.job_id).pieces)
    finally:
        asyncio.run(writing.close())
        impatient.close()


def test_a_write_that_failed_is_made_up_for_by_the_next(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert failing(store, monkeypatch, lambda entry: entry.add(Delta("lo"))) == "hello"


def test_a_write_that_failed_is_made_up_for_when_nothing_more_comes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert failing(store, monkeypatch, lambda entry: None) == "hel"


def test_an_attempt_may_end_while_its_last_deltas_are_taken(store: Store) -> None:
    writing, usual = Log(store), sys.getswitchinterval()
    asyncio.run(writing.close())  # so that nobody takes them but the thread below
    sys.setswitchinterval(1e-6)  # threads take turns as often as they can
    try:
        with ThreadPoolExecutor(1) as another:
            for _ in range(300):
                entry, ready = Entry(writing, "nobody", 1), threading.Event()
                for _ in range(500):
                    entry.add(Delta("x"))
                taking = another.submit(lambda entry=entry, ready=ready: (ready.set(), entry.take()))
                ready.wait()
                entry.close()
                taking.result()
    finally:
        sys.setswitchinterval(usual)
