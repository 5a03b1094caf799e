"""One moving line on stderr that says how far the work is; only where a person looks, and gone before other words."""

import asyncio
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from time import monotonic

from db.engine import Store
from db.progress import Progress, progress
from router.figures import count, money
from router.statusline import columns, in_front
from router.terminal import clean, tolerant
from router.when import span

_EVERY_S = 0.5
_READ_S = 2.0
_SHARE = 5  # the counts are read again after so many times as long as it took to read them
_RATE_S = 10.0  # over which calls a second are counted


class Watch:
    """What is done, as it is done."""

    def __init__(self, store: Store) -> None:
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self._moves = sys.stderr.isatty() and not plain
        self._store = store
        self._since = datetime.now(UTC)
        self._began = monotonic()
        self._calls: deque[float] = deque()
        self._all = 0
        self._far: Progress | None = None
        self._drawn = False

    def call(self) -> None:
        """A live call has ended."""
        self._all += 1
        self._calls.append(monotonic())

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Make room for what is said above the line."""
        shown = self._drawn
        self._erase()
        yield
        if shown:
            self._draw()

    @asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Show the line while the block runs."""
        drawing = asyncio.create_task(self._on()) if self._moves else None
        try:
            yield
        finally:
            if drawing:
                drawing.cancel()
                await asyncio.gather(drawing, return_exceptions=True)
            self._erase()

    async def _on(self) -> None:
        reading = asyncio.create_task(self._read())
        try:
            while True:
                self._draw()
                await asyncio.sleep(_EVERY_S)
        finally:
            reading.cancel()

    async def _read(self) -> None:
        while True:
            began = monotonic()
            with suppress(Exception):  # then the line shows what was known before
                self._far = await asyncio.to_thread(progress, self._store, datetime.now(UTC), self._since)
            await asyncio.sleep(max(_READ_S, (monotonic() - began) * _SHARE))

    def _draw(self) -> None:
        if self._moves and in_front():
            words = clean(self.line())[: columns(sys.stderr) - 1]
            tolerant(sys.stderr).write(f"\r{words}\x1b[K")
            sys.stderr.flush()
            self._drawn = True

    def _erase(self) -> None:
        if self._drawn:
            self._drawn = False
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def line(self) -> str:
        """`1,200 of 5,000 rows in 2 batches · 80 calls, 12/s · $0.42`; what there is none of is left out."""
        far = self._far
        parts = []
        if far and far.batches:
            left = f", about {span((far.eta - datetime.now(UTC)).total_seconds())} to go" if far.eta else ""
            batches = "1 batch" if far.batches == 1 else f"{far.batches:,} batches"
            parts.append(f"{far.done:,} of {far.rows:,} rows in {batches}{left}")
        if self._all:
            parts.append(f"{count(self._all, 'call')}{self._rate()}")
        if far and far.live:
            parts.append(f"{far.live:,} live to go")
        if far and far.waiting:
            parts.append(f"{far.waiting:,} wait for a batch")
        if far and far.cost_nano:
            parts.append(money(f"{far.cost_nano / 1e9:.9f}"))
        return " · ".join(parts) or "nothing is due"

    def _rate(self) -> str:
        now = monotonic()
        while self._calls and self._calls[0] < now - _RATE_S:
            self._calls.popleft()
        seconds = min(_RATE_S, now - self._began)
        return f", {len(self._calls) / seconds:,.0f}/s" if self._calls and seconds > 1 else ""
