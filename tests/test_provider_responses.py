"""The Responses provider over loopback: each way a stream can end on wire bytes, then the sandbox and its bill."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from jobs.chat import Answer, Delta, Message, Outcome, Request, Usage
from jobs.clock import Stopwatch
from jobs.errors import CallError, Permanent, Transient
from jobs.providers import Endpoint, Timeouts
from jobs.providers.openai_responses import OpenAIResponses
from jobs.sandbox.server import Sandbox
from tests import wire
from tests.stream_wire import FIRST, IDLE, REQUEST, SLOW, TOTAL, run
from tests.wire import Script, Server, serving, sse

KEY = "sk-test-1234567890"
USAGE = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
ITEM = {"type": "message", "id": "msg", "content": [{"type": "output_text", "text": "hello"}]}
PLACE = {"item_id": "msg", "output_index": 0, "content_index": 0}
WHOLE = {"object": "response", "status": "completed", "model": "m-1", "output": [ITEM], "usage": USAGE}
BUSY = {"code": "server_is_overloaded", "message": f"busy {KEY}"}


def named(*events: dict[str, Any]) -> bytes:
    return sse(*events, named=True)


def failed(**more: Any) -> bytes:
    return named({"type": "response.failed", "response": {"status": "failed", "error": BUSY, "output": [], **more}})


START = named(
    {"type": "response.created", "response": {**WHOLE, "status": "in_progress", "output": [], "usage": None}},
    {"type": "response.output_item.added", "output_index": 0, "item": {**ITEM, "content": []}},
)
TEXT = named({"type": "response.output_text.delta", "delta": "he", **PLACE})
MORE = named({"type": "response.output_text.delta", "delta": "llo", **PLACE})
END = named({"type": "response.completed", "response": WHOLE})
ERRORS = {
    "flat": named({"type": "error", **BUSY}),
    "flat without a name": sse({"type": "error", **BUSY}),
    "nested": named({"type": "error", "error": BUSY}),
    "nested without a name": sse({"type": "error", "error": BUSY}),
    "failed": failed(),
}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", KEY)


@asynccontextmanager
async def provider(*scripts: Script, own: bool = False) -> AsyncIterator[tuple[OpenAIResponses, Server]]:
    async with serving(*scripts) as server:
        made = OpenAIResponses(Endpoint("openai", server.url + "/v1", own, "A_KEY"))
        try:
            yield made, server
        finally:
            await made.close()


async def gather(made: OpenAIResponses, timeouts: Timeouts = SLOW, request: Request = REQUEST) -> tuple[list[str], Any]:
    """The texts that were shown, and how it ended."""
    texts: list[str] = []
    try:
        async for item in made.stream(request, tier="default", timeouts=timeouts):
            if isinstance(item, Answer):
                return texts, item
            texts.append(item.text)
    except CallError as error:
        return texts, error
    raise AssertionError("neither an answer nor an error")


def ended(script: Script, timeouts: Timeouts = SLOW) -> tuple[list[str], Any]:
    async def test() -> tuple[list[str], Any]:
        async with provider(script) as (made, _):
            return await gather(made, timeouts)

    result: tuple[list[str], Any] = run(test)
    return result


def completed(script: Script, *, tier: str = "default", own: bool = False) -> tuple[Any, Server]:
    async def test() -> tuple[Any, Server]:
        async with provider(script, own=own) as (made, server):
            try:
                return await made.complete(REQUEST, tier=tier, timeouts=SLOW), server
            except CallError as error:
                return error, server

    result: tuple[Any, Server] = run(test)
    return result


def test_a_stream() -> None:
    script = wire.stream(START, TEXT, MORE, END, x_request_id="r-1", x_ratelimit_remaining_requests="9")
    texts, answer = ended(script)
    assert texts == ["he", "llo"]
    assert (answer.outcome, answer.first.text, answer.usage) == (Outcome.COMPLETE, "hello", Usage(3, 2))
    assert (answer.model, answer.request_id) == ("m-1", "r-1")
    assert answer.headers == {"x-ratelimit-remaining-requests": "9"}


AFTER_TEXT: dict[str, tuple[Script, Outcome]] = {
    "chunked stream cut (FIN)": (wire.stream(START, TEXT, end="fin"), Outcome.CUT),
    "chunked stream cut (RST)": (wire.stream(START, TEXT, end="rst"), Outcome.CUT),
    "silence": (wire.stream(START, TEXT, end="silence"), Outcome.TIMED_OUT),
    "close-delimited body, cut": (wire.until_close(START, TEXT), Outcome.CUT),
    "close-delimited body, cut in an event": (wire.until_close(START, TEXT, MORE[:60]), Outcome.CUT),
    "clean end": (wire.stream(START, TEXT), Outcome.CUT),
    "[DONE] and no terminal event": (wire.stream(START, TEXT, sse("[DONE]")), Outcome.CUT),
    "malformed JSON": (wire.stream(START, TEXT, b'data: {"ty\n\n'), Outcome.MALFORMED),
    "data that is no object": (wire.stream(START, TEXT, b"data: 7\n\n"), Outcome.MALFORMED),
    **{f"error: {shape}": (wire.stream(START, TEXT, ERRORS[shape]), Outcome.PROVIDER_ERROR) for shape in ERRORS},
    "cancelled there": (
        wire.stream(START, TEXT, named({"type": "response.cancelled", "response": {"status": "cancelled"}})),
        Outcome.PROVIDER_ERROR,
    ),
}


@pytest.mark.parametrize("row", AFTER_TEXT)
def test_a_broken_stream_keeps_its_text_and_is_no_success(row: str) -> None:
    script, outcome = AFTER_TEXT[row]
    texts, answer = ended(script, IDLE)
    assert texts == ["he"]
    assert (answer.outcome, answer.first.text, answer.usage) == (outcome, "he", None)
    assert answer.error
    assert KEY not in answer.error


BEFORE_TEXT: dict[str, tuple[Script, str]] = {
    "server closes before the head": (wire.hang_up, "cut"),
    "cut after the start": (wire.stream(START, end="fin"), "cut"),
    "nothing at all": (wire.stream(), "cut"),
    **{f"error: {shape}": (wire.stream(START, ERRORS[shape]), "server_is_overloaded") for shape in ERRORS},
    "200 with an error object": (wire.reply({"error": BUSY}), "server_is_overloaded"),
    "200 with a failed response": (
        wire.reply({"status": "failed", "error": BUSY, "output": []}),
        "server_is_overloaded",
    ),
    "200 with null": (wire.reply(b"null"), "malformed"),
    "200 with an empty object": (wire.reply({}), "malformed"),
    "200 with HTML": (wire.reply(b"<html>", kind="text/html"), "malformed"),
}


@pytest.mark.parametrize("row", BEFORE_TEXT)
def test_before_the_first_word_a_failure_is_an_error(row: str) -> None:
    script, code = BEFORE_TEXT[row]
    texts, error = ended(script)
    assert texts == []
    assert isinstance(error, Transient)
    assert (error.code, error.maybe_billed) == (code, True)
    assert KEY not in str(error)


@pytest.mark.parametrize("script", [wire.mute, wire.stream(START, end="silence")])
def test_no_first_word_in_time(script: Script) -> None:
    texts, error = ended(script, FIRST)
    assert texts == []
    assert isinstance(error, Transient)
    assert "first token" in str(error)


def test_a_failure_that_would_come_again_is_permanent() -> None:
    data = named({"type": "error", "code": "invalid_prompt", "message": "no"})
    assert isinstance(ended(wire.stream(START, data))[1], Permanent)


def test_a_failed_response_that_was_billed_is_an_answer_with_its_bill() -> None:
    texts, answer = ended(wire.stream(START, failed(usage=USAGE)))
    assert (texts, answer.outcome, answer.usage) == ([], Outcome.PROVIDER_ERROR, Usage(3, 2))
    assert (answer.error_code, KEY in answer.error) == ("server_is_overloaded", False)


def test_a_cut_after_the_terminal_event_is_complete() -> None:
    texts, answer = ended(wire.stream(START, TEXT, MORE, END, end="rst"))
    assert (texts, answer.outcome, answer.usage) == (["he", "llo"], Outcome.COMPLETE, Usage(3, 2))


def test_a_stream_without_deltas_shows_its_text_once() -> None:
    texts, answer = ended(wire.stream(START, END, sse("[DONE]")))
    assert (texts, answer.first.text, answer.outcome) == (["hello"], "hello", Outcome.COMPLETE)


def test_a_whole_answer_to_a_stream_is_taken() -> None:
    texts, answer = ended(wire.reply(WHOLE))
    assert (texts, answer.outcome) == (["hello"], Outcome.COMPLETE)


@pytest.mark.parametrize(
    ("noise", "line_end"), [(b": ping\n\n", b"\n"), (b"id: 4\n\n", b"\r\n"), (b"data:\n\n", b"\r")]
)
def test_noise_and_any_split_of_the_bytes_do_no_harm(noise: bytes, line_end: bytes) -> None:
    data = noise.join((START, TEXT, MORE, END)).replace(b"\n", line_end)
    texts, answer = ended(wire.stream(*(data[i : i + 7] for i in range(0, len(data), 7))))
    assert (texts, answer.outcome) == (["he", "llo"], Outcome.COMPLETE)


def test_the_last_event_needs_no_blank_line() -> None:
    assert ended(wire.stream(START, TEXT, END.rstrip()))[1].outcome is Outcome.COMPLETE


def test_the_total_bounds_a_stream_that_goes_on_and_on() -> None:
    async def script(peer: wire.Peer) -> None:
        await peer.send(wire.head(200, "text/event-stream", transfer_encoding="chunked") + b"\r\n")
        while True:
            await peer.send(wire.chunk(TEXT))
            await asyncio.sleep(0.05)

    texts, answer = ended(script, TOTAL)
    assert (answer.outcome, answer.first.text) == (Outcome.TIMED_OUT, "he" * len(texts))


def test_leaving_closes_the_connection_at_once() -> None:
    async def test() -> None:
        async with provider(wire.stream(START, TEXT, end="silence")) as (made, server):
            async with aclosing(made.stream(REQUEST, tier="default", timeouts=SLOW)) as items:
                assert await anext(items) == Delta("he")
            async with asyncio.timeout(1):
                await server.left.wait()

    run(test)


def test_streams_use_their_connection_again() -> None:
    async def test() -> int:
        async with provider(wire.stream(START, TEXT, END)) as (made, server):
            for _ in range(3):
                assert isinstance((await gather(made))[1], Answer)
            return server.connections

    assert run(test) == 1


@pytest.mark.parametrize("own", [False, True])
def test_what_a_stream_asks(own: bool) -> None:
    async def test() -> wire.Asked:
        async with provider(wire.stream(START, TEXT, END), own=own) as (made, server):
            await gather(made)
            return server.asked[0]

    asked = run(test)
    assert (asked.target, asked.headers["authorization"]) == ("/v1/responses", f"Bearer {KEY}")
    assert (asked.json["stream"], asked.json["store"]) == (True, False)
    assert asked.json.get("stream_options") == ({"include_obfuscation": False} if own else None)


def test_a_plain_call() -> None:
    answer, server = completed(
        wire.reply({**WHOLE, "service_tier": "flex"}, request_id="r", retry_after="1"), tier="flex"
    )
    assert (answer.first.text, answer.outcome, answer.usage) == ("hello", Outcome.COMPLETE, Usage(3, 2))
    assert (answer.request_id, answer.headers, answer.tier) == ("r", {"retry-after": "1"}, "flex")
    assert server.asked[0].json["service_tier"] == "flex"
    assert "stream" not in server.asked[0].json


def test_a_plain_failure_is_an_answer_without_the_key() -> None:
    answer, _ = completed(wire.reply({"status": "failed", "error": BUSY, "output": [ITEM], "usage": USAGE}))
    assert (answer.outcome, answer.error_code, answer.usage) == (
        Outcome.PROVIDER_ERROR,
        "server_is_overloaded",
        Usage(3, 2),
    )
    assert (answer.first.text, KEY in answer.error) == ("hello", False)


@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_an_error_in_the_head_is_asked_once(status: int) -> None:
    script = wire.reply({"error": {"message": f"no {KEY}", "type": "t", "code": "c"}}, status, x_should_retry="true")
    for error in (ended(script)[1], completed(script)[0]):
        assert isinstance(error, Permanent if status < 429 else Transient)
        assert (error.status, error.code, error.maybe_billed, KEY in str(error)) == (status, "c", False, False)
    assert len(completed(script)[1].asked) == 1


@pytest.mark.parametrize("lane", ["plain", "streamed"])
def test_what_cannot_be_said_is_not_sent(lane: str) -> None:
    request = Request(model="m", messages=[Message(role="user", content="hi")], params={"n": 2})

    async def test() -> tuple[Any, int]:
        async with provider(wire.reply(WHOLE)) as (made, server):
            if lane == "streamed":
                return (await gather(made, request=request))[1], len(server.asked)
            with pytest.raises(CallError) as error:
                await made.complete(request, tier="default", timeouts=SLOW)
            return error.value, len(server.asked)

    error, asked = run(test)
    assert isinstance(error, Permanent)
    assert (error.code, asked) == ("unsupported", 0)


def test_a_watch_is_told_when_the_request_goes_out() -> None:
    async def test() -> list[float | None]:
        async with provider(wire.reply(WHOLE), wire.stream(START, END)) as (made, _):
            plain, streamed = Stopwatch(), Stopwatch()
            await made.complete(REQUEST, tier="default", timeouts=SLOW, watch=plain)
            async for _ in made.stream(REQUEST, tier="default", timeouts=SLOW, watch=streamed):
                pass
            return [plain.read().connect_ms, streamed.read().connect_ms]

    first, second = run(test)
    assert first > 0
    assert second is None  # the same connection again


TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
FORCED = {"type": "function", "function": {"name": "weather"}}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}


async def plain(made: OpenAIResponses, request: Request) -> tuple[str, Any]:
    try:
        answer = await made.complete(request, tier="default", timeouts=Timeouts())
    except CallError as error:
        return "", error
    return answer.first.text, answer


async def streamed(made: OpenAIResponses, request: Request) -> tuple[str, Any]:
    texts, answer = await gather(made, Timeouts(), request)
    return "".join(texts), answer


def ask(sandbox: Sandbox, lane: Callable[[Any, Request], Awaitable[Any]], **more: Any) -> Any:
    turns = [Message(role="user", content="tell me")]
    request = Request(**{"model": "gpt-4.1-mini", "messages": turns, "max_tokens": 2000} | more)

    async def test() -> Any:
        made = OpenAIResponses(Endpoint("openai", sandbox.url + "/v1", False, "A_KEY"))
        try:
            return await lane(made, request)
        finally:
            await made.close()

    return run(test)


LANES = pytest.mark.parametrize("lane", [plain, streamed])


@LANES
def test_an_answer_and_its_tokens(lane: Any, sandbox: Sandbox) -> None:
    text, answer = ask(sandbox, lane)
    assert text
    assert (answer.first.text, answer.usable, answer.tier) == (text, True, "default")
    (row,) = sandbox.billed(1)["rows"]
    assert (answer.usage.input, answer.usage.output) == (row["usage"]["input"], row["usage"]["output"])


@LANES
def test_a_forced_tool_and_the_answer_to_its_result(lane: Any, sandbox: Sandbox) -> None:
    _, answer = ask(sandbox, lane, tools=[TOOL], tool_choice=FORCED)
    (call,) = answer.first.tool_calls
    assert (call.name, call.error, isinstance(call.arguments, dict)) == ("weather", None, True)
    assert (answer.outcome, answer.first.finish_reason) == (Outcome.COMPLETE, "tool_calls")
    asked = {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.raw}}
    turns = [
        Message(role="user", content="tell me"),
        Message(role="assistant", content=None, tool_calls=[asked]),  # type: ignore[call-arg]
        Message(role="tool", tool_call_id=call.id, content="rain"),  # type: ignore[call-arg]
    ]
    text, answer = ask(sandbox, lane, messages=turns, tools=[TOOL])
    assert (bool(text), answer.outcome) == (True, Outcome.COMPLETE)


@LANES
def test_a_schema(lane: Any, sandbox: Sandbox) -> None:
    text, answer = ask(sandbox, lane, response_format=FORMAT)
    assert '"n"' in text
    assert answer.outcome is Outcome.COMPLETE


@LANES
@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        ("length", Outcome.TRUNCATED),
        ("content_filter", Outcome.FILTERED),
        ("refusal", Outcome.REFUSED),
        ("no_usage", Outcome.COMPLETE),
        ("no_finish", Outcome.CUT),
    ],
)
def test_drills_that_end_in_an_answer(lane: Any, kind: str, outcome: Outcome, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": kind}])
    _, answer = ask(sandbox, lane)
    assert answer.outcome is outcome
    assert (answer.usage is None) == (kind in ("no_usage", "no_finish"))


@LANES
def test_arguments_that_are_not_json(lane: Any, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "malformed_arguments"}])
    _, answer = ask(sandbox, lane, tools=[TOOL], tool_choice=FORCED)
    (call,) = answer.first.tool_calls
    assert (call.arguments, "not JSON" in call.error, bool(call.raw)) == (None, True, True)


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_cut_keeps_what_came(how: str, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "cut", "after": 3, "how": how}])
    text, answer = ask(sandbox, streamed)
    assert text
    assert (answer.outcome, answer.first.text, answer.usage) == (Outcome.CUT, text, None)


@pytest.mark.parametrize("shape", ["nested", "flat"])
@pytest.mark.parametrize("after", [0, 3])
def test_an_error_in_the_stream(shape: str, after: int, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "stream_error", "after": after, "shape": shape}])
    text, end = ask(sandbox, streamed)
    if after:
        assert (end.outcome, end.first.text, end.error_code) == (Outcome.PROVIDER_ERROR, text, "server_is_overloaded")
    else:
        assert (type(end), end.code) == (Transient, "server_is_overloaded")


@LANES
@pytest.mark.parametrize(("status", "wait"), [(429, 3.0), (500, None)])
def test_a_refused_call_is_asked_once(lane: Any, status: int, wait: float | None, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "status", "status": status, "retry_after": wait}])
    _, error = ask(sandbox, lane)
    assert (error.status, error.retry_after, error.maybe_billed) == (status, wait, False)
    assert sandbox.requests()["count"] == 1
