"""A real Chromium for the tests of the page, and providers that say exactly what a test wants."""

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests import wire

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.gateways import Served

WAIT_MS = 15_000
_QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
          "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]  # fmt: skip
_HOW = "install it (Debian: apt-get install chromium) or name it in SHUNTER_CHROMIUM"


def found() -> str | None:
    """Where a Chromium is."""
    names = (os.environ.get("SHUNTER_CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if name and (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def chromium() -> Iterator["Browser"]:
    """One browser for a module: while it is there, no other loop can run in this thread."""
    path = found()
    if path is None:
        pytest.skip(f"NOT TESTED: the page, for there is no Chromium; {_HOW}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_QUIET)
        yield browser
        browser.close()


class Window:
    """A page of a fresh profile, signed in, and what went wrong in it."""

    def __init__(self, page: "Page") -> None:
        self.page = page
        self.troubles: list[str] = []
        self.elsewhere: list[str] = []
        page.set_default_timeout(WAIT_MS)
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("console", lambda message: self._heard(message.type, message.text))
        page.on("request", lambda request: self._sent(request.url))
        page.on("dialog", lambda dialog: (self.troubles.append(f"dialog: {dialog.message}"), dialog.dismiss()))

    def _heard(self, kind: str, text: str) -> None:
        if kind == "error" and "Failed to load resource" not in text:  # a status that is no 200 is no mistake
            self.troubles.append(text)

    def _sent(self, url: str) -> None:
        if not url.startswith(("http://127.0.0.1:", "data:")):
            self.elsewhere.append(url)

    def ask(self, words: str) -> None:
        """Send a message."""
        self.page.get_by_label("Message").fill(words)
        self.page.keyboard.press("Enter")

    def prose(self) -> str:
        """The last answer as it is read."""
        return self.page.locator(".answer .prose").last.inner_text()

    def begun(self, signs: int = 1) -> str:
        """Wait until so many signs of the last answer are there."""
        self.page.wait_for_function(
            "signs => [...document.querySelectorAll('.answer .prose')].at(-1)?.innerText.length >= signs", arg=signs
        )
        return self.prose()

    def ended(self) -> str:
        """Wait until the last answer has come to its end."""
        self.page.wait_for_function(
            "() => [...document.querySelectorAll('.answer')].at(-1)?.getAttribute('aria-busy') === 'false'"
        )
        return self.prose()

    def about(self) -> str:
        """What is said under the last answer."""
        return self.page.locator(".answer footer").last.inner_text()


@contextmanager
def window(browser: "Browser", served: "Served", *, signed_in: bool = True, **more: Any) -> Iterator[Window]:
    """A window onto the page; in the end nothing may have gone wrong in it, or been asked of anybody else."""
    from tests.gateways import TOKEN  # not before a test needs it: conftest is imported by all of them

    context = browser.new_context(base_url=served.url, **more)
    try:
        if signed_in:
            assert context.request.post("/api/login", data={"token": TOKEN}).status == 204
        opened = Window(context.new_page())
        yield opened
        assert (opened.troubles, opened.elsewhere) == ([], [])
    finally:
        context.close()


@contextmanager
def provider(*scripts: wire.Script) -> Iterator[wire.Server]:
    """A scripted server in a thread of its own."""
    ready: Future[tuple[wire.Server, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        async with wire.serving(*scripts) as server:
            over = asyncio.Event()
            ready.set_result((server, asyncio.get_running_loop(), over))
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    server, loop, over = ready.result(20)
    yield server
    loop.call_soon_threadsafe(over.set)
    thread.join(20)


def answering(text: str, size: int = 5) -> wire.Script:
    """A whole answer that comes in pieces of this size."""
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}

    def chunk(**delta: Any) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}

    pieces = [chunk(content=text[at : at + size]) for at in range(0, len(text), size)]
    end = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    usage = {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}
    return wire.stream(wire.sse(*pieces, end, {**head, "choices": [], "usage": usage}, "[DONE]"))
