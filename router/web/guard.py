"""What stands before every request: whom it is for, who asks, how much they may send and how long they may take."""

import asyncio
import ipaddress
import math
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from router.web.errors import HTTPError, http_error
from router.web.tokens import Caller, Tokens

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "shunter"
MOST_BODY = 32 << 20  # bytes of a request; a file has its own limit
MOST_FILE = 210 << 20  # the Batch API's 200 MB, and the form around it
BODY_S = 30.0  # for the next piece of a body
HEADERS = [
    (b"content-security-policy", b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
     b"font-src 'self'; connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; "
     b"frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]  # fmt: skip
_READS = ("GET", "HEAD")
_OPEN = ("/api/login", "/healthz", "/readyz")
_GUARDED = ("/api/", "/v1/", "/metrics")  # reading anything else takes no token
_OWN = ("/api/boards", "/metrics")


class Guard:
    """An ASGI application around another; `names` are the host names that the server answers to, beside addresses."""

    def __init__(self, app: App, tokens: Tokens, names: Collection[str]) -> None:
        self._app, self._tokens = app, tokens
        self._names = {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let it in, or answer it with an error."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # there are no web sockets here

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        headers = dict(scope["headers"])
        body = Body(receive, MOST_FILE if scope["path"] == "/v1/files" else MOST_BODY)
        try:
            self._check_host(headers)
            body.expect(headers.get(b"content-length"))
            scope.setdefault("state", {})["caller"] = await self._caller(scope, headers)
        except Exception as error:
            refused = http_error(error)
            # What is left of a body is thrown away by the server, but not when it is too much of one.
            await refused.response({"Connection": "close"} if refused.status == 413 else None)(scope, receive, told)
            return
        await self._app(scope, body, told)

    def _check_host(self, headers: dict[bytes, bytes]) -> None:
        """A page of somebody else whose name was made to point here says its own name."""
        given = headers.get(b"host", b"").decode("latin-1")
        name = given[1:].partition("]")[0] if given.startswith("[") else given.rpartition(":")[0] or given
        if name.lower().rstrip(".") in self._names:
            return
        try:
            ipaddress.ip_address(name)
        except ValueError:
            said = "this server does not answer to that host name; whoever runs it can add names"
            raise HTTPError(421, said, code="wrong_host") from None

    async def _caller(self, scope: Scope, headers: dict[bytes, bytes]) -> Caller | None:
        path, method = scope["path"], scope["method"]
        if path in _OPEN or (method in _READS and not path.startswith(_GUARDED)):
            return None
        kind, _, given = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if given:
            caller = await self._of_bearer(given.strip()) if kind.lower() == "bearer" else None
        else:
            caller = self._tokens.of_session(_cookie(headers.get(b"cookie", b"")), time.time())
            if caller is not None and method not in _READS:
                _check_origin(headers)
        if caller is None:
            said = "no token or key that is known here: send `Authorization: Bearer …`"
            raise HTTPError(401, said, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        if not caller.admin and path.startswith(_OWN):
            raise HTTPError(403, "the boards and /metrics are for the installation's own token", code="not_allowed")
        if caller.requests_per_minute is not None and method not in _READS:
            await self._check_rate(caller)
        return caller

    async def _of_bearer(self, given: str) -> Caller | None:
        known = self._tokens.remembered(given)
        return known or await asyncio.to_thread(self._tokens.of_bearer, given)

    async def _check_rate(self, caller: Caller) -> None:
        if wait := await asyncio.to_thread(self._tokens.wait_s, caller, time.time()):
            said = f"this key may send {caller.requests_per_minute} requests a minute: try again in {math.ceil(wait)} s"
            raise HTTPError(429, said, code="rate_limit_exceeded", retry_after=wait)


class Body:
    """The body of a request as it comes, bounded in size and in time."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most = receive, most
        self._came, self._over = 0, False

    def expect(self, length: bytes | None) -> None:
        """What the head says of it."""
        if length is not None and length.isdigit() and int(length) > self._most:
            raise self._too_large()

    async def __call__(self) -> Message:
        """The next message; after the body's last piece, that the client has left."""
        if self._over:
            return await self._receive()
        try:
            async with asyncio.timeout(BODY_S):
                message = await self._receive()
        except TimeoutError:
            raise HTTPError(408, f"no more of the body came within {BODY_S:g} s", code="slow_body") from None
        self._came += len(message.get("body", b""))
        if self._came > self._most:
            raise self._too_large()
        self._over = not message.get("more_body", False)
        return message

    def _too_large(self) -> HTTPError:
        return HTTPError(413, f"the body is larger than {self._most >> 20} MiB", code="too_large")


def _cookie(given: bytes) -> str:
    for pair in given.decode("latin-1").split(";"):
        name, _, value = pair.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def _check_origin(headers: dict[bytes, bytes]) -> None:
    """What changes something must come from this server's own page: browsers send the cookie for others, too."""
    origin = headers.get(b"origin")
    same = origin is None or origin.partition(b"://")[2].lower() == headers.get(b"host", b"").lower()
    site = headers.get(b"sec-fetch-site", b"same-origin") in (b"same-origin", b"none")
    if not (same and site and headers.get(b"x-shunter-page")):
        raise HTTPError(403, "this must be sent by the page of this server itself", code="cross_site")
