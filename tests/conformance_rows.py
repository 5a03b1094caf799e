"""The 14 rows of `what breaks how`, and the stalls of real servers: each with its end here and behind the raw SDKs."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import anthropic
import httpx2
import openai

from jobs.chat import Outcome
from jobs.providers import Timeouts
from tests import wire
from tests.conformance import End, Format, complete, cut, late, malformed, told
from tests.conformance_calls import FIRST, IDLE, TOTAL
from tests.stream_wire import SLOW
from tests.wire import Peer, Script

Make = Callable[[Format], Script]


@dataclass(frozen=True, slots=True)
class Sdk:
    """What the raw SDK raises (None: it ends normally), what it wraps in it, and the outcome that is left behind it."""

    raises: type[Exception] | None
    wraps: type[Exception] | None
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Row:
    """A way to break, its end here, and behind each raw SDK where that is told. A `script` of None: nobody listens."""

    script: Make | None
    end: End
    openai: Sdk | None = None
    anthropic: Sdk | None = None
    timeouts: Timeouts = SLOW
    plain: bool = False

    def behind(self, form: Format) -> Sdk:
        """What is told of this format's SDK."""
        sdk = self.anthropic if form.provider == "anthropic" else self.openai
        assert sdk is not None
        return sdk


def stream(*names: str, end: str = "clean") -> Make:
    return lambda form: wire.stream(*form.bytes_of(*names), end=end)


def until_close(*names: str, short: int = 0) -> Make:
    """The connection's end is the body's; `short` bytes are missing."""

    def script(form: Format) -> Script:
        data = b"".join(form.bytes_of(*names))
        return wire.until_close(data[: len(data) - short])

    return script


def noisy(noise: bytes) -> Make:
    """A whole stream with this after its first words."""
    return lambda form: wire.stream(*form.bytes_of("start", "text", "more"), noise, *form.bytes_of("finish", "end"))


def unended(form: Format) -> Script:
    """The last event lacks its blank line."""
    return wire.stream(*form.bytes_of("start", "text", "more"), form.parts["finish"].rstrip(b"\n"))


def plain(size: int | None = None, kind: str = "application/json", body: bytes | None = None) -> Make:
    """A whole answer, or the first bytes of one."""
    return lambda form: wire.reply((form.parts["whole"] if body is None else body)[:size], kind=kind)


def plain_cut(form: Format) -> Script:
    """A whole answer whose connection ends half-way."""

    async def script(peer: Peer) -> None:
        body = form.parts["whole"]
        await peer.send(wire.head(content_length=str(len(body))) + b"\r\n" + body[:40])

    return script


def both(raises: type[Exception] | None, outcome: Outcome) -> dict[str, Sdk]:
    """Both SDKs end alike."""
    return {"openai": Sdk(raises, None, outcome), "anthropic": Sdk(raises, None, outcome)}


def unconnected(cause: type[Exception], outcome: Outcome, *, timeout: bool = False) -> dict[str, Sdk]:
    """Before the head, and in a plain call, both SDKs wrap what the transport raises."""
    name = "APITimeoutError" if timeout else "APIConnectionError"
    return {each.__name__: Sdk(getattr(each, name), cause, outcome) for each in (openai, anthropic)}


def dropped(cause: type[Exception], outcome: Outcome, *, timeout: bool = False) -> dict[str, Sdk]:
    """In mid-stream openai wraps it, anthropic does not."""
    wrapped = unconnected(cause, outcome, timeout=timeout)
    return {"openai": wrapped["openai"], "anthropic": Sdk(cause, None, outcome)}


NORMALLY = both(None, Outcome.CUT)  # an end like any other for the SDKs: only the missing finish reason shows it
LOST = both(json.JSONDecodeError, Outcome.MALFORMED)
EMPTY = {"openai": Sdk(json.JSONDecodeError, None, Outcome.MALFORMED), "anthropic": Sdk(None, None, Outcome.COMPLETE)}

ROWS = {
    " 1 connection refused": Row(
        None, End(Outcome.PROVIDER_ERROR, code="unreachable"),
        **unconnected(httpx2.ConnectError, Outcome.PROVIDER_ERROR),
    ),
    " 2 server closes before head": Row(
        lambda _: wire.hang_up, cut(), **unconnected(httpx2.RemoteProtocolError, Outcome.CUT)
    ),
    " 3 no head within read timeout": Row(
        lambda _: wire.mute, late("first_token"),
        **unconnected(httpx2.ReadTimeout, Outcome.TIMED_OUT, timeout=True), timeouts=FIRST,
    ),
    " 4 chunked stream cut (FIN)": Row(
        stream("start", "text", end="fin"), cut("he"), **dropped(httpx2.RemoteProtocolError, Outcome.CUT)
    ),
    " 4 chunked stream cut (FIN) before the first word": Row(
        stream("start", end="fin"), cut()
    ),
    " 5 chunked stream cut (RST)": Row(
        stream("start", "text", end="rst"), cut("he"), **dropped(httpx2.ReadError, Outcome.CUT)
    ),
    " 6 silence longer than read timeout": Row(
        stream("start", "text", end="silence"), late("idle", "he"),
        **dropped(httpx2.ReadTimeout, Outcome.TIMED_OUT, timeout=True), timeouts=IDLE,
    ),
    " 6 silence before the first word": Row(
        stream("start", end="silence"), late("first_token"), timeouts=FIRST
    ),
    " 6 silence until the total is over": Row(
        stream("start", "text", end="silence"), late("total", "he"), timeouts=TOTAL
    ),
    " 7 body delimited by connection close, cut": Row(until_close("start", "text"), cut("he"), **NORMALLY),
    " 7 body delimited by connection close, cut in an event": Row(
        until_close("start", "text", "more", short=9), cut("he"), **NORMALLY
    ),
    " 8 clean chunk end, no finish_reason, no [DONE]": Row(stream("start", "text"), cut("he"), **NORMALLY),
    " 9 last event not followed by a blank line": Row(unended, complete("hello"), **NORMALLY),
    "10 malformed JSON in data:": Row(stream("start", "text", "broken"), malformed("he"), **LOST),
    "10 empty data:": Row(noisy(b"data:\n\n"), complete("hello"), **EMPTY),
    "10 event: line without data": Row(noisy(b"event: x\n\n"), complete("hello"), **EMPTY),
    "11 invalid UTF-8": Row(
        stream("start", "text", "invalid"), malformed("he"), **both(UnicodeDecodeError, Outcome.MALFORMED)
    ),
    "12 HTTP 200 application/json body for a stream request": Row(plain(), complete("hello"), **NORMALLY),
    "12 the same, an error object": Row(
        plain(body=b'{"error": {"message": "busy", "code": "overloaded"}}'), told("overloaded"), **NORMALLY
    ),
    "12 the same, null (LiteLLM)": Row(plain(body=b"null"), malformed(), **NORMALLY),
    "13 non-stream call, body cut": Row(
        plain_cut, cut(), **unconnected(httpx2.RemoteProtocolError, Outcome.CUT), plain=True
    ),
    "14 non-stream call, 200 with HTML": Row(plain(body=b"<html>"), malformed(), **LOST, plain=True),
    "14 non-stream call, truncated JSON": Row(plain(40), malformed(), **LOST, plain=True),
    "   id: is remembered, so that a comment is an empty event to the SDK": Row(
        noisy(b"id: 7\n\n: ping\n\n"), complete("hello"), **EMPTY
    ),
    "   non-stream call, null (LiteLLM): no error from the SDK": Row(
        plain(body=b"null"), malformed(), **NORMALLY, plain=True
    ),
}  # fmt: skip
