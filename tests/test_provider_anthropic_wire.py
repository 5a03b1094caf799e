"""Anthropic's Messages: requests in its words, events and bodies in ours."""

from typing import Any

import pytest

from jobs.chat import Answer, Delta, Message, Outcome, Request, Usage
from jobs.errors import Permanent, Transient
from jobs.providers.anthropic_params import MAX_TOKENS, params_of
from jobs.providers.anthropic_wire import Accumulator, answer_from

TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
START_USAGE = {"input_tokens": 5, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 30, "output_tokens": 1}


def request(*turns: dict[str, Any], **more: Any) -> Request:
    given = [Message(**turn) for turn in turns] or [Message(role="user", content="hi")]
    return Request(model="claude", messages=given, **more)


def start(**usage: Any) -> dict[str, Any]:
    return {"type": "message_start", "message": {"model": "claude-1", "content": [], "usage": START_USAGE | usage}}


def block(index: int, kind: str, **more: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind, **more}}


def piece(index: int, kind: str, **more: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **more}}


def end(reason: str | None, **more: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason, **more}, "usage": {"output_tokens": 12}}


def joined(*events: dict[str, Any]) -> tuple[list[Delta], Answer]:
    wire = Accumulator()
    return [delta for event in events for delta in wire.feed(event)], wire.finish()


def test_text_thinking_and_cumulative_usage() -> None:
    deltas, answer = joined(
        start(service_tier="standard"),
        {"type": "ping"},
        block(0, "thinking", thinking=""),
        piece(0, "thinking_delta", thinking="hmm"),
        piece(0, "signature_delta", signature="xyz"),
        block(1, "text", text=""),
        piece(1, "text_delta", text="he"),
        {"type": "something_new", "index": 1},
        piece(1, "text_delta", text="llo"),
        {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 7}},
        end("end_turn"),
        {"type": "message_stop"},
    )
    assert deltas == [Delta(reasoning="hmm"), Delta("he"), Delta("llo")]
    assert (answer.first.text, answer.first.reasoning, answer.first.finish_reason) == ("hello", "hmm", "stop")
    assert (answer.outcome, answer.model, answer.tier) == (Outcome.COMPLETE, "claude-1", "standard")
    assert answer.usage == Usage(55, 12, cached=30, cache_write=20)


def test_tool_input_is_joined_and_parsed_at_the_end() -> None:
    _, answer = joined(
        start(),
        block(0, "tool_use", id="a", name="f", input={}),
        block(1, "tool_use", id="b", name="g", input={}),
        piece(0, "input_json_delta", partial_json=""),
        piece(1, "input_json_delta", partial_json='{"y"'),
        piece(0, "input_json_delta", partial_json='{"x": 1}'),
        end("tool_use"),
    )
    first, second = answer.first.tool_calls
    assert (first.id, first.name, first.arguments) == ("a", "f", {"x": 1})
    assert (second.raw, second.arguments, answer.outcome) == ('{"y"', None, Outcome.COMPLETE)
    assert "not JSON" in (second.error or "")


@pytest.mark.parametrize(
    ("reason", "finish", "outcome"),
    [
        ("end_turn", "stop", Outcome.COMPLETE),
        ("stop_sequence", "stop", Outcome.COMPLETE),
        ("tool_use", "tool_calls", Outcome.COMPLETE),
        ("max_tokens", "length", Outcome.TRUNCATED),
        ("model_context_window_exceeded", "length", Outcome.TRUNCATED),
        ("pause_turn", "length", Outcome.TRUNCATED),
        ("refusal", "content_filter", Outcome.REFUSED),
        ("new_word", "new_word", Outcome.PROVIDER_ERROR),
        (None, None, Outcome.CUT),
    ],
)
def test_stop_reasons(reason: str | None, finish: str | None, outcome: Outcome) -> None:
    streamed = joined(start(), block(0, "text", text=""), piece(0, "text_delta", text="x"), end(reason))[1]
    message = {"content": [{"type": "text", "text": "x"}], "stop_reason": reason, "usage": START_USAGE}
    for answer in (streamed, answer_from(message)):
        assert (answer.outcome, answer.first.finish_reason, answer.first.text) == (outcome, finish, "x")
        assert (answer.usage is None) == (outcome is Outcome.CUT)


def test_a_refusal_says_why() -> None:
    _, answer = joined(start(), end("refusal", stop_details={"type": "refusal", "explanation": "not that"}))
    assert (answer.outcome, answer.first.refusal) == (Outcome.REFUSED, "not that")


def test_a_cut_keeps_the_text_and_knows_no_usage() -> None:
    wire = Accumulator()
    for event in (start(), block(0, "text", text=""), piece(0, "text_delta", text="half")):
        wire.feed(event)
    answer = wire.finish(Transient("reset", code="cut"))
    assert (answer.outcome, answer.first.text, answer.usage) == (Outcome.CUT, "half", None)


def test_a_start_alone_is_nothing() -> None:
    wire = Accumulator()
    wire.feed(start())
    assert not wire.begun


def test_zero_usage_is_unknown() -> None:
    message = {"content": [], "stop_reason": "end_turn", "usage": {"input_tokens": 0, "output_tokens": 0}}
    assert answer_from(message).usage is None


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b"null", Outcome.MALFORMED),
        (b"<html>", Outcome.MALFORMED),
        (b"{}", Outcome.MALFORMED),
        (b'{"content": "x"}', Outcome.MALFORMED),
        (b'{"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}', Outcome.PROVIDER_ERROR),
        (b'{"content": [], "stop_reason": null}', Outcome.CUT),
    ],
)
def test_a_200_that_is_no_answer_is_no_success(body: bytes, outcome: Outcome) -> None:
    answer = answer_from(body)
    assert (answer.outcome, answer.usable) == (outcome, False)


def test_turns() -> None:
    calls = [{"id": i, "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}} for i in ("a", "b")]
    params = params_of(
        request(
            {"role": "system", "content": "be kind"},
            {"role": "developer", "content": "be short"},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "looking", "tool_calls": calls},
            {"role": "tool", "tool_call_id": "a", "content": "1"},
            {"role": "tool", "tool_call_id": "b", "content": "2"},
            {"role": "user", "content": "and?"},
        )
    )
    use = [{"type": "tool_use", "id": i, "name": "f", "input": {"x": 1}} for i in ("a", "b")]
    results = [{"type": "tool_result", "tool_use_id": i, "content": c} for i, c in (("a", "1"), ("b", "2"))]
    assert params == {
        "model": "claude",
        "max_tokens": MAX_TOKENS,
        "system": "be kind\n\nbe short",
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [{"type": "text", "text": "looking"}, *use]},
            {"role": "user", "content": [*results, {"type": "text", "text": "and?"}]},
        ],
    }


def test_images() -> None:
    parts = [
        {"type": "text", "text": "what"},
        {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
    ]
    assert params_of(request({"role": "user", "content": parts}))["messages"][0]["content"] == [
        {"type": "text", "text": "what"},
        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
    ]


@pytest.mark.parametrize(
    ("choice", "parallel", "wanted"),
    [
        (None, None, None),
        ("auto", None, {"type": "auto"}),
        ("none", False, {"type": "none"}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ({"type": "function", "function": {"name": "f"}}, None, {"type": "tool", "name": "f"}),
    ],
)
def test_tools(choice: Any, parallel: bool | None, wanted: Any) -> None:
    more = {} if parallel is None else {"parallel_tool_calls": parallel}
    params = params_of(request(tools=[TOOL], tool_choice=choice, params=more))
    assert params["tools"] == [{"name": "f", "description": "d", "input_schema": {"type": "object"}}]
    assert params.get("tool_choice") == wanted
    assert "parallel_tool_calls" not in params


def test_renamed_and_passed_on() -> None:
    schema = {"type": "object", "properties": {}}
    params = params_of(
        request(
            max_tokens=9,
            response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": schema, "strict": True}},
            params={
                "stop": "END",
                "user": "u1",
                "reasoning_effort": "low",
                "thinking": {"type": "adaptive"},
                "stream": True,
                "service_tier": "flex",
                "n": 1,
                "metadata": {"team": "a"},
            },
        ),
        tier="fast",
        stream=True,
    )
    params.pop("messages")
    assert params == {
        "model": "claude",
        "max_tokens": 9,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u1"},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": schema}},
        "thinking": {"type": "adaptive"},
        "speed": "fast",
        "stream": True,
    }


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"params": {"temperature": 1}}, "temperature"),
        ({"params": {"top_p": 1}}, "top_p"),
        ({"params": {"top_k": 1}}, "top_k"),
        ({"params": {"logprobs": True}}, "logprobs"),
        ({"params": {"n": 2}}, "parameter n"),
        ({"response_format": {"type": "json_object"}}, "json_object"),
        ({"tool_choice": "sometimes"}, "sometimes"),
    ],
)
def test_what_anthropic_has_no_word_for_is_refused_by_name(more: dict[str, Any], named: str) -> None:
    with pytest.raises(Permanent, match=named) as caught:
        params_of(request(**more))
    assert caught.value.code == "unsupported_parameter"
    assert not caught.value.maybe_billed
