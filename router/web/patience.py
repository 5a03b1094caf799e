"""How long a writer waits for a reader that takes nothing more."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType


class Stalled(Exception):
    """A reader takes nothing more."""


class Patience:
    """Ends the task that is in its block with Stalled, once it has waited so long at one thing.

    One timer for all of them: one for each piece of an answer would cost more than sending it.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since = 0.0
        self._out = False

    def __enter__(self) -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None

        def look() -> None:
            left = self._since + self._seconds - loop.time() if self._since else self._seconds
            if left > 0:
                self._timer = loop.call_later(left, look)
            else:
                self._out = task.cancel()

        self._timer = loop.call_later(self._seconds, look)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._timer.cancel()
        if self._out and isinstance(error, asyncio.CancelledError):
            raise Stalled from None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The one thing."""
        self._since = asyncio.get_running_loop().time()
        yield
        self._since = 0.0
