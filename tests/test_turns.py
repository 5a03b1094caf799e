"""Writers of one SQLite file: one at a time, and those that have no time to wait are told so before anything began."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

import pytest
from sqlalchemy import text

from db import facts
from db.engine import BUSY_MS, Store, StoreBusy
from jobs.together import Together
from tests.lanes import World, rows


@contextmanager
def another_process(store: Store) -> Iterator[None]:
    """Holds the file's write lock, as seen from this process."""
    with closing(sqlite3.connect(str(store.path), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def another_thread(store: Store) -> Iterator[None]:
    """Is in the middle of a transaction."""
    begun, go = threading.Event(), threading.Event()

    def work() -> None:
        with store.write() as connection:
            connection.execute(text("INSERT INTO setting VALUES ('other', 'here')"))
            begun.set()
            assert go.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(10)
    yield
    go.set()
    thread.join()


def fails(store: Store, *steps: Callable[[], None]) -> None:
    """Does these as one, and then something that cannot be done."""
    with store.as_one():
        for step in steps:
            step()
        raise ZeroDivisionError


@pytest.mark.parametrize("other", [another_process, another_thread])
def test_a_hurried_write_does_not_wait(store: Store, other: "type[another_thread]") -> None:
    with other(store):
        with store.hurried(), pytest.raises(StoreBusy):
            facts.put(store, "mine", "here")
        assert facts.get(store, "mine") is None
    with store.hurried():
        facts.put(store, "mine", "now")
    assert facts.get(store, "mine") == "now"


def test_what_is_written_as_one_is_there_at_once_or_not_at_all(store: Store) -> None:
    with store.as_one():
        facts.put(store, "first", "here")
        facts.put(store, "second", "here")
        assert facts.get(store, "first") is None  # as any other reader sees it
    assert (facts.get(store, "first"), facts.get(store, "second")) == ("here", "here")
    with pytest.raises(ZeroDivisionError):
        fails(store, lambda: facts.put(store, "first", "changed"))
    assert facts.get(store, "first") == "here"
    facts.put(store, "first", "after it")
    assert facts.get(store, "first") == "after it"


def test_another_thread_is_no_part_of_it(store: Store) -> None:
    """It waits for its own turn, and keeps what it wrote."""
    theirs = threading.Thread(target=facts.put, args=(store, "theirs", "here"))
    with pytest.raises(ZeroDivisionError):
        fails(store, theirs.start, lambda: facts.put(store, "mine", "here"))
    theirs.join(10)
    assert (facts.get(store, "mine"), facts.get(store, "theirs")) == (None, "here")


def test_after_it_there_is_patience_again(store: Store) -> None:
    with another_process(store), store.hurried(), pytest.raises(StoreBusy):
        facts.put(store, "mine", "here")
    with store.write() as connection:
        assert connection.scalar(text("PRAGMA busy_timeout")) == BUSY_MS
    with another_thread(store):
        late = threading.Thread(target=facts.put, args=(store, "mine", "late"))
        late.start()
    late.join()
    assert facts.get(store, "mine") == "late"


@pytest.mark.parametrize("other", [another_process, another_thread])
def test_a_prompt_write_that_must_wait_leaves_the_event_loop_alone(world: World, other: "type[another_thread]") -> None:
    async def work() -> tuple[bool, str]:
        context = world.context()
        with other(world.store):
            late = asyncio.ensure_future(context.promptly(facts.put, "mine", "late"))
            await asyncio.sleep(0.05)
            waits = not late.done()
        await late
        here = asyncio.ensure_future(context.promptly(facts.put, "mine", "now"))
        await asyncio.sleep(0)
        return waits, "done at once" if here.done() else "in a thread"

    assert asyncio.run(work()) == (True, "done at once")
    assert facts.get(world.store, "mine") == "now"


def test_what_breaks_in_a_hurried_write_is_undone(store: Store) -> None:
    def half() -> None:
        with store.write() as connection:
            connection.execute(text("INSERT INTO setting VALUES ('mine', 'half')"))
            raise ZeroDivisionError

    with store.hurried(), pytest.raises(ZeroDivisionError):
        half()
    assert facts.get(store, "mine") is None


def test_nobody_hurries_the_disk(store: Store) -> None:
    with store.hurried(), pytest.raises(StoreBusy), store.write(durable=True):
        pass


def test_a_hurry_is_of_one_thread(store: Store) -> None:
    with another_thread(store), store.hurried():
        late = threading.Thread(target=facts.put, args=(store, "mine", "late"))
        late.start()
    late.join()
    assert facts.get(store, "mine") == "late"


@pytest.mark.both
def test_only_a_file_is_written_at_once(store: Store) -> None:
    with store.hurried() as short:
        assert short is (store.path is not None)


# ---- in an event loop ----


def put_all(store: Store, where: list[str], keys: Sequence[str]) -> Sequence[str]:
    where.append(threading.current_thread().name)
    for key in keys:
        facts.put(store, key, "here")
    return [key.upper() for key in keys]


async def put(store: Store, where: list[str], *keys: str, small: bool = True) -> list[str]:
    queue: Together[str, str] = Together(lambda page: put_all(store, where, page), lambda: store)
    return [await one for one in [queue(key, small=small) for key in keys]]


def test_what_need_not_wait_is_done_where_it_was_asked_for(store: Store) -> None:
    where: list[str] = []
    assert asyncio.run(put(store, where, "a", "b")) == ["A", "B"]
    assert where == [threading.current_thread().name] * 2


@pytest.mark.parametrize("small", [True, False])
def test_what_must_wait_does_so_in_a_thread(store: Store, *, small: bool) -> None:
    async def beside() -> tuple[list[str], int]:
        """The event loop turns while the write waits."""
        holding = another_process(store)
        holding.__enter__()
        putting = asyncio.ensure_future(put(store, where, "a", "b", small=small))
        for _ in range(20):
            await asyncio.sleep(0.005)
        waited = len(rows(store, "SELECT 1 FROM setting WHERE key IN ('a', 'b')"))
        holding.__exit__(None, None, None)
        return await putting, waited

    where: list[str] = []
    assert asyncio.run(beside()) == (["A", "B"], 0)
    assert rows(store, "SELECT count(*) FROM setting WHERE key IN ('a', 'b')")[0][0] == 2
    assert where[-1] != threading.current_thread().name
