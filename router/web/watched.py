"""Tells of each request to the gateway, around everything else: when it came, and what it came to."""

import time
from typing import Any

from jobs.observing import RequestBegan, RequestDone, Served, Watchers
from router.web.guard import App, Message, Receive, Scope, Send

_JOB = b"x-shunter-job"


class Watched:
    """An ASGI application around another."""

    def __init__(self, app: App, tell: Watchers) -> None:
        self._app, self._tell = app, tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on, and tell of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        served, began = Served(scope["method"]), time.perf_counter()

        async def heard(message: Message) -> None:
            if message["type"] == "http.response.start":
                served.status = message["status"]
                served.job_id = _job(message["headers"])
            await send(message)

        self._tell(RequestBegan(served, scope["headers"]))
        try:
            await self._app(scope, receive, heard)
        finally:
            served.route = getattr(scope.get("route"), "path", None)
            served.ms = (time.perf_counter() - began) * 1000
            self._tell(RequestDone(served))


def _job(headers: Any) -> str | None:
    for name, value in headers:
        if name.lower() == _JOB:
            return str(value.decode("latin-1"))
    return None
