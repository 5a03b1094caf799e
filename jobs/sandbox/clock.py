"""The sandbox's own time, which an admin call can move forward."""

import asyncio
import contextlib
import time
from collections.abc import Callable


class Clock:
    """Wall time plus an offset; whoever waits is woken when the offset moves or `ring` is called."""

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset
        self._bell = asyncio.Event()
        self._waiting: dict[object, tuple[float, Callable[[], bool]]] = {}

    def now(self) -> float:
        return time.time() + self.offset

    def advance(self, seconds: float) -> None:
        self.offset += seconds
        self.ring()

    def ring(self) -> None:
        self._bell.set()
        self._bell = asyncio.Event()

    async def until(self, at: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Back when it is `at`, or when `enough` holds at a ring."""
        ticket = object()
        self._waiting[ticket] = (at, enough)
        try:
            while (left := at - self.now()) > 0 and not enough():
                bell = self._bell
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, 3600.0)):
                        await bell.wait()
        finally:
            del self._waiting[ticket]

    def asleep(self) -> int:
        """How many wait for a time that has not come."""
        now = self.now()
        return sum(at > now and not enough() for at, enough in self._waiting.values())
