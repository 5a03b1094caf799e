"""Values that are looked at again and again while somebody reads along: once for all readers, and sent when changed."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

EVERY_S = 1.0
QUIET_S = 15.0  # after which a reader is sent a comment, so that nothing on the way takes the line for dead
_SHARE = 5  # the next look comes after so many times as long as the last one took

Look = Callable[[], bytes]


class Watches:
    """What is read along, by name."""

    def __init__(self) -> None:
        self._watches: dict[str, Watch] = {}

    async def read(self, name: str, look: Look, over: Callable[[], bool]) -> AsyncGenerator[bytes | None, None]:
        """The value at once and whenever it is another one, until all is over; None when it was the same for long.

        What `look` raises is raised in every reader.
        """
        watch = self._watches.get(name)
        if watch is None:
            watch = self._watches[name] = Watch(look)
        watch.readers += 1
        try:
            shown, said = None, time.monotonic()
            while not over():
                value = await watch.other_than(shown)
                if value is not None or time.monotonic() - said > QUIET_S:
                    shown, said = value or shown, time.monotonic()
                    yield value
        finally:
            watch.readers -= 1
            if not watch.readers:
                watch.close()
                if self._watches.get(name) is watch:
                    del self._watches[name]


class Watch:
    """One value and its readers. A slow one misses versions in between: nothing is kept for it."""

    def __init__(self, look: Look) -> None:
        self.readers = 0
        self._look = look
        self._value: bytes | None = None
        self._changed = asyncio.Event()
        self._looking = asyncio.create_task(self._keep_looking())

    async def other_than(self, shown: bytes | None) -> bytes | None:
        """The next value that is not this one; None after a moment without."""
        if self._value is None or self._value == shown:
            waiting = asyncio.ensure_future(self._changed.wait())
            try:
                await asyncio.wait({waiting, self._looking}, timeout=EVERY_S, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
        if self._looking.done():
            self._looking.result()
        return self._value if self._value != shown else None

    async def _keep_looking(self) -> None:
        while True:
            began = time.monotonic()
            value = await asyncio.to_thread(self._look)
            if value != self._value:
                self._value = value
                changed, self._changed = self._changed, asyncio.Event()
                changed.set()
            await asyncio.sleep(max(EVERY_S, (time.monotonic() - began) * _SHARE))

    def close(self) -> None:
        """Nobody reads any more."""
        self._looking.cancel()
        if self._looking.done():
            with suppress(asyncio.CancelledError):
                self._looking.exception()  # its readers have heard of it
