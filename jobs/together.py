"""What comes at the same time is done at once: one transaction for sixteen requests costs little more than for one."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from db.engine import Store, StoreBusy

T = TypeVar("T")
R = TypeVar("R")
Future = asyncio.Future
MOST = 200  # items at once


class Together(Generic[T, R]):
    """Calls to `work`, which takes a list and says of each item what came of it, an exception being raised there.

    A call that comes alone is done at once; those that come meanwhile are done together after it, in a thread. While
    `quiet` gives a database, and its writes are short, each is done right here, unless it would have to wait for
    another's write: to hand it to a thread, and its result back, takes as long as to do it. Futures and no tasks:
    whoever ends an event loop cancels every task in it.
    """

    def __init__(self, work: "Callable[[Sequence[T]], Sequence[R | Exception]]",
                 quiet: "Callable[[], Store | None]" = lambda: None) -> None:  # fmt: skip
        self._work, self._quiet = work, quiet
        self._waiting: WeakKeyDictionary[asyncio.AbstractEventLoop, list[tuple[T, Future[R]]]] = WeakKeyDictionary()
        self._busy: WeakKeyDictionary[asyncio.AbstractEventLoop, bool] = WeakKeyDictionary()

    def __call__(self, item: T, *, small: bool = True) -> "Future[R]":
        """What came of the item; one that is not `small` keeps a thread busy, and not the event loop."""
        loop = asyncio.get_running_loop()
        future: Future[R] = loop.create_future()
        if small and not self._busy.get(loop) and self._here(item, future):
            return future
        self._waiting.setdefault(loop, []).append((item, future))
        if not self._busy.get(loop):
            self._next(loop)
        return future

    def _here(self, item: T, future: "Future[R]") -> bool:
        """Whether it could be done without waiting for anybody."""
        if (store := self._quiet()) is None:
            return False
        with store.hurried() as short:
            if not short:
                return False
            try:
                [came] = self._work([item])
            except StoreBusy:
                return False
            except Exception as error:
                came = error
        if isinstance(came, StoreBusy):
            return False
        _tell(future, came)
        return True

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting = self._waiting[loop]
        page, self._waiting[loop] = waiting[:MOST], waiting[MOST:]
        self._busy[loop] = bool(page)
        if page:
            running = loop.run_in_executor(None, self._work, [item for item, _ in page])
            running.add_done_callback(partial(self._done, loop, page))

    def _done(
        self,
        loop: asyncio.AbstractEventLoop,
        page: "Sequence[tuple[T, Future[R]]]",
        running: "Future[Sequence[R | Exception]]",
    ) -> None:
        for (_, future), came in zip(page, _results(running, len(page)), strict=True):
            if not future.done():  # else nobody waits for it
                _tell(future, came)
        with suppress(RuntimeError):  # a loop that has ended takes no more
            self._next(loop)


def _tell(future: "Future[R]", came: R | BaseException) -> None:
    if isinstance(came, BaseException):
        future.set_exception(came)
    else:
        future.set_result(came)


def _results(running: "Future[Any]", count: int) -> Sequence[Any]:
    if running.cancelled():
        return [asyncio.CancelledError()] * count
    if error := running.exception():
        return [error] * count
    came: Sequence[Any] = running.result()
    return came


def each(work: Callable[[T], R], items: Sequence[T]) -> "list[R | Exception]":
    """One after the other: what came of each."""
    came: list[R | Exception] = []
    for item in items:
        try:
            came.append(work(item))
        except Exception as error:
            came.append(error)
    return came
