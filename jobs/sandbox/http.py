"""HTTP/1.1 over one connection: requests in, answers, streams and deliberate cuts out."""

import asyncio
import contextlib
import logging
import socket
import struct
from collections import deque
from collections.abc import Coroutine, Iterable
from http import HTTPStatus
from typing import Any, Protocol, cast
from urllib.parse import parse_qsl, unquote

import httptools

log = logging.getLogger(__name__)
STATUS = {status: f"HTTP/1.1 {int(status)} {status.phrase}\r\n".encode() for status in HTTPStatus} | {
    529: b"HTTP/1.1 529 Overloaded\r\n"
}
HIGH_WATER = 1 << 20


class Sink(Protocol):
    """Takes a request's body as it comes; what `feed` raises is kept and answered when the body is over."""

    def feed(self, data: bytes) -> None: ...
    def close(self) -> None: ...


class Buffer:
    """The whole body in memory, up to a limit; beyond it the rest is thrown away and `over` is set."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.parts: list[bytes] = []
        self.size = 0
        self.over = False

    def feed(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self.limit:
            self.over = True
            self.parts.clear()
        else:
            self.parts.append(data)

    def take(self) -> bytes:
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)

    def close(self) -> None:
        self.parts.clear()


class Request:
    __slots__ = ("headers", "keep_alive", "method", "path", "query_text", "sink", "trouble")

    def __init__(self, method: str, url: bytes, headers: dict[bytes, bytes]) -> None:
        path, _, query = url.partition(b"?")
        text = path.decode("latin-1")
        self.method = method
        self.path = unquote(text) if "%" in text else text
        self.query_text = query.decode("latin-1")
        self.headers = headers
        self.keep_alive = True
        self.sink: Sink = Buffer(0)
        self.trouble: Exception | None = None

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.query_text, keep_blank_values=True))

    def header(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1")


class Application(Protocol):
    def sink(self, request: Request) -> Sink: ...
    def handle(self, exchange: "Exchange") -> Coroutine[Any, Any, None]: ...


class Connection(asyncio.Protocol):
    """Answers its requests one after the other; a lost connection cancels the one under way."""

    def __init__(self, app: Application, live: set["Connection"]) -> None:
        self.app = app
        self.live = live
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""
        self.headers: dict[bytes, bytes] = {}
        self.coming: Request | None = None
        self.waiting: deque[Request] = deque()
        self.task: asyncio.Task[None] | None = None
        self.writable = asyncio.Event()
        self.writable.set()
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one by duck type only
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        self.live.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.live.discard(self)
        self.lost.set()
        self.writable.set()
        if self.coming is not None:
            self.coming.sink.close()
        if self.task is not None:
            self.task.cancel()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            log.debug("an upgrade was asked for and is ignored")
        except httptools.HttpParserError as error:
            body = f"the sandbox could not read this as HTTP/1.1: {error}".encode()
            self.transport.write(
                STATUS[HTTPStatus.BAD_REQUEST] + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body
            )
            self.transport.close()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        request = Request(self.parser.get_method().decode(), self.url, self.headers)
        self.url, self.headers = b"", {}
        request.keep_alive = self.parser.should_keep_alive()
        request.sink = self.app.sink(request)
        if request.headers.get(b"expect", b"").lower() == b"100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.coming = request

    def on_body(self, body: bytes) -> None:
        request = self.coming
        if request is not None and request.trouble is None:
            try:
                request.sink.feed(body)
            except Exception as error:
                request.trouble = error

    def on_message_complete(self) -> None:
        if self.coming is not None:
            self.waiting.append(self.coming)
            self.coming = None
            if self.task is None:
                self.task = asyncio.get_running_loop().create_task(self.work())

    async def work(self) -> None:
        try:
            while self.waiting and not self.lost.is_set():
                request = self.waiting.popleft()
                await self.app.handle(Exchange(request, self))
                if not request.keep_alive:
                    self.transport.close()
        except asyncio.CancelledError:
            if not self.lost.is_set():
                raise
        finally:
            self.task = None


class Exchange:
    """One request and the answer to it."""

    __slots__ = ("connection", "head", "id", "request", "streaming")

    def __init__(self, request: Request, connection: Connection) -> None:
        self.request = request
        self.connection = connection
        self.id = ""
        self.head = b""
        self.streaming = False

    @property
    def lost(self) -> bool:
        return self.connection.lost.is_set()

    def reply(
        self, status: int, body: bytes, kind: bytes = b"application/json", headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        self.connection.transport.write(
            b"".join((*self._head(status, kind, headers), b"content-length: %d\r\n\r\n" % len(body), body))
        )

    def _head(self, status: int, kind: bytes, headers: Iterable[tuple[str, str]]) -> list[bytes]:
        parts = [STATUS.get(status) or b"HTTP/1.1 %d Sandbox\r\n" % status, b"content-type: ", kind, b"\r\n", self.head]
        parts += [f"{name}: {value}\r\n".encode("latin-1") for name, value in headers]
        if not self.request.keep_alive:
            parts.append(b"connection: close\r\n")
        return parts

    def part_of(self, body: bytes, kept: int) -> None:
        """The head of a whole answer and only the first bytes of its body."""
        head = self._head(200, b"application/json", ())
        self.connection.transport.write(b"".join((*head, b"content-length: %d\r\n\r\n" % len(body), body[:kept])))

    def begin(
        self, status: int, kind: bytes, length: int | None = None, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        """The head of an answer that comes in pieces: chunked, unless its length is known."""
        self.streaming = length is None
        frame = b"transfer-encoding: chunked\r\n\r\n" if length is None else b"content-length: %d\r\n\r\n" % length
        self.connection.transport.write(b"".join((*self._head(status, kind, headers), frame)))

    def send(self, data: bytes) -> None:
        if data:
            self.connection.transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self.streaming else data)

    async def drain(self) -> None:
        """Waits while the reader is slow; the task is cancelled if the reader leaves."""
        await self.connection.writable.wait()

    def end(self) -> None:
        if self.streaming:
            self.connection.transport.write(b"0\r\n\r\n")

    def cut(self, how: str) -> None:
        """Ends the connection in the middle: `fin` closes it in order, `rst` resets it."""
        transport = self.connection.transport
        self.request.keep_alive = False
        if how == "rst":
            sock = transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        else:
            transport.close()
