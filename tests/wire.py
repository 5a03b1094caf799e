"""A scripted HTTP/1.1 server on loopback: heads, chunks, FIN, RST and silence exactly as a test wants them."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

SHORT = 0.25  # seconds that a test waits for what must time out


@dataclass
class Asked:
    """One request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Peer:
    """The server's end of a connection, for a script to write to."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    left: asyncio.Event
    keep: bool = False

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """End the connection with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def silence(self) -> None:
        """Say nothing until the client has gone."""
        with suppress(ConnectionError):
            while await self.reader.read(1024):
                pass
        self.left.set()


Script = Callable[[Peer], Awaitable[None]]


@dataclass
class Server:
    """What a test sees of it: each request gets the next script, the last one for ever."""

    scripts: list[Script]
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.asked.append(await _request(reader))
                script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
                peer = Peer(reader, writer, self.left)
                await script(peer)
                if not peer.keep:
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.close()
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()


async def _request(reader: asyncio.StreamReader) -> Asked:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    while headers.get("transfer-encoding") == "chunked":
        size = int(await reader.readline(), 16)
        body += (await reader.readexactly(size + 2))[:-2]
        if not size:
            break
    method, target, _ = first.split(" ")
    return Asked(method, target, headers, body)


@asynccontextmanager
async def serving(*scripts: Script) -> AsyncIterator[Server]:
    """A server that answers with the scripts, in their order."""
    server = Server(list(scripts))
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        tasks = [t for t in asyncio.all_tasks() if "Server.handle" in repr(t.get_coro())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def head(status: int = 200, kind: str = "application/json", **headers: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status} X",
        f"content-type: {kind}",
        *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def reply(body: Any, status: int = 200, kind: str = "application/json", **headers: str) -> Script:
    """A plain answer that keeps the connection."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def script(peer: Peer) -> None:
        peer.keep = True
        await peer.send(head(status, kind, content_length=str(len(data)), **headers) + b"\r\n" + data)

    return script


def sse(*events: Any, named: bool = False) -> bytes:
    """Events as bytes; strings are data as they are, the rest is JSON; `named` as Anthropic names them."""
    out = b""
    for event in events:
        if named and isinstance(event, dict):
            out += b"event: " + str(event.get("type")).encode() + b"\n"
        out += b"data: " + (event if isinstance(event, str) else json.dumps(event)).encode() + b"\n\n"
    return out


def stream(
    *pieces: bytes, end: str = "clean", kind: str = "text/event-stream; charset=utf-8", **headers: str
) -> Script:
    """A chunked stream of the pieces, one a chunk, ended as `end` says: clean, fin, rst or silence."""

    async def script(peer: Peer) -> None:
        await peer.send(head(200, kind, transfer_encoding="chunked", **headers) + b"\r\n")
        for piece in pieces:
            await peer.send(chunk(piece))
        await asyncio.sleep(0.02 if end == "rst" else 0)  # an RST may overtake bytes that are not read yet
        match end:
            case "clean":
                peer.keep = True
                await peer.send(b"0\r\n\r\n")
            case "rst":
                peer.reset()
            case "silence":
                await peer.silence()

    return script


def until_close(*pieces: bytes, kind: str = "text/event-stream") -> Script:
    """A body that only the end of the connection ends."""

    async def script(peer: Peer) -> None:
        await peer.send(head(200, kind, connection="close") + b"\r\n" + b"".join(pieces))

    return script


async def hang_up(peer: Peer) -> None:
    """Close before any head."""


async def mute(peer: Peer) -> None:
    """Never send a head."""
    await peer.silence()
