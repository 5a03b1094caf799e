"""Recorded streams of Anthropic's Messages, each with the end it must come to."""

from typing import Any

from jobs.chat import Outcome, Usage
from jobs.providers.anthropic import client
from jobs.providers.anthropic_wire import Accumulator, answer_from
from tests.conformance import TOKENS, Case, End, Format, complete, cut, malformed, told, truncated
from tests.conformance_bytes import MULTI_BYTE, data


def event(kind: str, **more: Any) -> bytes:
    return data({"type": kind, **more}, named=True)


def message_start(**usage: Any) -> bytes:
    spent = {"input_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1}
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m-1",
        "content": [],
        "stop_reason": None,
    }
    return event("message_start", message={**message, "usage": {**spent, "service_tier": "standard", **usage}})


def block(index: int, kind: str, **more: Any) -> bytes:
    return event("content_block_start", index=index, content_block={"type": kind, **more})


def piece(index: int, kind: str, **more: Any) -> bytes:
    return event("content_block_delta", index=index, delta={"type": kind, **more})


def words(text: str, index: int = 0) -> bytes:
    return piece(index, "text_delta", text=text)


def tool(index: int, name: str, *pieces: str) -> bytes:
    opened = block(index, "tool_use", id=f"toolu_{index}", name=name, input={})
    parts = [piece(index, "input_json_delta", partial_json=part) for part in pieces]
    return opened + b"".join(parts) + closed(index)


def closed(index: int) -> bytes:
    return event("content_block_stop", index=index)


def message_delta(reason: str | None, output: int = 2, **more: Any) -> bytes:
    return event(
        "message_delta", delta={"stop_reason": reason, "stop_sequence": None, **more}, usage={"output_tokens": output}
    )


START = message_start() + event("ping") + block(0, "text", text="")
HELLO = START + words("he") + words("llo") + closed(0)
STOP = event("message_stop")
BUSY = {"type": "overloaded_error", "message": "busy"}
ERROR = event("error", error=BUSY)


def finish(reason: str, **more: Any) -> bytes:
    return message_delta(reason, **more) + STOP


WEATHER = ("get_weather", {"city": "Bern"})
CALL = tool(1, "get_weather", "", '{"city"', ': "Bern"}')

ENDINGS = {
    "end_turn": Case(HELLO + finish("end_turn"), complete("hello")),
    "stop_sequence": Case(HELLO + finish("stop_sequence"), complete("hello")),
    "max_tokens": Case(HELLO + finish("max_tokens"), truncated("hello")),
    "model_context_window_exceeded": Case(HELLO + finish("model_context_window_exceeded"), truncated("hello")),
    "pause_turn": Case(HELLO + finish("pause_turn"), truncated("hello")),
    "refusal": Case(
        HELLO + finish("refusal", stop_details={"type": "refusal", "explanation": "no"}),
        End(Outcome.REFUSED, "hello", None, TOKENS, refusal="no"),
    ),
    "tool_use": Case(HELLO + CALL + finish("tool_use"), complete("hello", calls=(WEATHER,))),
    "tool_use without arguments": Case(
        HELLO + tool(1, "now", "") + finish("tool_use"), complete("hello", calls=(("now", {}),))
    ),
    "tool_use in pieces that interleave": Case(
        message_start()
        + block(0, "tool_use", id="toolu_0", name="get_weather", input={})
        + block(1, "tool_use", id="toolu_1", name="now", input={})
        + piece(0, "input_json_delta", partial_json='{"city"')
        + piece(1, "input_json_delta", partial_json="{}")
        + piece(0, "input_json_delta", partial_json=': "Bern"}')
        + finish("tool_use"),
        complete(calls=(WEATHER, ("now", {}))),
    ),
    "tool_use broken off by max_tokens": Case(
        HELLO + tool(1, "get_weather", '{"ci') + finish("max_tokens"),
        truncated("hello", calls=(("get_weather", '{"ci'),)),
    ),
    "thinking": Case(
        message_start() + block(0, "thinking", thinking="", signature="") + piece(0, "thinking_delta", thinking="hmm")
        + piece(0, "signature_delta", signature="Eq") + closed(0) + block(1, "text", text="") + words("hello", 1)
        + closed(1) + finish("end_turn"),
        complete("hello", reasoning="hmm"),
    ),
    "an unknown stop reason": Case(HELLO + finish("grumpy"), told("finish_reason", "hello", usage=TOKENS)),
    "cumulative usage: the last one wins": Case(
        HELLO + message_delta(None, 1) + message_delta("end_turn", 2) + STOP, complete("hello")
    ),
    "cached input is input": Case(
        message_start(cache_read_input_tokens=5, cache_creation_input_tokens=7) + HELLO.removeprefix(message_start())
        + finish("end_turn"),
        complete("hello", Usage(15, 2, cached=5, cache_write=7)),
    ),
    "characters of many bytes, and an event on two data lines": Case(
        START + words(MULTI_BYTE)
        + b'event: content_block_delta\ndata: {"type": "content_block_delta", "index": 0,\n'
        b'data: "delta": {"type": "text_delta", "text": "he"}}\n\n' + finish("end_turn"),
        complete(MULTI_BYTE + "he"),
    ),
}  # fmt: skip
BROKEN = {
    "in-stream error": Case(HELLO + ERROR, told("overloaded_error", "hello")),
    "in-stream error before the first word": Case(START + ERROR, told("overloaded_error")),
    "event: error without an error key": Case(
        HELLO + b'event: error\ndata: {"message": "busy"}\n\n',
        told("provider_error", "hello"),
        told("http_200", "hello"),
    ),
    "truncated but clean: no stop reason": Case(HELLO, cut("hello")),
    "message_stop without a stop reason": Case(HELLO + STOP, cut("hello")),
    "an event that is no object": Case(
        HELLO + b"event: content_block_delta\ndata: 7\n\n" + finish("end_turn"),
        malformed("hello"),
        told("error", "hello"),
    ),
    "message_start alone": Case(message_start(), cut()),
}
QUIRKS = {
    "ping anywhere": Case(
        HELLO.replace(b"event: content_block_delta", event("ping") + b"event: content_block_delta")
        + finish("end_turn"),
        complete("hello"),
    ),
    "an event of a new type": Case(HELLO + event("something_new", index=0) + finish("end_turn"), complete("hello")),
    "a delta of a new type": Case(HELLO + piece(0, "new_delta", text="!") + finish("end_turn"), complete("hello")),
    "events without a name": Case(
        b"".join(line + b"\n\n" for line in (HELLO + finish("end_turn")).split(b"\n") if line.startswith(b"data: ")),
        complete("hello"),
        cut(),
    ),
    "message_delta without message_stop": Case(HELLO + message_delta("end_turn"), complete("hello")),
    "an empty event stream (LiteLLM)": Case(b"", cut()),
    "usage 0 (OGX, aimock)": Case(
        HELLO.replace(b'"input_tokens": 3', b'"input_tokens": 0') + message_delta("end_turn", 0) + STOP,
        complete("hello", None),
    ),
    "no usage": Case(
        data({"type": "message_start", "message": {"content": []}}, named=True) + HELLO.removeprefix(message_start())
        + data({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, named=True) + STOP,
        complete("hello", None),
    ),
    "[DONE] at the end": Case(HELLO + finish("end_turn") + data("[DONE]"), complete("hello")),
    "a 200 with null for a body (LiteLLM)": Case(b"null", malformed(), cut(), kind="application/json"),
    "a 200 with an error for a body": Case(
        b'{"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}',
        told("overloaded_error"),
        cut(),
        kind="application/json",
    ),
    "a 200 with HTML for a body": Case(b"<html>busy</html>", malformed(), cut(), kind="text/html"),
}  # fmt: skip
WHOLE = (
    b'{"id": "msg_1", "type": "message", "role": "assistant", "model": "m-1", "content": '
    b'[{"type": "text", "text": "hello"}], "stop_reason": "end_turn", "usage": {"input_tokens": 3, "output_tokens": 2}}'
)


async def create(made: Any, stream: bool) -> Any:
    asked = [{"role": "user", "content": "hi"}]
    return await made.messages.create(model="m", max_tokens=9, messages=asked, stream=stream)


ANTHROPIC = Format(
    "anthropic", "anthropic", "chat", "", lambda _: Accumulator(), answer_from, client, create,
    {
        "start": START, "text": words("he"), "more": words("llo"), "finish": message_delta("end_turn"), "end": STOP,
        "error": ERROR, "broken": b'event: content_block_delta\ndata: {"ch\n\n',
        "invalid": b'event: content_block_delta\ndata: "\xff"\n\n', "whole": WHOLE,
    },
    {**ENDINGS, **BROKEN, **QUIRKS},
)  # fmt: skip
