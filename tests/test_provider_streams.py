"""The real SDKs over loopback against wire bytes: each way a stream can end, named as api_facts 1.6 names it."""

from collections.abc import Callable
from typing import Any

import pytest

from jobs.chat import Outcome, Usage
from jobs.errors import Permanent, Transient
from jobs.providers import PROVIDERS, Endpoint
from tests import wire
from tests.stream_wire import FIRST, FORMATS, IDLE, SLOW, bytes_of, ended, gather, run
from tests.wire import Script, serving


@pytest.fixture(params=["openai", "anthropic"], autouse=True)
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("A_KEY", "sk-test-1234567890")
    return str(request.param)


def test_complete(name: str) -> None:
    script = wire.stream(
        *bytes_of(name, "start", "text", "more", "finish", "end"),
        x_request_id="r-1",
        x_ratelimit_remaining_requests="9",
    )
    texts, answer = ended(name, script)
    assert texts == ["he", "llo"]
    assert (answer.outcome, answer.first.text, answer.usage) == (Outcome.COMPLETE, "hello", Usage(3, 2))
    assert (answer.model, answer.request_id) == ("m-1", "r-1")
    assert answer.headers == {"x-ratelimit-remaining-requests": "9"}


AFTER_TEXT: dict[str, tuple[Callable[[str], Script], Outcome]] = {
    "chunked stream cut (FIN)": (lambda n: wire.stream(*bytes_of(n, "start", "text"), end="fin"), Outcome.CUT),
    "chunked stream cut (RST)": (lambda n: wire.stream(*bytes_of(n, "start", "text"), end="rst"), Outcome.CUT),
    "silence": (lambda n: wire.stream(*bytes_of(n, "start", "text"), end="silence"), Outcome.TIMED_OUT),
    "close-delimited body, cut": (lambda n: wire.until_close(*bytes_of(n, "start", "text")), Outcome.CUT),
    "close-delimited body, cut in an event": (
        lambda n: wire.until_close(*bytes_of(n, "start", "text"), FORMATS[n]["more"][:30]),
        Outcome.CUT,
    ),
    "clean end, no finish reason": (lambda n: wire.stream(*bytes_of(n, "start", "text")), Outcome.CUT),
    "end word, no finish reason": (lambda n: wire.stream(*bytes_of(n, "start", "text", "end")), Outcome.CUT),
    "malformed JSON": (lambda n: wire.stream(*bytes_of(n, "start", "text"), b'data: {"ch\n\n'), Outcome.MALFORMED),
    "malformed JSON in the same chunk": (
        lambda n: wire.stream(b"".join(bytes_of(n, "start", "text")) + b"data: x\n\n", end="silence"),
        Outcome.MALFORMED,
    ),
    "data that is no object": (lambda n: wire.stream(*bytes_of(n, "start", "text"), b"data: 7\n\n"), Outcome.MALFORMED),
    "invalid UTF-8": (lambda n: wire.stream(*bytes_of(n, "start", "text"), b'data: "\xff"\n\n'), Outcome.MALFORMED),
    "in-stream error": (lambda n: wire.stream(*bytes_of(n, "start", "text", "error")), Outcome.PROVIDER_ERROR),
    "error event without an error key": (
        lambda n: wire.stream(*bytes_of(n, "start", "text"), b'event: error\ndata: {"message": "busy"}\n\n'),
        Outcome.PROVIDER_ERROR,
    ),
}


@pytest.mark.parametrize("row", AFTER_TEXT)
def test_a_broken_stream_keeps_its_text_and_is_no_success(name: str, row: str) -> None:
    script, outcome = AFTER_TEXT[row]
    texts, answer = ended(name, script(name), IDLE)
    assert texts == ["he"]
    assert (answer.outcome, answer.first.text, answer.usage) == (outcome, "he", None)
    assert answer.error


BEFORE_TEXT: dict[str, tuple[Callable[[str], Script], str]] = {
    "server closes before the head": (lambda n: wire.hang_up, "cut"),
    "no head": (lambda n: wire.mute, "first_token_timeout"),
    "cut after the role": (lambda n: wire.stream(*bytes_of(n, "start"), end="fin"), "cut"),
    "silence after the role": (lambda n: wire.stream(*bytes_of(n, "start"), end="silence"), "first_token_timeout"),
    "nothing at all": (lambda n: wire.stream(), "cut"),
    "in-stream error first": (lambda n: wire.stream(*bytes_of(n, "start", "error")), "overloaded"),
    "200 with an error object": (
        lambda n: wire.reply({"error": {"message": "busy", "code": "overloaded"}}),
        "overloaded",
    ),
    "200 with null": (lambda n: wire.reply(b"null"), "malformed"),
    "200 with an empty object": (lambda n: wire.reply({}), "malformed"),
    "200 with HTML": (lambda n: wire.reply(b"<html>", kind="text/html"), "malformed"),
    "200 with truncated JSON": (lambda n: wire.reply(FORMATS[n]["whole"][:40]), "malformed"),
}


@pytest.mark.parametrize("row", BEFORE_TEXT)
def test_before_the_first_word_a_failure_is_an_error(name: str, row: str) -> None:
    script, code = BEFORE_TEXT[row]
    texts, error = ended(name, script(name), FIRST)
    assert texts == []
    assert isinstance(error, Transient)
    assert code in error.code
    assert error.maybe_billed


def test_connection_refused(name: str) -> None:
    async def test() -> Any:
        async with serving(wire.mute) as server:
            url = server.url
        made = PROVIDERS[name](Endpoint(name, url, False, "A_KEY"))
        try:
            return await gather(made)
        finally:
            await made.close()

    _, error = run(test)
    assert isinstance(error, Transient)
    assert (error.code, error.maybe_billed) == ("unreachable", False)
    assert "check the base URL" in str(error)


@pytest.mark.parametrize("status", [400, 401, 429, 500, 529])
def test_an_error_in_the_head(name: str, status: int) -> None:
    body = {"error": {"message": "no sk-test-1234567890", "type": "t", "code": "c"}}
    _, error = ended(name, wire.reply(body, status, retry_after="4", request_id="r"))
    assert isinstance(error, Permanent if status < 429 else Transient)
    assert (error.status, error.code, error.request_id, error.maybe_billed) == (status, "c", "r", False)
    assert getattr(error, "retry_after", 4.0) == 4.0
    assert "sk-" not in str(error)


def test_a_whole_answer_to_a_stream_is_taken(name: str) -> None:
    texts, answer = ended(name, wire.reply(FORMATS[name]["whole"]))
    assert (texts, answer.outcome) == (["hello"], Outcome.COMPLETE)


@pytest.mark.parametrize(
    ("noise", "line_end"),
    [(b": ping\n\n", b"\n"), (b"id: 4\n\n: ping\n\n", b"\n"), (b"event: x\n\n", b"\r\n"), (b"data:\n\n", b"\r")],
)
def test_noise_between_events_does_no_harm(name: str, noise: bytes, line_end: bytes) -> None:
    names = bytes_of(name, "start", "text", "more", "finish", "end")
    data = noise.join(names).replace(b"\n", line_end)
    script = wire.stream(*(data[i : i + 7] for i in range(0, len(data), 7)))
    texts, answer = ended(name, script, SLOW)
    assert (texts, answer.outcome) == (["he", "llo"], Outcome.COMPLETE)


def test_the_last_event_needs_no_blank_line(name: str) -> None:
    *first, last = bytes_of(name, "start", "text", "finish")
    _, answer = ended(name, wire.stream(*first, last.rstrip()))
    assert answer.outcome is Outcome.COMPLETE


def test_a_cut_after_the_finish_reason_is_complete_with_what_is_known(name: str) -> None:
    texts, answer = ended(name, wire.stream(*bytes_of(name, "start", "text", "finish"), end="rst"))
    assert (texts, answer.outcome) == (["he"], Outcome.COMPLETE)
    assert (answer.usage is None) == (name == "openai")  # Anthropic's usage comes with the stop reason
