"""The sandbox on a port: `serve` until a signal, or `running` in a thread of this process."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any

from jobs.sandbox.app import App
from jobs.sandbox.http import Connection
from jobs.sandbox.settings import SandboxError, SandboxSettings

BACKLOG = 2048


def serve(settings: SandboxSettings, on_ready: Callable[[str], None] | None = None) -> None:
    """Blocks until SIGINT or SIGTERM; `on_ready` gets the URL once the port is open."""
    with _runner() as runner:
        runner.run(_serve(settings, on_ready))


async def _serve(settings: SandboxSettings, on_ready: Callable[[str], None] | None) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with _listening(settings) as (_, url):
        if on_ready is not None:
            on_ready(url)
        await stop.wait()


def _runner() -> asyncio.Runner:
    """On uvloop where it is installed: half again as fast."""
    try:
        import uvloop
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


@contextlib.asynccontextmanager
async def _listening(settings: SandboxSettings) -> AsyncIterator[tuple[App, str]]:
    """An open server with its App; at the end every connection is gone before this returns."""
    app = App(settings)
    live: set[Connection] = set()
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(lambda: Connection(app, live), settings.host, settings.port, backlog=BACKLOG)
    except OSError as error:
        await app.close()
        raise SandboxError(
            f"the sandbox cannot listen on {settings.host}:{settings.port}: {error.strerror or error}"
        ) from error
    try:
        app.runs.resume()
        port = server.sockets[0].getsockname()[1]
        yield app, f"http://{f'[{settings.host}]' if ':' in settings.host else settings.host}:{port}"
    finally:
        server.close()
        while live:
            connection = next(iter(live))
            connection.transport.abort()
            await connection.lost.wait()
        await app.close()
        await asyncio.sleep(0)


class Sandbox:
    """A sandbox that runs in a thread of this process; its calls may come from any other thread."""

    def __init__(self, app: App, url: str, loop: asyncio.AbstractEventLoop) -> None:
        self._app = app
        self._loop = loop
        self.url = url

    def _do(self, work: Callable[[], Any]) -> Any:
        async def inside() -> Any:
            found = work()
            return await found if isinstance(found, Coroutine) else found

        return asyncio.run_coroutine_threadsafe(inside(), self._loop).result(30)

    def bill(self, **wanted: str) -> dict[str, Any]:
        """`{"rows": […], "totals": {…}}` of the rows whose kind, api, model, batch_id and so on are as wanted."""
        found: dict[str, Any] = self._do(lambda: self._app.admin.bill(wanted))
        return found

    def reset(self) -> None:
        self._do(self._app.admin.reset)

    def faults(self, faults: list[Any]) -> None:
        """Sets the drills, replacing those before; SandboxError says what is wrong with one."""
        self._do(lambda: self._app.admin.set_faults(faults))

    def advance(self, seconds: float) -> None:
        """Moves the sandbox's clock forward, and waits until every batch is where it should be by then."""
        self._do(lambda: self._app.admin.advance({"advance_s": seconds}))

    def billed(self, rows: int, seconds: float = 10.0) -> dict[str, Any]:
        """The bill once it has that many rows; TimeoutError if it never gets them."""

        async def waited() -> dict[str, Any]:
            async with asyncio.timeout(seconds):
                while len(self._app.store.bill.rows) < rows:  # noqa: ASYNC110 - the bill is pure: it has no bell
                    await asyncio.sleep(0.002)
            return self._app.admin.bill({})

        found: dict[str, Any] = self._do(waited)
        return found

    def requests(self) -> dict[str, Any]:
        found: dict[str, Any] = self._do(self._app.admin.requests)
        return found

    def results(self) -> dict[str, list[str]]:
        """The custom_ids in the results of each batch, those that never ran among them."""
        found: dict[str, list[str]] = self._do(self._app.admin.results)
        return found

    def input_files(self) -> list[str]:
        """The names of the files for batches that are there."""
        files = self._do(lambda: list(self._app.store.files.values()))
        return [file.filename for file in files if file.purpose == "batch"]


@contextlib.contextmanager
def running(settings: SandboxSettings | None = None) -> Iterator[Sandbox]:
    """A sandbox on its own thread and event loop; stopped, with its sockets closed, at the end of the block."""
    ready: Future[tuple[Sandbox, asyncio.Event]] = Future()
    thread = threading.Thread(target=_thread, args=(settings or SandboxSettings(), ready), name="sandbox", daemon=True)
    thread.start()
    try:
        sandbox, stop = ready.result()
        try:
            yield sandbox
        finally:
            sandbox._loop.call_soon_threadsafe(stop.set)
    finally:
        thread.join()


def _thread(settings: SandboxSettings, ready: "Future[tuple[Sandbox, asyncio.Event]]") -> None:
    async def main() -> None:
        stop = asyncio.Event()
        async with _listening(settings) as (app, url):
            ready.set_result((Sandbox(app, url, asyncio.get_running_loop()), stop))
            await stop.wait()

    try:
        with _runner() as runner:
            runner.run(main())
    except BaseException as error:
        if ready.done():
            raise
        ready.set_exception(error)
