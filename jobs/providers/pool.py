"""Connections for many calls at once: one for each call in flight, the one that was used last is used first."""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import httpx2

from jobs.clock import Stopwatch
from jobs.providers.link import Headers, Link, Origin, Timeouts

MOST = 1000  # connections of one client; a call beyond them waits for one
IDLE_S = 5.0  # after which an unused connection is closed: as httpx2 does


class Target(NamedTuple):
    """Where a POST goes, and how its head begins: but for its length, what is said of each body."""

    origin: Origin
    first: bytes
    headers: Headers


def target_of(request: httpx2.Request) -> Target:
    """Of a request; httpx2.UnsupportedProtocol if it cannot be sent."""
    url, tls = request.url, request.url.scheme == "https"
    if url.scheme not in ("http", "https") or not url.host:
        raise httpx2.UnsupportedProtocol(f"the address {str(url)!r} is neither http:// nor https://")
    origin = Origin(url.raw_host.decode("ascii"), url.port or (443 if tls else 80), tls)
    first = b"%b %b HTTP/1.1" % (request.method.encode(), url.raw_path)
    return Target(origin, first, [one for one in request.headers.raw if one[0].lower() != b"content-length"])


class Pool(httpx2.AsyncBaseTransport):
    """A transport of httpx2's; `trust` checks certificates, `watch` says whose stopwatch is to hear of a call."""

    def __init__(
        self, trust: Callable[[], ssl.SSLContext], watch: Callable[[], Stopwatch | None] = lambda: None
    ) -> None:
        self._trust = trust
        self._watch = watch
        self._room = asyncio.Semaphore(MOST)
        self._free: deque[tuple[float, Link]] = deque()
        self._closed = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send it; its connection is free again when its body was read, or closed."""
        target, stream = target_of(request), request.stream
        assert isinstance(stream, httpx2.AsyncByteStream)
        body = b"".join([piece async for piece in stream]) if isinstance(stream, httpx2.ByteStream) else aiter(stream)
        timeouts = request.extensions.get("timeout", {})
        return await self._call(target, request.headers.raw, body, timeouts, self._watch())

    async def post(
        self, target: Target, body: bytes, timeouts: Timeouts, watch: Stopwatch | None = None
    ) -> httpx2.Response:
        """The response to a body that is posted there."""
        headers = (*target.headers, (b"Content-Length", b"%d" % len(body)))
        return await self._call(target, headers, body, timeouts, watch)

    async def _call(
        self,
        target: Target,
        headers: Headers,
        body: bytes | AsyncIterator[bytes],
        timeouts: Timeouts,
        watch: Stopwatch | None,
    ) -> httpx2.Response:
        await self._room.acquire()
        link: Link | None = None
        try:
            origin, first, _ = target
            link = self._take(origin) or await Link.open(origin, self._trust, timeouts.get("connect"), watch)
            head = await link.send(first, headers, body, timeouts, watch)
        except BaseException:
            self._give_back(link)
            raise
        body_of = _Body(link, timeouts.get("read"), self._give_back)
        return httpx2.Response(head.status, headers=list(head.headers), stream=body_of)

    def _take(self, origin: Origin) -> Link | None:
        oldest = asyncio.get_running_loop().time() - IDLE_S
        while self._free and (self._free[0][0] < oldest or not self._free[0][1].idle):
            self._free.popleft()[1].close()
        while self._free:
            link = self._free.pop()[1]
            if link.origin == origin and link.alive:
                return link
            link.close()
        return None

    def _give_back(self, link: Link | None) -> None:
        if link is not None and link.idle and not self._closed:
            self._free.append((asyncio.get_running_loop().time(), link))
        elif link is not None:
            link.close()
        self._room.release()

    async def aclose(self) -> None:
        """Close what is free; a call in flight closes its own."""
        self._closed = True
        while self._free:
            self._free.pop()[1].close()


class _Body(httpx2.AsyncByteStream):
    """A response's body; its connection is free once it is closed."""

    def __init__(self, link: Link, seconds: float | None, free: Callable[[Link], None]) -> None:
        self._link: Link | None = link
        self._seconds = seconds
        self._free = free

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._link is not None and (piece := await self._link.read(self._seconds)):
            yield piece

    async def aclose(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            self._free(link)
