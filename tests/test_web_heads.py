"""What is no HTTP is told so, and is let say the rest before the connection closes."""

import socket
from typing import NoReturn

import pytest

from router.web import server
from tests.gateways import Served, sandbox_of

sandbox = sandbox_of()
BAD = b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\nno colon here\r\n\r\n"
MUCH = b"x" * (4 << 20)  # more than a socket holds: whoever does not read it stops its sender


def connected(served: Served) -> socket.socket:
    host, port = served.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def whole(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65536), b""))


def check(answer: bytes) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in head
    assert f"content-length: {len(body)}".encode() in head
    assert body


@pytest.mark.parametrize("rest", [[], [MUCH], [BAD, MUCH]], ids=["nothing", "a large body", "a head and more"])
def test_a_bad_head_is_answered_whole_whatever_comes_behind_it(served: Served, rest: list[bytes]) -> None:
    with connected(served) as connection:
        connection.sendall(BAD)
        for piece in rest:
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
        check(whole(connection))


def test_who_never_ends_is_closed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "DRAIN_S", 0.2)
    with connected(served) as connection:
        connection.sendall(BAD)
        check(whole(connection))  # its own end is still open, and ours is not
        connection.settimeout(5)
        with pytest.raises(OSError, match=r"reset|pipe"):
            forever(connection)


def forever(connection: socket.socket) -> NoReturn:
    while True:
        connection.sendall(b"x" * 65536)
