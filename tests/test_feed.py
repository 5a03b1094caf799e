"""What happens to one job, for any number of readers who come and go as they like."""

import asyncio
import random
from collections.abc import AsyncGenerator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.chat import Delta
from jobs.runner import Event
from jobs.stream import Feed
from tests.stream_wire import run

ABC = [Delta("a"), Delta("b"), Delta("c")]


async def every(feed: Feed) -> list[Event]:
    return [event async for event in feed.read()]


def test_a_reader_gets_everything_in_order() -> None:
    async def test() -> None:
        feed = Feed()
        reading = asyncio.create_task(every(feed))
        for delta in ABC:
            feed.put(delta)
            await asyncio.sleep(0)
        feed.end()
        assert await reading == ABC

    run(test)


def test_who_joins_late_hears_it_from_the_beginning_on() -> None:
    async def test() -> None:
        feed = Feed()
        for delta in ABC:
            feed.put(delta)
        first = feed.read()
        assert [await anext(first) for _ in ABC] == ABC
        feed.end()
        assert [event async for event in first] == []
        assert await every(feed) == ABC, "after the end, too"

    run(test)


def test_a_reader_who_leaves_takes_nothing_from_one_who_stays() -> None:
    async def test() -> None:
        feed = Feed()
        stays, leaves = asyncio.create_task(every(feed)), feed.read()
        cancelled = asyncio.create_task(every(feed))
        feed.put(ABC[0])
        assert await anext(leaves) == ABC[0]
        await leaves.aclose()
        cancelled.cancel()
        for delta in ABC[1:]:
            feed.put(delta)
        feed.end()
        assert await stays == ABC

    run(test)


def test_a_slow_reader_holds_up_nobody() -> None:
    async def test() -> None:
        feed, slow = Feed(), None
        slow = feed.read()
        feed.put(ABC[0])
        await anext(slow)  # and then it thinks
        quick = asyncio.create_task(every(feed))
        for delta in ABC[1:]:
            feed.put(delta)
        feed.end()
        assert await quick == ABC
        assert [event async for event in slow] == ABC[1:]

    run(test)


def test_an_error_is_heard_by_all_after_what_came_before_it() -> None:
    async def test() -> None:
        feed = Feed()
        feed.put(ABC[0])
        readers = [feed.read(), feed.read()]
        feed.end(RuntimeError("the disk is full"))
        for reader in [*readers, feed.read()]:
            assert await anext(reader) == ABC[0]
            with pytest.raises(RuntimeError, match="the disk is full"):
                await anext(reader)

    run(test)


@given(st.lists(st.sampled_from(["put", "join", "turn"]), max_size=40), st.randoms(use_true_random=False))
def test_any_reader_at_any_time_gets_the_same(steps: list[str], dice: random.Random) -> None:
    async def dawdle(events: AsyncGenerator[Event, None]) -> list[Event]:
        found = []
        async for event in events:
            found.append(event)
            if dice.random() < 0.3:
                await asyncio.sleep(0)
        return found

    async def test() -> None:
        feed, readers, said = Feed(), [], []
        for step in steps:
            match step:
                case "put":
                    said.append(Delta(str(len(said))))
                    feed.put(said[-1])
                case "join":
                    readers.append(asyncio.create_task(dawdle(feed.read())))
                case "turn":
                    await asyncio.sleep(0)
        feed.end()
        assert all(found == said for found in await asyncio.gather(*readers))

    run(test)
