"""One SDK client an event loop, made on first use; its transport, its authentication and nothing else of it."""

import asyncio
import os
import ssl
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.request import getproxies
from weakref import WeakKeyDictionary

import httpx2

from jobs.clock import Stopwatch
from jobs.errors import CallError, Permanent, Transient
from jobs.providers import Endpoint
from jobs.providers.answers import decode, encode
from jobs.providers.failures import Place, Refused, failure
from jobs.providers.pool import MOST, Pool, Target, target_of

NO_KEY = "none"  # a compatible server may want no key, and the SDKs want one
LIMITS = httpx2.Limits(max_connections=MOST, max_keepalive_connections=MOST)
UNREAD = {"X-Stainless-Raw-Response": "stream"}  # the SDKs' own word for: leave the body on the wire

Make = Callable[
    [str, str, Mapping[str, Any]], Any
]  # an SDK's client of a base URL, a key and its HTTP client's options


@cache
def _trust() -> ssl.SSLContext:
    """Reading the trust store takes 3 MB and more time than all the rest of a client."""
    context = httpx2.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def transport(base_url: str) -> dict[str, Any]:
    """What an SDK client's HTTP client is made with; its `transport` is ours where no proxy is in the way."""
    # No redirects: the SDKs would send a paid request on, and round in circles.
    made: dict[str, Any] = {"follow_redirects": False}
    if getproxies().keys() & {"http", "https", "all"}:  # only httpx2 itself knows which address goes through one
        return made | {"verify": _trust(), "limits": LIMITS, "event_hooks": {"request": [_timed]}}
    if base_url.startswith("https:"):
        _trust()  # now, and not while the first call waits
    return made | {"transport": Pool(_trust, _watch.get)}


_watch: ContextVar[Stopwatch | None] = ContextVar("watch", default=None)


async def _timed(request: httpx2.Request) -> None:
    """Let the stopwatch of this call, if it has one, hear of the connection and of the request's first byte."""
    watch = _watch.get()
    if watch is None:
        return

    async def trace(event: str, _: Mapping[str, Any]) -> None:
        match event:
            case "connection.connect_tcp.started":
                watch.connecting()
            case "connection.connect_tcp.complete" | "connection.start_tls.complete":
                watch.connected()
            case "http11.send_request_headers.started" | "http2.send_request_headers.started":
                watch.sent()

    request.extensions = {**request.extensions, "trace": trace}


@dataclass
class _Client:
    """An SDK's client, with what is below it."""

    sdk: Any
    pool: Pool | None
    targets: dict[tuple[str, bool], Target] = field(default_factory=dict)  # by path, and whether it is read as it comes

    async def target(self, path: str, *, unread: bool) -> Target:
        """How the SDK would post to a path: asked once, without sending anything."""
        if (known := self.targets.get((path, unread))) is None:
            probe = httpx2.MockTransport(lambda request: httpx2.Response(200, request=request))
            sdk = self.sdk.with_options(http_client=httpx2.AsyncClient(transport=probe))
            options = {"headers": UNREAD} if unread else {}
            response = await sdk.post(path, cast_to=httpx2.Response, content=b"", options=options)
            known = self.targets[path, unread] = target_of(response.request)
        return known


class Connection:
    """Raw requests as an SDK's client sends them, so that a hot call costs one JSON decode and no models."""

    def __init__(self, endpoint: Endpoint, make: Make) -> None:
        self.endpoint = endpoint
        self._make = make
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, _Client] = WeakKeyDictionary()

    def place(self, model: str = "") -> Place:
        """Where a call goes, for the texts of its errors."""
        host = self.endpoint.base_url.partition("://")[2].partition("/")[0].rpartition("@")[2]
        return Place(host or repr(self.endpoint.base_url), self.endpoint.key_env, self._key(), model)

    def _key(self) -> str:
        return os.environ.get(self.endpoint.key_env, "").strip()

    def ready(self) -> None:
        """Make this loop's client, if there is none yet: that takes time that is no answer's."""
        self._client()

    def _client(self) -> _Client:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            key = self._checked_key()
            try:
                base_url = self.endpoint.base_url.rstrip("/")
                http = transport(base_url)
                sdk = self._make(base_url, key, http)
            except Exception as error:
                raise failure(error, self.place(), sent=False) from None
            client = self._clients[loop] = _Client(sdk, http.get("transport"))
        return client

    def _checked_key(self) -> str:
        key, name = self._key(), self.endpoint.key_env
        if not key and self.endpoint.own:
            raise Permanent(f"no key for {self.place().host}: set {name}", code="no_key")
        if not (key.isascii() and key.isprintable()):
            raise Permanent(f"the key in {name} has characters that no header can carry: set it anew", code="bad_key")
        return key or NO_KEY

    async def post(
        self,
        path: str,
        body: bytes,
        timeout: httpx2.Timeout,  # noqa: ASYNC109 - of the socket; the whole is bounded by the caller
        *,
        unread: bool = False,
        watch: Stopwatch | None = None,
    ) -> httpx2.Response:
        """A call's response, as `send` would bring it, for a tenth of the time: the SDK is not asked again."""
        client = self._client()
        if client.pool is None:
            return await self.send("post", path, content=body, timeout=timeout, unread=unread, watch=watch)
        target = await client.target(path, unread=unread)
        response = await client.pool.post(target, body, timeout.as_dict(), watch)
        try:
            if not (unread and response.is_success):
                await response.aread()
        except BaseException:
            await response.aclose()
            raise
        if not response.is_success:
            raise Refused(response)
        return response

    async def send(
        self,
        method: str,
        path: str,
        *,
        content: Any = None,
        timeout: httpx2.Timeout,  # noqa: ASYNC109 - of the socket; the whole is bounded by the caller
        unread: bool = False,
        watch: Stopwatch | None = None,
        **more: Any,
    ) -> httpx2.Response:
        """The response of a request, its body read or (`unread`) still on the wire; raises what the SDK raises."""
        _watch.set(watch)
        options = {"timeout": timeout, "params": more.pop("params", {})}
        headers = {**(UNREAD if unread else {}), **more.pop("headers", {})}
        if headers:
            options["headers"] = headers
        client = self._client().sdk
        if method == "post":
            if "files" in more:
                options["headers"] = {"Content-Type": "multipart/form-data"}
                more["body"] = more.pop("form")
            response = await client.post(path, cast_to=httpx2.Response, content=content, options=options, **more)
        else:
            response = await getattr(client, method)(path, cast_to=httpx2.Response, options=options)
        assert isinstance(response, httpx2.Response)
        return response

    async def ask(
        self, method: str, path: str, *, body: Any = None, seconds: float = 60.0, creates: bool = False, **more: Any
    ) -> dict[str, Any]:
        """The JSON object that a management call answers with, or a CallError."""
        if body is not None:
            more["content"] = encode(body)
        try:
            async with asyncio.timeout(seconds):
                response = await self.send(method, path, timeout=httpx2.Timeout(seconds, connect=5.0), **more)
            answer = decode(response.content) if response.content or method != "delete" else {}
        except Exception as error:
            raise failure(error, self.place(), creates=creates, sent=creates) from None
        if not isinstance(answer, dict):
            text = f"{self.place().host} answered {path} with what is no JSON object"
            raise Transient(text, code="malformed", status=response.status_code, maybe_billed=creates)
        return answer

    def failure(self, error: BaseException, model: str = "") -> CallError:
        """The CallError that an exception of a call is."""
        return failure(error, self.place(model))

    def id_of(self, answer: Mapping[str, Any], what: str) -> str:
        """The id of what a POST made; an answer without one leaves open what was made."""
        if not (isinstance(answer.get("id"), str) and answer["id"]):
            text = f"{self.place().host} answered without the id of {what}"
            raise Transient(text, code="malformed", maybe_billed=True)
        return str(answer["id"])

    def clean(self, text: str | None) -> str | None:
        """A provider's text without anything like a key."""
        return self.place().clean(text) if text else text

    async def close(self) -> None:
        """Close this loop's connections; those of a loop that is gone went with it."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.sdk.close()


def header(headers: Mapping[str, str], name: str) -> str:
    """A header's value in lower case, empty when absent."""
    return headers.get(name, "").lower()
