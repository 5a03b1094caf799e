"""Answers while they come: sent as fast as their reader takes them, and given up as soon as the reader has left."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from jobs.follow import Position
from router.web.errors import HTTPError, http_error
from router.web.patience import Patience, Stalled
from router.web.running import Last, News, Seat, Waiting

QUIET_S = 15.0  # after so long a comment says that the stream is alive; its head goes out by then, too
STALLED_S = 120.0  # for a reader that takes nothing more
PATIENCE_S = 10.0  # a client that must wait longer for the next try is told so at once
_HEADERS = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache, no-transform"),
            (b"x-accel-buffering", b"no"))  # fmt: skip

log = logging.getLogger(__name__)


class Form(Protocol):
    """How the pieces of an answer look on the wire."""

    quiet: bytes  # a comment

    def headers(self) -> Mapping[str, str]:
        """What the head says."""

    def open(self) -> bytes:
        """What comes before the first piece."""

    def news(self, burst: Sequence[News]) -> bytes:
        """Pieces; HTTPError where the stream cannot go on."""

    async def last(self, last: Last) -> bytes:
        """The end; HTTPError where the job failed."""

    async def trouble(self, error: HTTPError) -> bytes:
        """An error after the head."""


class Leaving(Response):
    """An answer whose client may leave: then its work is cancelled at once, and `leave` is awaited in every case."""

    def __init__(self, leave: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._leave = leave

    async def work(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, or stop at once when the client leaves."""
        work = asyncio.ensure_future(self.work(scope, receive, send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            work.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await asyncio.wait({work, gone})
            await self._leave()
        if work.done() and not work.cancelled() and (error := work.exception()):
            raise error


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Leaving):
    """Server-sent events. Until the first of them there is time for a status that says what is wrong."""

    def __init__(self, seat: Seat, form: Form, after: Position | None = None) -> None:
        super().__init__(seat.leave)
        self._seat, self._form, self._after = seat, form, after
        self._begun = False
        self._patience = Patience(STALLED_S)

    async def work(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Head, pieces, end."""
        try:
            with self._patience:
                await self._told(scope, receive, send)
        except Stalled:
            log.warning("a reader that took nothing for %g s is given up", STALLED_S)

    async def _told(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._pieces(send)
        except (asyncio.CancelledError, OSError):
            raise
        except Exception as error:
            told = http_error(error)
            if told.status == 500:
                log.exception("a stream broke off")
            if self._begun:
                await self._send(send, await self._form.trouble(told), more=False)
            else:
                await told.response(self._form.headers())(scope, receive, send)

    async def _pieces(self, send: Send) -> None:
        async with aclosing(self._seat.read(self._after, QUIET_S)) as bursts:
            async for burst in bursts:
                last = burst[-1] if burst and isinstance(burst[-1], Last) else None
                piece = self._form.news(burst[:-1] if last else burst) if burst else self._form.quiet
                if piece:
                    await self._send(send, piece)
                if last:
                    await self._send(send, await self._form.last(last), more=False)
                    return

    async def _send(self, send: Send, data: bytes, *, more: bool = True) -> None:
        if not self._begun:
            self._begun = True
            headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in self._form.headers().items()]
            await send({"type": "http.response.start", "status": 200, "headers": [*_HEADERS, *headers]})
            data = self._form.open() + data
        with self._patience.waiting():
            await send({"type": "http.response.body", "body": data, "more_body": more})


class WholeAnswer(Leaving):
    """An answer that is sent once it is there; `made` makes it, HTTPError where there is none."""

    def __init__(self, seat: Seat, made: Callable[[Last], Awaitable[Response]], headers: Mapping[str, str]) -> None:
        super().__init__(seat.leave)
        self._seat, self._made, self._told = seat, made, headers

    async def work(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait for the end of the job, and answer."""
        try:
            response = await self._made(await self._end())
        except (asyncio.CancelledError, OSError):
            raise
        except Exception as error:
            told = http_error(error)
            if told.status == 500:
                log.exception("an answer could not be given")
            response = told.response(self._told)
        await response(scope, receive, send)

    async def _end(self) -> Last:
        async with aclosing(self._seat.read()) as bursts:
            async for burst in bursts:
                for one in burst:
                    if isinstance(one, Waiting):
                        check_patience(one)
                    if isinstance(one, Last):
                        return one
        return Last()


def check_patience(waiting: Waiting) -> None:
    """HTTPError with Retry-After where the provider asks for more patience than a waiting client has."""
    error = waiting.ended.error
    asked = getattr(error, "retry_after", None)
    if error is not None and asked is not None and asked > PATIENCE_S:
        raise http_error(error)
