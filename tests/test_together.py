"""What comes at the same time is done at once, and each hears what came of its own."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from jobs import together
from jobs.together import Together, each


class Work:
    """Doubles numbers, a page at a time, while it is let; -1 cannot be doubled, and 0 breaks the page."""

    def __init__(self) -> None:
        self.pages: list[list[int]] = []
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, items: Sequence[int]) -> Sequence[int | Exception]:
        self.pages.append([*items])
        self.begun.set()
        assert self.go.wait(10)
        if 0 in items:
            raise ZeroDivisionError
        return [ValueError("no") if item == -1 else item * 2 for item in items]


async def came(work: Work, *items: int) -> list[int | BaseException]:
    """The first item alone, then all others at once."""
    queue: Together[int, int] = Together(work)
    first = queue(items[0])
    await asyncio.to_thread(work.begun.wait, 10)
    rest = [queue(item) for item in items[1:]]
    work.go.set()
    return await asyncio.gather(first, *rest, return_exceptions=True)


def test_what_comes_while_one_is_done_is_done_together_after_it() -> None:
    work = Work()
    assert asyncio.run(came(work, 1, 2, 3, 4)) == [2, 4, 6, 8]
    assert work.pages == [[1], [2, 3, 4]]


def test_a_page_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "MOST", 2)
    work = Work()
    assert asyncio.run(came(work, 1, 2, 3, 4)) == [2, 4, 6, 8]
    assert work.pages == [[1], [2, 3], [4]]


def test_a_refusal_is_its_own_and_a_break_is_of_all_in_the_page() -> None:
    one, two = Work(), Work()
    refused = asyncio.run(came(one, 1, -1, 3))
    assert (refused[0], type(refused[1]), refused[2]) == (2, ValueError, 6)
    broken = asyncio.run(came(two, 1, 0, 3))
    assert [type(item) for item in broken] == [int, ZeroDivisionError, ZeroDivisionError]


def test_who_leaves_takes_nothing_from_the_others() -> None:
    async def leaves(work: Work) -> list[int]:
        queue: Together[int, int] = Together(work)
        first, gone, last = queue(1), queue(2), queue(3)
        gone.cancel()
        work.go.set()
        return [await first, await last]

    work = Work()
    assert asyncio.run(leaves(work)) == [2, 6]
    assert work.pages == [[1], [2, 3]]  # what was asked for is done all the same


def test_a_loop_that_comes_later_begins_anew() -> None:
    work = Work()
    work.go.set()
    queue: Together[int, int] = Together(work)

    async def one(item: int) -> int:
        return await queue(item)

    assert [asyncio.run(one(item)) for item in (1, 2)] == [2, 4]


def test_each_of_a_list_hears_of_its_own() -> None:
    assert [type(item) for item in each(lambda n: 1 // n, [1, 0, 2])] == [int, ZeroDivisionError, int]
