"""Listen and serve until a signal: then streams come to their end, and what runs is settled."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Collection, Iterator
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from db import keys
from jobs.errors import UsageError
from router.dispatch import Router
from router.web.app import Gateway, create_app
from router.web.tokens import installed

HEAD_S = 15.0  # a connection whose first request's head does not come within this is closed
IDLE_S = 75.0  # between two requests
TURN_S = 0.001  # that a thread at work may keep the event loop waiting; Python's own 5 ms were in every slow answer
DRAIN_S = 2.0  # what is still coming on a connection that was told off is let come, lest it wipe out what it was told
LEAVE_S = 10.0  # streams have this long to end, once the server is told to stop
MOST = 4096  # connections and requests at once; more are told to come back
BACKLOG = 2048
_LOOPBACK = ("127.", "::1", "localhost")


class Bounded(HttpToolsProtocol):
    """A connection that must say what it wants."""

    _timer: asyncio.TimerHandle | None = None
    _told_off = False

    def connection_made(self, transport: Any) -> None:
        """The time runs from here on."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_S, self._late)

    def data_received(self, data: bytes) -> None:
        """More of it; after what was no HTTP nothing is read any more."""
        if not self._told_off:
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """Closed now, with more unread, the answer could be lost on the other side: so it is closed a little later."""
        self._stop()
        self._told_off = True
        self._timer = self.loop.call_later(DRAIN_S, self._late)
        body = msg.encode()
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {len(body)}"
        self.transport.write(f"{head}\r\nconnection: close\r\n\r\n".encode() + body)
        self.transport.write_eof()

    def on_headers_complete(self) -> None:
        """It has said it."""
        self._stop()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        self._stop()
        super().connection_lost(exc)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


class Server(uvicorn.Server):
    """Told once, it takes no more and lets what runs come to its end; told twice, it cancels that, and settles it."""

    def __init__(self, config: uvicorn.Config, app: Gateway, say: Callable[[str], None]) -> None:
        super().__init__(config)
        self._app, self._say = app, say
        self._cutting: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Unlike the usual one it does not raise them again: a server that was told to stop has ended well."""
        loop, numbers = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def stop(self) -> None:
        """A signal came."""
        if not self.should_exit:
            self._app.state.stopping = self.should_exit = True
            self._say("stopping: what runs comes to its end and is kept; again to cancel it")
        elif self._cutting is None:
            self._cutting = asyncio.ensure_future(self._app.state.router.context().stop())


def serve(router: Router, *, host: str, port: int, names: Collection[str], say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. UsageError when it cannot listen there, or has no keys for others than itself."""
    away = not host.startswith(_LOOPBACK)
    if away and not any(key.revoked_at is None for key in keys.listed(router.store)):
        raise UsageError(
            f"{host} can be reached from other machines: make a key first with `shunter keys create NAME`",
            code="no_keys",
        )
    token, path, made = installed(router.settings.folder.parent)
    app = create_app(router, token=token, names=names)
    sys.setswitchinterval(TURN_S)
    listening = _listen(host, port)
    port = listening.getsockname()[1]
    where = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    say(f"shunter at {where} (Ctrl-C ends it); OpenAI's clients want {where}/v1")
    say(f"the token that opens it {'was made and ' if made else ''}is in {path}")
    config = config_of(app)
    server = Server(config, app, say)
    try:
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_serve(server, router, listening))
    finally:
        listening.close()


def config_of(app: Gateway) -> uvicorn.Config:
    """How uvicorn serves it."""
    return uvicorn.Config(
        cast("Any", app), http=Bounded, ws="none", lifespan="on", access_log=False, log_config=None,
        server_header=False, proxy_headers=False, timeout_keep_alive=int(IDLE_S),
        timeout_graceful_shutdown=int(LEAVE_S), limit_concurrency=MOST, backlog=BACKLOG,
    )  # fmt: skip


async def _serve(server: Server, router: Router, listening: socket.socket) -> None:
    try:
        await server.serve(sockets=[listening])
        if not server.started:
            raise UsageError("the server could not start: the lines above say why", code="not_started")
    finally:
        await router.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}", code="port") from None
    return made
