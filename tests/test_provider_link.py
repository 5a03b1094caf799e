"""One HTTP/1.1 connection: every way a response can come, end and break, and what may be sent over it next."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx2
import pytest

from jobs.clock import Stopwatch
from jobs.providers import link
from jobs.providers.link import Head, Link, Origin
from tests.wire import Peer, Script, serving

POST = b"POST /x HTTP/1.1"
HEADERS = [(b"host", b"here"), (b"content-length", b"2")]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell"
IN_CHUNKS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNKED = [(b"host", b"here"), (b"transfer-encoding", b"chunked")]


def says(*pieces: bytes, keep: bool = True) -> Script:
    """Write these pieces, each by itself."""

    async def script(peer: Peer) -> None:
        peer.keep = keep
        for piece in pieces:
            await peer.send(piece)
            await asyncio.sleep(0.005)

    return script


async def resets(peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nwe")
    await asyncio.sleep(0.02)
    peer.reset()


async def opened(url: str, watch: Stopwatch | None = None) -> Link:
    origin = Origin("127.0.0.1", int(url.rpartition(":")[2]), tls=False)
    return await Link.open(origin, ssl.create_default_context, 5.0, watch)


async def whole(one: Link, seconds: float | None = 5.0) -> bytes:
    pieces = []
    while piece := await one.read(seconds):
        pieces.append(piece)
    return b"".join(pieces)


def answer(*scripts: Script, first: bytes = POST, seconds: float = 5.0) -> tuple[Head, bytes, bool]:
    """The head and body of one answer, and whether the connection can be used again."""

    async def work() -> tuple[Head, bytes, bool]:
        async with serving(*scripts) as server:
            one = await opened(server.url)
            try:
                head = await one.send(first, HEADERS, b"{}", {"read": seconds})
                return head, await whole(one, seconds), one.alive
            finally:
                one.close()

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("pieces", "body", "again"),
    [
        ([OK], b"well", True),
        ([OK[:3], OK[3:20], OK[20:-1], OK[-1:]], b"well", True),
        ([IN_CHUNKS + b"2\r\nwe\r\n", b"2\r\nll\r\n0\r\n\r\n"], b"well", True),
        ([IN_CHUNKS + b"4\r\nwell\r\n0\r\nx-late: yes\r\n\r\n"], b"well", True),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", OK], b"well", True),
        ([b"HTTP/1.1 204 None\r\n\r\n"], b"", True),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nwell"], b"well", False),
        ([b"HTTP/1.0 200 OK\r\ncontent-length: 4\r\n\r\nwell"], b"well", False),
        ([OK + b"HTTP/1.1 200 OK\r\n\r\n"], b"well", False),  # more than was asked for
    ],
)
def test_an_answer_is_read_however_it_is_cut_into_pieces(pieces: list[bytes], body: bytes, again: bool) -> None:
    head, came, alive = answer(says(*pieces))
    assert (head.status in (200, 204), came, alive) == (True, body, again)
    assert all(name != b"link" for name, _ in head.headers)


def test_without_a_length_the_end_of_the_connection_is_the_end_of_the_body() -> None:
    _, came, alive = answer(says(b"HTTP/1.1 200 OK\r\n\r\nwe", b"ll", keep=False))
    assert (came, alive) == (b"well", False)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (says(keep=False), httpx2.RemoteProtocolError),
        (says(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nwe", keep=False), httpx2.RemoteProtocolError),
        (says(IN_CHUNKS, b"2\r\nwe\r\n", keep=False), httpx2.RemoteProtocolError),
        (says(b"SSH-2.0-what\r\n"), httpx2.RemoteProtocolError),
        (says(IN_CHUNKS, b"zz\r\n"), httpx2.RemoteProtocolError),
        (says(b"HTTP/1.1 101 Other\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"), httpx2.RemoteProtocolError),
        (resets, httpx2.ReadError),
    ],
)  # fmt: skip
def test_what_breaks_off_is_an_error_of_the_library(script: Script, error: type[Exception]) -> None:
    with pytest.raises(error):
        answer(script)


def test_silence_is_a_timeout_where_one_is_asked_for() -> None:
    async def mute(peer: Peer) -> None:
        await peer.silence()

    with pytest.raises(httpx2.ReadTimeout):
        answer(mute, seconds=0.05)


def test_a_port_that_nobody_listens_at_is_no_connection() -> None:
    async def work() -> None:
        async with serving(says(OK)) as server:
            gone = server.url
        await opened(gone)

    with pytest.raises(httpx2.ConnectError):
        asyncio.run(work())


def test_no_header_can_break_into_another() -> None:
    async def work() -> None:
        async with serving(says(OK)) as server:
            one = await opened(server.url)
            try:
                await one.send(POST, [(b"authorization", b"Bearer a\r\nx: y")], b"", {})
            finally:
                one.close()
                assert not server.asked

    with pytest.raises(httpx2.LocalProtocolError):
        asyncio.run(work())


def test_a_body_that_comes_in_pieces_is_chunked_and_waits_for_its_reader() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for n in range(200):
            yield bytes([n]) * 65_536

    async def work() -> tuple[bytes, int]:
        async with serving(says(OK)) as server:
            one = await opened(server.url)
            await one.send(POST, CHUNKED, pieces(), {})
            came = await whole(one)
            one.close()
            return came, len(server.asked[0].body)

    assert asyncio.run(work()) == (b"well", 200 * 65_536)


def test_an_early_refusal_ends_the_upload_and_the_connection() -> None:
    sent, left = 0, asyncio.Event()

    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Much\r\ncontent-length: 2\r\n\r\nno")
        with suppress(ConnectionError):
            while await reader.read(1 << 20):
                pass
        writer.close()
        left.set()

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(10_000):
            sent += 1
            yield bytes(65_536)

    async def work() -> tuple[int, bytes, bool]:
        server = await asyncio.start_server(refuses, "127.0.0.1", 0)
        one = await opened(f":{server.sockets[0].getsockname()[1]}")
        head = await one.send(POST, CHUNKED, pieces(), {})
        came = head.status, await whole(one), one.idle
        one.close()
        await left.wait()
        server.close()
        return came

    assert asyncio.run(work()) == (413, b"no", False)
    assert sent < 10_000


def test_a_body_that_is_not_read_is_not_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "HELD", 100_000)
    written = 0

    async def floods(peer: Peer) -> None:
        nonlocal written
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
        while written < 100_000_000:
            await peer.send(bytes(100_000))
            written += 100_000

    async def work() -> int:
        async with serving(floods) as server:
            one = await opened(server.url)
            await one.send(POST, HEADERS, b"{}", {})
            await asyncio.sleep(0.2)
            before, came = written, 0
            while came < 30_000_000:
                came += len(await one.read(5.0))
            one.close()
            return before

    assert asyncio.run(work()) < 30_000_000  # what the system's buffers hold, not all of it


def test_one_that_the_other_side_has_closed_is_seen_before_it_is_used() -> None:
    async def work() -> tuple[bool, bool]:
        async with serving(says(OK, keep=False)) as server:
            one = await opened(server.url)
            await one.send(POST, HEADERS, b"{}", {})
            assert await whole(one) == b"well"
            before = one.idle
            await asyncio.sleep(0.05)
            alive = one.alive
            one.close()
            return before, alive

    assert asyncio.run(work()) == (True, False)


def test_the_stopwatch_hears_of_the_connection_and_of_the_first_byte() -> None:
    async def work() -> Stopwatch:
        watch = Stopwatch()
        async with serving(says(OK)) as server:
            one = await opened(server.url, watch)
            await one.send(POST, HEADERS, b"{}", {}, watch)
            await whole(one)
            one.close()
        return watch

    timing = asyncio.run(work()).read()
    assert timing.connect_ms is not None
    assert timing.total_ms < 5_000
