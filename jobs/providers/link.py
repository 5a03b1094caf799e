"""HTTP/1.1 on one connection: httptools reads, the event loop carries, and every trouble is an error of httpx2's.

httpx2's own transport takes 1.1 ms of CPU for a short call, this one 0.1: a gateway makes one for each request.
"""

import asyncio
import re
import select
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import httptools
import httpx2

from jobs.clock import Stopwatch

HELD = 256 * 1024  # bytes of a body that are taken in before they are read
_ALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)] + [
    (socket.IPPROTO_TCP, getattr(socket, name), value)  # a long answer may be silent for minutes
    for name, value in (("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5), ("TCP_KEEPIDLE", 60))
    if hasattr(socket, name)
]
_ILLEGAL = re.compile(rb"[\r\n\x00]")

Headers = Iterable[tuple[bytes, bytes]]
Timeouts = Mapping[str, float | None]  # httpx2's: seconds by connect, read and write


class Origin(NamedTuple):
    """Where a connection goes."""

    host: str
    port: int
    tls: bool


class Head(NamedTuple):
    """The first part of a response."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]


class Link(asyncio.Protocol):
    """One connection, which carries one request at a time."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self._parser = httptools.HttpResponseParser(self)
        self._poll = select.poll()
        self._bell: asyncio.Future[None] | None = None
        self._error: httpx2.HTTPError | None = None
        self._can_write = True
        self._paused = False
        self._over = False  # it carries nothing more
        self._begin()

    @property
    def idle(self) -> bool:
        """Whether the last response is whole, and another request can be sent."""
        return self._whole and not self._over

    @property
    def alive(self) -> bool:
        """Whether it is idle, and the other side has not closed it behind the event loop's back."""
        return self.idle and not self._poll.poll(0)

    def _begin(self) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._head: Head | None = None
        self._pieces: list[bytes] = []
        self._held = 0
        self._whole = False

    @classmethod
    async def open(
        cls,
        origin: Origin,
        trust: Callable[[], ssl.SSLContext],
        seconds: float | None,
        watch: Stopwatch | None = None,
    ) -> "Link":
        """A new connection; httpx2.ConnectError, or ConnectTimeout after so many seconds. Only TLS asks for `trust`."""
        if watch is not None:
            watch.connecting()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                transport, link = await loop.create_connection(
                    lambda: cls(origin), origin.host, origin.port, ssl=trust() if origin.tls else None
                )
        except TimeoutError:
            raise httpx2.ConnectTimeout(f"no connection within {seconds} s") from None
        except (OSError, UnicodeError) as error:
            raise httpx2.ConnectError(str(error)) from error
        carrier = transport.get_extra_info("socket")
        link._poll.register(carrier.fileno(), select.POLLIN)
        for option in _ALIVE:
            carrier.setsockopt(*option)
        if watch is not None:
            watch.connected()
        return link

    async def send(
        self,
        first: bytes,
        headers: Headers,
        body: bytes | AsyncIterator[bytes],
        timeouts: Timeouts,
        watch: Stopwatch | None = None,
    ) -> Head:
        """Send a request, and wait for the head of its response. `first` is its first line, without the end."""
        self._begin()
        lines = [first, *(b"%b: %b" % header for header in headers)]
        if any(map(_ILLEGAL.search, lines)):
            raise httpx2.LocalProtocolError("a header has a line break in it")
        head = b"\r\n".join((*lines, b"", b""))
        if watch is not None:
            watch.sent()
        if isinstance(body, bytes):
            self._carrier.write(head + body)
        else:
            self._carrier.write(head)
            await self._pour(body, _is_chunked(headers), timeouts.get("write"))
        while self._head is None:
            await self._heard(timeouts.get("read"))
        return self._head

    async def _pour(self, body: AsyncIterator[bytes], chunked: bool, seconds: float | None) -> None:
        async for piece in body:
            if self._head is not None or self._error is not None:  # answered already, or lost: the reader says so
                self._over = True
                return
            self._carrier.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked and piece else piece)
            while not self._can_write and self._head is None and self._error is None:
                await self._news(seconds, httpx2.WriteTimeout)
            if self._carrier.is_closing():
                await asyncio.sleep(0)  # for the news of it
        if chunked:
            self._carrier.write(b"0\r\n\r\n")

    async def read(self, seconds: float | None) -> bytes:
        """What there is of the body, as soon as there is any; nothing at its end."""
        while not self._pieces:
            if self._whole:
                return b""
            await self._heard(seconds)
        pieces, self._pieces, self._held = self._pieces, [], 0
        if self._paused:
            self._paused = False
            self._carrier.resume_reading()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _heard(self, seconds: float | None) -> None:
        if self._error is not None:
            raise self._error
        await self._news(seconds, httpx2.ReadTimeout)

    async def _news(self, seconds: float | None, late: type[httpx2.TimeoutException]) -> None:
        self._bell = asyncio.get_running_loop().create_future()
        try:
            if seconds is None:
                await self._bell
            else:
                async with asyncio.timeout(seconds):
                    await self._bell
        except TimeoutError:
            raise late(f"nothing moved for {seconds:g} s") from None
        finally:
            self._bell = None

    def _ring(self) -> None:
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)

    def close(self) -> None:
        """At once."""
        self._over = True
        self._carrier.abort()

    # ---- what the event loop calls ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._carrier: Any = transport

    def data_received(self, data: bytes) -> None:
        """Some bytes of a response."""
        if self._whole:  # nobody asked
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._error = self._error or httpx2.RemoteProtocolError(str(error) or "it left HTTP")
            self.close()
        if self._held > HELD and not self._paused:
            self._paused = True
            self._carrier.pause_reading()
        self._ring()

    def connection_lost(self, error: Exception | None) -> None:
        """It is closed, by whomever."""
        self._over = True
        if self._head is not None and error is None and _ends_with_it(self._head):
            self._whole = True
        elif not self._whole and self._error is None:
            self._error = _lost(error, self._head)
        self._ring()

    def pause_writing(self) -> None:
        """The other side reads too slowly."""
        self._can_write = False

    def resume_writing(self) -> None:
        """It has caught up."""
        self._can_write = True
        self._ring()

    # ---- what httptools calls ----

    def on_message_begin(self) -> None:
        """A response, or one that nobody asked for."""
        self._over = self._over or self._whole

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or trailer."""
        if self._head is None:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is whole; one that is only a sign of life is not the response's."""
        if (status := self._parser.get_status_code()) >= 200 and not self._whole:
            self._head = Head(status, self._headers)
        self._headers = []

    def on_body(self, piece: bytes) -> None:
        """A piece of the body."""
        if not self._whole:
            self._pieces.append(piece)
            self._held += len(piece)

    def on_message_complete(self) -> None:
        """The response is whole."""
        if self._head is not None:
            self._whole = True
            self._over = self._over or not self._parser.should_keep_alive()


def _is_chunked(headers: Headers) -> bool:
    return any(name.lower() == b"transfer-encoding" for name, _ in headers)


def _ends_with_it(head: Head) -> bool:
    """Whether the end of the connection is the end of the body."""
    return not any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in head.headers)


def _lost(error: Exception | None, head: Head | None) -> httpx2.HTTPError:
    if error is not None:
        return httpx2.ReadError(str(error))
    if head is None:
        return httpx2.RemoteProtocolError("the server closed the connection without an answer")
    return httpx2.RemoteProtocolError("the server closed the connection in the middle of its answer")
