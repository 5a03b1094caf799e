"""Recorded streams of OpenAI's Responses, each with the end it must come to."""

from typing import Any

from jobs.chat import Outcome
from jobs.providers.openai import client
from jobs.providers.responses_wire import Accumulator, answer_from
from tests.conformance import TOKENS, Case, End, Format, complete, cut, malformed, told, truncated
from tests.conformance_bytes import MULTI_BYTE, data

SPENT = {
    "input_tokens": 3, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 2, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 5,
}  # fmt: skip
Output = list[dict[str, Any]]


def event(kind: str, **more: Any) -> bytes:
    return data({"type": kind, "sequence_number": 0, **more}, named=True)


def response(status: str, output: Output | None = None, **more: Any) -> dict[str, Any]:
    facts = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m-1", "error": None, "usage": None}
    return {**facts, "incomplete_details": None, "status": status, "output": output or [], **more}


def message(text: str = "hello", kind: str = "output_text") -> dict[str, Any]:
    part = {"type": kind, "refusal" if kind == "refusal" else "text": text, "annotations": []}
    return {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]}


def terminal(status: str, output: Output | None = None, **more: Any) -> bytes:
    whole = response(status, [message()] if output is None else output, **{"usage": SPENT, **more})
    return event(f"response.{status}", response=whole)


def words(text: str, kind: str = "output_text") -> bytes:
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    return event(f"response.{kind}.delta", **place, delta=text, logprobs=[], obfuscation="xR4")


def call(name: str, arguments: str, index: int = 0) -> dict[str, Any]:
    return {
        "id": f"fc_{index}",
        "type": "function_call",
        "call_id": f"call_{index}",
        "name": name,
        "arguments": arguments,
    }


def added(item: dict[str, Any], index: int = 0) -> bytes:
    return event("response.output_item.added", output_index=index, item=item)


def fragment(arguments: str, index: int = 0) -> bytes:
    return event("response.function_call_arguments.delta", item_id=f"fc_{index}", output_index=index, delta=arguments)


CREATED = event("response.created", response=response("in_progress"))
BEGUN = CREATED + event("response.in_progress", response=response("in_progress"))
EMPTY = {"type": "output_text", "text": "", "annotations": []}
START = (
    BEGUN
    + added({**message(), "content": []})
    + event("response.content_part.added", item_id="msg_1", output_index=0, content_index=0, part=EMPTY)
)
CLOSED = event("response.output_text.done", item_id="msg_1", output_index=0, content_index=0, text="hello", logprobs=[])
HELLO = START + words("he") + words("llo") + CLOSED + event("response.output_item.done", output_index=0, item=message())
BUSY = {"type": "service_unavailable_error", "code": "server_is_overloaded", "message": "busy", "param": None}
ERROR = event("error", error=BUSY)
COMPLETED = terminal("completed")
WEATHER = ("get_weather", {"city": "Bern"})
CALL = call("get_weather", '{"city": "Bern"}')


def incomplete(reason: str | None) -> bytes:
    return terminal("incomplete", incomplete_details={"reason": reason} if reason else None)


FAILED = {"error": {"code": "server_error", "message": "the model broke"}}
ENDINGS = {
    "response.completed": Case(HELLO + COMPLETED, complete("hello")),
    "response.incomplete: max_output_tokens": Case(HELLO + incomplete("max_output_tokens"), truncated("hello")),
    "response.incomplete: content_filter": Case(
        HELLO + incomplete("content_filter"), End(Outcome.FILTERED, "hello", None, TOKENS)
    ),
    "response.incomplete without a reason": Case(HELLO + incomplete(None), told("incomplete", "hello", usage=TOKENS)),
    "response.failed": Case(HELLO + terminal("failed", [], **FAILED, usage=None), told("server_error", "hello")),
    "response.failed before the first word": Case(
        BEGUN + terminal("failed", [], **FAILED, usage=None), told("server_error")
    ),
    "response.failed with usage": Case(
        HELLO + terminal("failed", [], **FAILED), told("server_error", "hello", usage=TOKENS)
    ),
    "error, flat": Case(
        HELLO + event("error", code="server_is_overloaded", message="busy", param=None),
        told("server_is_overloaded", "hello"),
    ),
    "error, nested": Case(HELLO + ERROR, told("server_is_overloaded", "hello"), told("error", "hello")),
    "error before the first word": Case(BEGUN + ERROR, told("server_is_overloaded"), told("error")),
    "response.cancelled": Case(HELLO + terminal("cancelled", []), told("cancelled", "hello", usage=TOKENS)),
    "response.refusal": Case(
        BEGUN + words("I can", "refusal") + words("not", "refusal")
        + terminal("completed", [message("I cannot", "refusal")]),
        End(Outcome.REFUSED, "", None, TOKENS, refusal="I cannot"),
    ),
    "function calls that interleave": Case(
        BEGUN + added(call("get_weather", "")) + added(call("now", "", 1), 1) + fragment('{"city"') + fragment("{}", 1)
        + fragment(': "Bern"}') + terminal("completed", [CALL, call("now", "{}", 1)]),
        complete(calls=(WEATHER, ("now", {}))),
    ),
    "a function call broken off": Case(
        BEGUN + added(call("get_weather", "")) + fragment('{"ci')
        + terminal("incomplete", [], incomplete_details={"reason": "max_output_tokens"}),
        truncated(calls=(("get_weather", '{"ci'),)),
    ),
    "reasoning": Case(
        BEGUN
        + event("response.reasoning_summary_text.delta", item_id="rs", output_index=0, summary_index=0, delta="hmm")
        + event("response.output_text.delta", item_id="msg", output_index=1, content_index=0, delta="hello")
        + terminal("completed", []),
        complete("hello", reasoning="hmm"),
    ),
    "characters of many bytes, and an event on two data lines": Case(
        CREATED + words(MULTI_BYTE)
        + b'data: {"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0,\n'
        b'data: "content_index": 0, "delta": "he"}\n\n' + terminal("completed", []),
        complete(MULTI_BYTE + "he"),
    ),
}  # fmt: skip
BROKEN = {
    "the stream ends without a terminal event": Case(HELLO, cut("hello")),
    "response.created alone": Case(CREATED, cut()),
    "[DONE] without a terminal event": Case(HELLO + data("[DONE]"), cut("hello")),
    "event: error without an error key": Case(
        HELLO + b'event: error\ndata: {"message": "busy"}\n\n', told("provider_error", "hello"), cut("hello")
    ),
    "an event that is no object": Case(HELLO + b"data: 7\n\n" + COMPLETED, malformed("hello"), told("error", "hello")),
    "nothing at all": Case(b"", cut()),
}
QUIRKS = {
    "usage lacks input_tokens_details (aimock)": Case(
        HELLO + terminal("completed", usage={"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}),
        complete("hello"),
    ),
    "no usage": Case(HELLO + terminal("completed", usage=None), complete("hello", None)),
    "usage that is all zeros": Case(
        HELLO + terminal("completed", usage={"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}),
        complete("hello", None),
    ),
    "events without a name": Case(
        b"".join(line + b"\n\n" for line in (HELLO + COMPLETED).split(b"\n") if line.startswith(b"data: ")),
        complete("hello"),
    ),
    "response.queued and an event of a new type": Case(
        CREATED + event("response.queued", response=response("queued")) + event("response.something.new")
        + HELLO.removeprefix(CREATED) + COMPLETED,
        complete("hello"),
    ),
    "the words only in the terminal event": Case(BEGUN + COMPLETED, complete("hello")),
    "[DONE] behind the terminal event": Case(HELLO + COMPLETED + data("[DONE]"), complete("hello")),
    "a 200 with null for a body (LiteLLM)": Case(b"null", malformed(), cut(), kind="application/json"),
    "a 200 with an error for a body": Case(
        b'{"error": {"message": "busy", "code": "overloaded"}}', told("overloaded"), cut(), kind="application/json"
    ),
    "a 200 with HTML for a body": Case(b"<html>busy</html>", malformed(), cut(), kind="text/html"),
}  # fmt: skip


async def create(made: Any, stream: bool) -> Any:
    return await made.responses.create(model="m", input="hi", stream=stream)


RESPONSES = Format(
    "responses", "openai", "responses", "/v1", lambda _: Accumulator(), answer_from, client, create,
    {
        "start": START, "text": words("he"), "more": words("llo"), "finish": COMPLETED, "end": b"", "error": ERROR,
        "broken": b'data: {"ch\n\n', "invalid": b'data: "\xff"\n\n',
        "whole": data(response("completed", [message()], usage=SPENT))[6:],
    },
    {**ENDINGS, **BROKEN, **QUIRKS},
)  # fmt: skip
