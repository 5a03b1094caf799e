"""A gateway on a free port, in a thread of this process, with the sandbox behind it."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from jobs.providers import Endpoint
from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings
from router.dispatch import Router
from router.settings import Settings
from router.web.app import Gateway, create_app
from router.web.server import config_of

TOKEN = "shunter-token-of-the-tests"


@dataclass
class Served:
    """A running gateway."""

    url: str
    app: Gateway
    router: Router
    loop: asyncio.AbstractEventLoop
    server: uvicorn.Server

    @property
    def token(self) -> str:
        return TOKEN

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {TOKEN}"}

    def client(self, **more: Any) -> httpx2.Client:
        """A client with the installation's token."""
        return httpx2.Client(base_url=self.url, headers=self.headers, timeout=20, **more)


def sandbox_of(**settings: Any) -> Any:
    """The fixture `sandbox` of a module that keeps one for all of its tests."""

    @pytest.fixture(scope="module")
    def sandbox() -> Iterator[Sandbox]:
        with running(SandboxSettings(**settings)) as server:
            yield server

    return sandbox


def facts_of(**facts: Any) -> Any:
    """The fixture `facts` of a module whose gateway has such settings."""
    return pytest.fixture(scope="module")(lambda: facts)


def settings_for(url: str, folder: Path, **more: Any) -> Settings:
    """Settings for a provider at this URL and a database in the folder."""
    endpoints = {
        "openai": Endpoint("openai", f"{url}/v1", own=False, key_env="OPENAI_API_KEY"),
        "anthropic": Endpoint("anthropic", url, own=False, key_env="ANTHROPIC_API_KEY"),
    }
    facts: dict[str, Any] = {
        "database_url": f"sqlite:///{folder / 'shunter.db'}",
        "folder": folder / "data" / "batches",
        "endpoints": endpoints,
    }
    return Settings(**facts | more)


@contextlib.contextmanager
def serving(settings: Settings, names: tuple[str, ...] = ()) -> Iterator[Served]:
    """A gateway until the end of the block, which it outlives no more than its jobs do."""
    ready: Future[Served] = Future()
    thread = threading.Thread(target=_thread, args=(settings, names, ready), name="gateway", daemon=True)
    thread.start()
    try:
        served = ready.result(20)
        try:
            yield served
        finally:
            served.server.should_exit = True
    finally:
        thread.join(30)


def _thread(settings: Settings, names: tuple[str, ...], ready: "Future[Served]") -> None:
    router = Router(settings)
    app = create_app(router, token=TOKEN, names=names)
    config = config_of(app)
    config.timeout_graceful_shutdown = 1

    class Quiet(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            port = self.servers[0].sockets[0].getsockname()[1]
            ready.set_result(Served(f"http://127.0.0.1:{port}", app, router, asyncio.get_running_loop(), self))

    config.host, config.port = "127.0.0.1", 0
    server = Quiet(config)

    async def run() -> None:
        await server.serve()
        await router.close()

    try:
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(run())
    except BaseException as error:
        if ready.done():
            raise
        ready.set_exception(error)
