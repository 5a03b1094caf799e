"""Connections for many calls at once: httpcore2's own pool walks all of them, twice a call."""

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2

MOST = 1000  # connections of one client; a call beyond them waits for one
IDLE_S = 5.0  # after which an unused connection is closed: as httpx2 does
_ONE = httpx2.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=IDLE_S)
_ALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)] + [
    (socket.IPPROTO_TCP, getattr(socket, name), value)  # a long answer may be silent for minutes
    for name, value in (("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5), ("TCP_KEEPIDLE", 60))
    if hasattr(socket, name)
]


class Pool(httpx2.AsyncBaseTransport):
    """A transport of one connection for each call in flight; the one that was used last is used first."""

    def __init__(self, verify: Any) -> None:
        self._verify = verify
        self._room = asyncio.Semaphore(MOST)
        self._free: deque[tuple[float, httpx2.AsyncHTTPTransport]] = deque()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send it over a free connection; that is free again when its body was read, or closed."""
        if self._free and self._free[0][0] < asyncio.get_running_loop().time() - IDLE_S:
            await self._free.popleft()[1].aclose()
        await self._room.acquire()
        one = self._free.pop()[1] if self._free else self._new()
        try:
            response = await one.handle_async_request(request)
        except BaseException:
            self._give_back(one)
            raise
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Body(response.stream, lambda: self._give_back(one))
        return response

    def _new(self) -> httpx2.AsyncHTTPTransport:
        return httpx2.AsyncHTTPTransport(verify=self._verify, limits=_ONE, socket_options=_ALIVE)

    def _give_back(self, one: httpx2.AsyncHTTPTransport) -> None:
        self._free.append((asyncio.get_running_loop().time(), one))
        self._room.release()

    async def aclose(self) -> None:
        """Close what is free; a call in flight closes its own."""
        while self._free:
            await self._free.pop()[1].aclose()


class _Body(httpx2.AsyncByteStream):
    """A response's body; its connection is free once it is closed."""

    def __init__(self, body: httpx2.AsyncByteStream, closed: Callable[[], None]) -> None:
        self._body = body
        self._closed: Callable[[], None] | None = closed

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._body.__aiter__()

    async def aclose(self) -> None:
        try:
            await self._body.aclose()
        finally:
            closed, self._closed = self._closed, None
            if closed is not None:
                closed()
