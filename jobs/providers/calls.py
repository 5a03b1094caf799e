"""A plain call and a streamed one, the same for every wire format: bounded in time, closed at once."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace
from typing import Any, Protocol

import httpx2

from jobs.chat import Answer, CallPiece, Choice, Delta, Outcome
from jobs.clock import Stopwatch
from jobs.errors import CallError, Permanent, Transient
from jobs.providers import Timeouts
from jobs.providers.answers import Head, decode, error_of, head_of
from jobs.providers.connection import Connection, header
from jobs.providers.failures import Late, Told, lasting
from jobs.providers.sse import Decoder, Event

DRAIN_SECONDS = 0.1  # after [DONE] the last bytes are read, so that the connection can be used again
ReadBody = Callable[[bytes, Head], Answer]
MakeBody = Callable[[], bytes]  # made when the stream is first asked, so that its refusal is raised there


class Wire(Protocol):
    """What a stream's accumulator is to this file."""

    head: Head
    over: bool

    @property
    def begun(self) -> bool: ...

    @property
    def whole(self) -> bool: ...

    def feed(self, chunk: Any) -> list[Delta]: ...

    def finish(self, failure: CallError | None = None) -> Answer: ...


async def complete(
    connection: Connection,
    path: str,
    body: bytes,
    *,
    model: str,
    timeouts: Timeouts,
    read: ReadBody,
    watch: Stopwatch | None = None,
) -> Answer:
    """One plain call within `timeouts.total` seconds."""
    connection.ready()
    try:
        async with _within(timeouts.total):
            response = await connection.post(path, body, _socket(timeouts), watch=watch)
    except Exception as error:
        raise connection.failure(error, model) from None
    answer = read(response.content, head_of(response.headers.raw))
    return replace(answer, error=connection.clean(answer.error)) if answer.error else answer


async def stream(
    connection: Connection,
    path: str,
    body: MakeBody,
    wire: Wire,
    *,
    model: str,
    timeouts: Timeouts,
    read: ReadBody,
    watch: Stopwatch | None = None,
) -> AsyncGenerator[Delta | Answer]:
    """Deltas, then one Answer; CallError only before anything of the answer has come."""
    connection.ready()
    reader = _Reader(wire, timeouts, watch)
    try:
        ended: CallError | None = None
        try:
            plain = await reader.open(connection, path, body())
        except Exception as error:
            raise connection.failure(error, model) from None
        if plain is not None:
            await reader.close()
            for piece in _whole(read(plain, wire.head), connection, model):
                yield piece
            return
        while True:
            try:
                deltas = await reader.deltas()
            except Exception as error:
                ended = connection.failure(error, model)
                break
            if deltas is None:
                break
            for delta in deltas:
                yield delta
        await reader.close()  # a reader may stop at the Answer: nothing is left open behind it
        yield _last(wire, ended, connection, model)
    finally:
        await reader.close()


def _last(wire: Wire, ended: CallError | None, connection: Connection, model: str) -> Answer:
    """The answer a stream ends in; its failure when nothing has come."""
    if not wire.begun:
        name = connection.place(model).name
        raise ended or Transient(f"the stream of {name} ended without a word", code="cut", maybe_billed=True)
    answer = wire.finish(ended)
    return replace(answer, lasting=True) if isinstance(ended, Permanent) and not answer.usable else answer


def _whole(answer: Answer, connection: Connection, model: str) -> list[Delta | Answer]:
    """A plain body in answer to a stream: some servers ignore `stream`; what is no answer is an error."""
    if answer.outcome in (Outcome.MALFORMED, Outcome.PROVIDER_ERROR):
        place, code = connection.place(model), answer.error_code or "provider_error"
        kind = Permanent if lasting(None, code) else Transient
        raise kind(f"{place.name}: {place.clean(answer.error or code)}", code=place.clean(code), maybe_billed=True)
    return [*(_shown(index, choice) for index, choice in enumerate(answer.choices) if choice != Choice()), answer]


def _shown(index: int, choice: Choice) -> Delta:
    calls = (CallPiece(number, call.id, call.name, call.raw) for number, call in enumerate(choice.tool_calls))
    return Delta(choice.text, choice.refusal, choice.reasoning, index, tuple(calls))


class _Reader:
    """The events of one response, each read bounded in time; comments keep nothing alive."""

    def __init__(self, wire: Wire, timeouts: Timeouts, watch: Stopwatch | None) -> None:
        self._wire = wire
        self._watch = watch
        self._timeouts = timeouts
        self._decoder = Decoder()
        self._response: httpx2.Response | None = None
        self._bytes: AsyncIterator[bytes] | None = None
        self._events: deque[Event] = deque()
        started = asyncio.get_running_loop().time()
        self._quiet = 0.0  # seconds that were waited since the last delta: a ping is none
        self._total = started + timeouts.total
        self._first = min(started + timeouts.first_token, self._total)

    async def open(self, connection: Connection, path: str, body: bytes) -> bytes | None:
        """Send the request; the body when the answer is no event stream."""
        try:
            async with asyncio.timeout_at(self._first):
                self._response = await connection.post(
                    path, body, _socket(self._timeouts), unread=True, watch=self._watch
                )
                self._wire.head = head_of(self._response.headers.raw)
                kind = header(self._response.headers, "content-type")
                if "json" in kind or "html" in kind:
                    return await self._response.aread()
        except TimeoutError:
            raise self._late(self._first) from None
        self._bytes = _body_of(self._response)
        return None

    async def deltas(self) -> list[Delta] | None:
        """What the next event brings; None at the end. Of a burst each event is decoded when it is asked for."""
        if not self._events and not self._wire.over:
            self._events.extend(await self._read())
        if not self._events or self._wire.over:
            return None
        deltas = self._feed(self._events.popleft())
        if deltas:
            self._quiet = 0.0
        return deltas

    async def _read(self) -> list[Event]:
        """The next events; none at the end."""
        assert self._bytes is not None
        clock = asyncio.get_running_loop().time
        asked = clock()
        idle = asked + self._timeouts.idle - self._quiet
        deadline = min(idle, self._total) if self._wire.begun else self._first
        try:
            async with asyncio.timeout_at(deadline):
                async for piece in self._bytes:
                    if events := self._decoder.feed(piece):
                        self._quiet += clock() - asked
                        return events
        except TimeoutError:
            raise self._late(deadline) from None
        return [event for event in self._decoder.rest() if _readable(event.data)]

    def _late(self, deadline: float) -> Late:
        if deadline == self._total:
            return Late("total_timeout", f"not done within {self._timeouts.total:g} s")
        if deadline == self._first:
            return Late("first_token_timeout", f"no first token within {self._timeouts.first_token:g} s")
        return Late("idle_timeout", f"nothing new for {self._timeouts.idle:g} s")

    def _feed(self, event: Event) -> list[Delta]:
        if event.data.startswith(b"[DONE]"):
            self._wire.over = True
            return []
        chunk = decode(event.data)
        if not isinstance(chunk, dict):
            raise ValueError(f"an event that is no JSON object: {event.data[:80]!r}")  # noqa: TRY004 - the wire's fault
        if chunk.get("error") or event.name == b"error":
            raise Told(*(error_of(chunk) or error_of({"error": chunk}) or ("", "", "an error without a word")))
        return self._wire.feed(chunk)

    async def close(self) -> None:
        """Close the connection at once, or leave it for the next call when the stream was read to its end."""
        received, self._bytes = self._bytes, None
        if received is not None:
            if self._wire.over:
                with contextlib.suppress(Exception):
                    async with asyncio.timeout(DRAIN_SECONDS):
                        async for _ in received:
                            pass
            await received.aclose()  # type: ignore[attr-defined]
        if self._response is not None:
            await self._response.aclose()


def _body_of(response: httpx2.Response) -> AsyncIterator[bytes]:
    """Its bytes as they come; the library's own way to them is a third of what an event costs."""
    if header(response.headers, "content-encoding") or not isinstance(response.stream, httpx2.AsyncByteStream):
        return response.aiter_bytes()
    return aiter(response.stream)


def _readable(data: bytes) -> bool:
    try:
        return data.startswith(b"[DONE]") or decode(data) is not None
    except ValueError:
        return False


@contextlib.asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Late("total_timeout", f"not done within {seconds:g} s") from None


def _socket(timeouts: Timeouts) -> httpx2.Timeout:
    """Only the connect is timed on the socket: idle bytes say nothing about an answer's progress."""
    return httpx2.Timeout(None, connect=timeouts.connect)
