"""Recorded streams of chat completions, each with the end it must come to."""

from typing import Any

from jobs.chat import Outcome
from jobs.providers.openai import client
from jobs.providers.openai_wire import Accumulator, answer_from
from tests.conformance import TOKENS, Case, End, Format, complete, cut, malformed, told, truncated
from tests.conformance_bytes import MULTI_BYTE, data

SPENT = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def choice(finish: str | None = None, index: int = 0, **delta: Any) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


def chunk(*choices: Any, **more: Any) -> bytes:
    """A chunk as OpenAI sends it."""
    facts = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m-1"}
    return data({**facts, "system_fingerprint": "fp", "choices": list(choices), "usage": None, **more})


def words(text: str, index: int = 0) -> bytes:
    return chunk(choice(content=text, index=index), obfuscation="xR4")


def fragment(arguments: str, index: int = 0, ident: str | None = None, name: str | None = None) -> bytes:
    """A piece of a tool call."""
    function = {"arguments": arguments, **({"name": name} if name else {})}
    head = {"id": ident, "type": "function"} if ident else {}
    return chunk(choice(tool_calls=[{"index": index, **head, "function": function}]))


START = chunk(choice(role="assistant", content="", refusal=None), service_tier="default")
HELLO = START + words("he") + words("llo")
USAGE = chunk(usage=SPENT)
DONE = data("[DONE]")
LAST = USAGE + DONE
STOP = chunk(choice("stop"))
BUSY = {"message": "busy", "type": "service_unavailable_error", "param": None, "code": "server_is_overloaded"}
ERROR = data({"error": BUSY})


def finish(reason: str) -> bytes:
    return chunk(choice(reason)) + LAST


WEATHER = ("get_weather", {"city": "Bern"})

ENDINGS = {
    "stop": Case(HELLO + finish("stop"), complete("hello")),
    "length": Case(HELLO + finish("length"), truncated("hello")),
    "content_filter": Case(HELLO + finish("content_filter"), End(Outcome.FILTERED, "hello", None, TOKENS)),
    "tool_calls, the arguments in fragments": Case(
        START
        + fragment("", 0, "c1", "get_weather")
        + fragment('{"city"')
        + fragment(': "Bern"}')
        + finish("tool_calls"),
        complete(calls=(WEATHER,)),
    ),
    "two tool calls that interleave": Case(
        START
        + fragment('{"city"', 0, "c1", "get_weather")
        + fragment("", 1, "c2", "now")
        + fragment(': "Bern"}')
        + fragment("{}", 1)
        + finish("tool_calls"),
        complete(calls=(WEATHER, ("now", {}))),
    ),
    "function_call, the older form": Case(
        START
        + chunk(choice(function_call={"name": "get_weather", "arguments": '{"city": "Bern"}'}))
        + finish("function_call"),
        complete(calls=(WEATHER,)),
    ),
    "refusal": Case(
        START + chunk(choice(refusal="I can")) + chunk(choice(refusal="not")) + finish("stop"),
        End(Outcome.REFUSED, "", None, TOKENS, refusal="I cannot"),
    ),
    "two choices that interleave": Case(
        START + words("one", 1) + words("he") + chunk(choice("stop", 1)) + words("llo") + finish("stop"),
        complete("hello|one"),
        choices=2,
    ),
    "one of two choices without a finish reason": Case(
        START + words("one", 1) + words("he") + finish("stop"), cut("he|one"), choices=2
    ),
    "one of two choices never came": Case(START + words("he") + STOP, cut("he"), choices=2),
    "no usage": Case(HELLO + STOP + DONE, complete("hello", None)),
    "an unknown finish reason": Case(HELLO + finish("grumpy"), told("finish_reason", "hello", usage=TOKENS)),
    "characters as JSON escapes": Case(
        START
        + b'data: {"choices": [{"index": 0, "delta": {"content": "\\ud83d\\ude00\\u00e9"}}]}\n\n'
        + finish("stop"),
        complete("😀é"),
    ),
    "characters of many bytes, and an event on two data lines": Case(
        START
        + words(MULTI_BYTE)
        + b'data: {"choices":\ndata: [{"index": 0, "delta": {"content": "he"}}]}\n\n'
        + finish("stop"),
        complete(MULTI_BYTE + "he"),
    ),
}
BROKEN = {
    "in-stream error": Case(HELLO + ERROR, told("server_is_overloaded", "hello"), told("error", "hello")),
    "in-stream error before the first word": Case(START + ERROR, told("server_is_overloaded"), told("error")),
    "in-stream error that is a string": Case(
        HELLO + data({"error": "busy"}), told("provider_error", "hello"), told("error", "hello")
    ),
    "in-stream error, [DONE] behind it": Case(
        HELLO + ERROR + DONE, told("server_is_overloaded", "hello"), told("error", "hello")
    ),
    "event: error without an error key": Case(
        HELLO + b'event: error\ndata: {"message": "busy"}\n\n', told("provider_error", "hello"), cut("hello")
    ),
    "an event that is no object": Case(
        HELLO + b"data: 7\n\n" + finish("stop"), malformed("hello"), told("error", "hello")
    ),
    "nothing at all": Case(b"", cut()),
    "[DONE] alone": Case(DONE, cut()),
}
QUIRKS = {
    "LiteLLM: usage on a chunk that has a choice": Case(
        HELLO + STOP + chunk(choice(), usage=SPENT) + DONE, complete("hello")
    ),
    "LiteLLM: a cut upstream is an in-stream error without [DONE]": Case(
        HELLO + data({"error": {"message": "peer closed", "type": "None", "param": None, "code": "500"}}),
        told("500", "hello"),
        told("error", "hello"),
    ),
    "a 200 with null for a body (LiteLLM)": Case(b"null", malformed(), cut(), kind="application/json"),
    "a 200 with an error for a body": Case(
        b'{"error": {"message": "busy", "code": "overloaded"}}', told("overloaded"), cut(), kind="application/json"
    ),
    "a 200 with malformed JSON for a body (aimock)": Case(
        b"{malformed json: <<<chaos>>>", malformed(), cut(), kind="application/json"
    ),
    "a 200 with HTML for a body": Case(b"<html>busy</html>", malformed(), cut(), kind="text/html"),
    "llama-server: content before a tool call": Case(
        HELLO + fragment('{"city": "Bern"}', 0, "c1", "get_weather") + finish("tool_calls"),
        complete("hello", calls=(WEATHER,)),
    ),
    "llama-server: arguments that are { at the length limit": Case(
        START + fragment("{", 0, "c1", "get_weather") + finish("length"), truncated(calls=(("get_weather", "{"),))
    ),
    "llama-server: timings on a chunk": Case(
        HELLO + chunk(choice("stop"), timings={"predicted_ms": 1.5}) + LAST, complete("hello")
    ),
    "llama-cpp-python: the name and the id repeated in each fragment, function_call as well": Case(
        START
        + b"".join(
            chunk(
                choice(
                    tool_calls=[{"index": 0, "id": "c1", "function": {"name": "get_weather", "arguments": piece}}],
                    function_call={"name": "get_weather", "arguments": piece},
                )
            )
            for piece in ('{"city"', ': "Bern"', "}")
        )
        + finish("tool_calls"),
        complete(calls=(WEATHER,)),
    ),
    "[DONE] without a finish reason": Case(HELLO + DONE, cut("hello")),
    "[DONE] and usage without a finish reason": Case(HELLO + LAST, cut("hello")),
    "a finish reason without [DONE]": Case(HELLO + STOP + USAGE, complete("hello")),
    "usage with choices null": Case(HELLO + STOP + data({"choices": None, "usage": SPENT}) + DONE, complete("hello")),
    "usage on every chunk": Case(
        b"".join(chunk(choice(content=text), usage=SPENT) for text in ("he", "llo")) + STOP + DONE, complete("hello")
    ),
    "usage, then zeros": Case(HELLO + STOP + USAGE + chunk(usage=dict.fromkeys(SPENT, 0)) + DONE, complete("hello")),
    "usage that is all zeros": Case(
        HELLO + STOP + chunk(usage=dict.fromkeys(SPENT, 0)) + DONE, complete("hello", None)
    ),
    "a whole answer in one chunk": Case(chunk(choice("stop", content="hello"), usage=SPENT) + DONE, complete("hello")),
    "content as a list of parts": Case(
        START + chunk(choice(content=[{"type": "text", "text": "hello"}])) + finish("stop"), complete("hello")
    ),
    "reasoning_content": Case(
        START + chunk(choice(reasoning_content="hmm")) + words("hello") + finish("stop"),
        complete("hello", reasoning="hmm"),
    ),
    "words after [DONE]": Case(HELLO + finish("stop") + words("!"), complete("hello")),
}
WHOLE = (
    b'{"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m-1", "choices": '
    b'[{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}], "usage": '
    b'{"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}'
)


async def create(made: Any, stream: bool) -> Any:
    asked = [{"role": "user", "content": "hi"}]
    return await made.chat.completions.create(model="m", messages=asked, stream=stream)


CHAT = Format(
    "chat", "openai", "chat", "/v1", Accumulator, answer_from, client, create,
    {
        "start": START, "text": words("he"), "more": words("llo"), "error": ERROR,
        "finish": chunk(choice("stop"), usage=SPENT), "end": DONE,  # a stream that lacks its end lacks no usage
        "broken": b'data: {"ch\n\n', "invalid": b'data: "\xff"\n\n', "whole": WHOLE,
    },
    {**ENDINGS, **BROKEN, **QUIRKS},
)  # fmt: skip
