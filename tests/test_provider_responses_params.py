"""Responses: a request in chat form as what is asked there."""

from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.chat import Message, Request
from jobs.errors import Permanent
from jobs.providers.answers import encode
from jobs.providers.responses_params import body_of
from jobs.sandbox import responses as sandbox

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}


def request(*messages: dict[str, Any], **more: Any) -> Request:
    turns = [Message(**each) for each in messages or ({"role": "user", "content": "hi"},)]
    return Request(**{"model": "gpt-6-luna", "messages": turns} | more)


def body(*messages: dict[str, Any], own: bool = False, **more: Any) -> dict[str, Any]:
    return body_of(request(*messages, **more), own=own)


def items(*messages: dict[str, Any]) -> Any:
    return body(*messages)["input"]


def call(identity: str, **function: Any) -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": function}


def test_a_plain_request() -> None:
    turn = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
    assert body() == {"model": "gpt-6-luna", "input": [turn], "store": False}


@pytest.mark.parametrize(("asked", "sent"), [(None, False), (False, False), (True, True)])
def test_nothing_is_stored_unless_the_request_says_so(asked: bool | None, sent: bool) -> None:
    assert body(params={"store": asked})["store"] is sent


@pytest.mark.parametrize("own", [True, False])
def test_the_lane_and_the_tier_say_stream_and_service_tier(own: bool) -> None:
    asked = request(params={"stream": True, "stream_options": {"include_usage": True}, "service_tier": "flex"})
    assert not {"stream", "stream_options", "service_tier"} & body_of(asked, own=own).keys()
    sent = body_of(asked, own=own, tier="fast", stream=True)
    assert (sent["service_tier"], sent["stream"]) == ("fast", True)
    assert sent.get("stream_options") == ({"include_obfuscation": False} if own else None)


@pytest.mark.parametrize(
    "more",
    [
        {"max_tokens": 7},
        {"params": {"max_completion_tokens": 7}},
        {"params": {"max_output_tokens": 7}},
        {"max_tokens": 7, "params": {"max_completion_tokens": 9}},
    ],
)
def test_the_cap_has_one_name(more: dict[str, Any]) -> None:
    sent = body(**more)
    assert {key: sent[key] for key in sent if key.startswith("max")} == {"max_output_tokens": 7}


def test_effort_verbosity_and_format_join_what_is_there() -> None:
    params = {
        "reasoning_effort": "low",
        "reasoning": {"summary": "auto"},
        "verbosity": "high",
        "text": {"x": 1},
        "seed": 4,
        "metadata": {"a": "b"},
    }
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA, "strict": True}}
    sent = body(params=params, response_format=form)
    assert sent["reasoning"] == {"summary": "auto", "effort": "low"}
    flat = {"type": "json_schema", "name": "s", "schema": SCHEMA, "strict": True}
    assert sent["text"] == {"x": 1, "verbosity": "high", "format": flat}
    assert (sent["seed"], sent["metadata"]) == (4, {"a": "b"})
    assert not {"reasoning_effort", "verbosity", "response_format"} & sent.keys()


@pytest.mark.parametrize("form", [{"type": "text"}, {"type": "json_object"}])
def test_other_formats_stay(form: dict[str, Any]) -> None:
    assert body(response_format=form)["text"] == {"format": form}


def test_null_parameters_say_nothing() -> None:
    sent = body(params={"reasoning_effort": None, "verbosity": None, "n": None})
    assert not {"reasoning", "text", "n"} & sent.keys()


def test_one_answer_is_what_it_gives() -> None:
    assert "n" not in body(params={"n": 1})
    with pytest.raises(Permanent) as error:
        body(params={"n": 2})
    assert error.value.code == "unsupported"
    assert "ask once for each answer" in str(error.value)


def test_tools_are_flat_and_strict_only_when_asked() -> None:
    tools = [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}},
        {"type": "function", "function": {"name": "g"}},
        {
            "type": "custom",
            "custom": {"name": "h", "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "x"}}},
        },
        {"type": "web_search"},
    ]
    empty = {"type": "object", "properties": {}}
    assert body(tools=tools, params={"parallel_tool_calls": False})["tools"] == [
        {"type": "function", "name": "f", "description": "d", "parameters": SCHEMA, "strict": True},
        {"type": "function", "name": "g", "parameters": empty, "strict": False},
        {"type": "custom", "name": "h", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}},
        {"type": "web_search"},
    ]


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("required", "required"),
        ({"type": "function", "function": {"name": "f"}}, {"type": "function", "name": "f"}),
        ({"type": "custom", "custom": {"name": "f"}}, {"type": "custom", "name": "f"}),
        ({"type": "file_search"}, {"type": "file_search"}),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
        ),
    ],
)
def test_tool_choice_is_flat(choice: Any, sent: Any) -> None:
    assert body(tool_choice=choice)["tool_choice"] == sent


def test_a_tool_loop() -> None:
    turns = items(
        {"role": "system", "content": "s"},
        {"role": "developer", "content": "d"},
        {"role": "user", "content": "u", "name": "ann"},
        {
            "role": "assistant",
            "content": "let me see",
            "tool_calls": [call("a", name="f", arguments="{}"), call("b", name="g", arguments={"x": 1})],
        },
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "2"}]},
        {"role": "assistant", "content": "so", "refusal": None, "phase": "final_answer"},
    )
    assert [turn.get("role") for turn in turns[:4]] == ["system", "developer", "user", "assistant"]
    assert turns[2] == {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "u"}]}
    assert turns[3:] == [
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "let me see"}]},
        {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "b", "name": "g", "arguments": '{"x":1}'},
        {"type": "function_call_output", "call_id": "a", "output": "1"},
        {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "2"}]},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "so"}],
            "phase": "final_answer",
        },
    ]


def test_a_custom_tools_result_has_a_type_of_its_own() -> None:
    custom = {"id": "a", "type": "custom", "custom": {"name": "f", "input": "any text"}}
    turns = items(
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": None, "tool_calls": [custom]},
        {"role": "tool", "tool_call_id": "a", "content": None},
    )
    assert turns[1:] == [
        {"type": "custom_tool_call", "call_id": "a", "name": "f", "input": "any text"},
        {"type": "custom_tool_call_output", "call_id": "a", "output": ""},
    ]


def test_parts() -> None:
    (turn,) = items(
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "t", "prompt_cache_breakpoint": {"mode": "explicit"}},
                {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                {"type": "file", "file": {"file_id": "file-1"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            ],
        }
    )
    assert turn["content"] == [
        {"type": "input_text", "text": "t", "prompt_cache_breakpoint": {"mode": "explicit"}},
        {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "auto"},
        {"type": "input_file", "file_id": "file-1"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
    ]


@pytest.mark.parametrize(
    ("said", "content"),
    [
        ({"refusal": "no"}, [{"type": "refusal", "refusal": "no"}]),
        ({"content": [{"type": "refusal", "refusal": "no"}]}, [{"type": "refusal", "refusal": "no"}]),
        ({"content": [{"type": "text", "text": "x"}]}, [{"type": "output_text", "text": "x"}]),
        ({"content": ""}, [{"type": "output_text", "text": ""}]),
    ],
)
def test_what_the_model_said_before(said: dict[str, Any], content: list[Any]) -> None:
    assert items({"role": "user", "content": "u"}, {"role": "assistant", **said})[1]["content"] == content


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "function", "name": "f", "content": "1"},
        {"role": "assistant", "content": "x", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "assistant", "content": "x", "tool_calls": ["f"]},
        {"role": "assistant", "content": "x", "tool_calls": [{"id": "a"}]},
    ],
)
def test_turns_without_a_word_there_are_refused(turn: dict[str, Any]) -> None:
    with pytest.raises(Permanent) as error:
        items({"role": "user", "content": "u"}, turn)
    assert error.value.code == "unsupported"


def test_every_name_is_the_sdks_own() -> None:
    known = set(openai.types.responses.response_create_params.ResponseCreateParamsBase.__annotations__)
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}
    tool = {"type": "function", "function": {"name": "f"}}
    params = {"reasoning_effort": "low", "verbosity": "low", "n": 1}
    asked = request(max_tokens=20, tools=[tool], tool_choice="auto", response_format=form, params=params)
    assert body_of(asked, own=True, tier="flex", stream=True).keys() - known == {"stream"}


JUNK = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=1)
PART = st.dictionaries(st.sampled_from(["type", "text", "image_url", "file", "refusal"]), JUNK, max_size=3)
TYPES = st.sampled_from(["text", "image_url", "file", "refusal", "x"])
CONTENT = st.text(max_size=3) | st.lists(st.builds(lambda part, kind: {**part, "type": kind}, PART, TYPES), max_size=2)
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "system"]), "content": CONTENT},
    optional={"tool_calls": JUNK | st.lists(st.dictionaries(st.sampled_from(["id", "function", "custom"]), JUNK))},
)


@given(st.lists(TURN, max_size=3), st.dictionaries(st.sampled_from(["reasoning", "text", "n", "verbosity"]), JUNK))
def test_any_request_is_a_body_or_is_refused(turns: list[dict[str, Any]], params: dict[str, Any]) -> None:
    asked = request({"role": "user", "content": "u"}, *turns, params=params)
    try:
        sent = body_of(asked, own=True, stream=True)
    except Permanent:
        return
    assert encode(sent)
    assert len(sent["input"]) >= 1


def test_the_sandbox_reads_it_all() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
    asked = request(
        {"role": "user", "content": [{"type": "text", "text": "u"}]},
        {"role": "assistant", "content": None, "tool_calls": [call("a", name="f", arguments="{}")]},
        {"role": "tool", "tool_call_id": "a", "content": "result"},
        tools=[tool],
        tool_choice={"type": "function", "function": {"name": "f"}},
        max_tokens=20,
        response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
    )
    ask = sandbox.read(body_of(asked, own=True, tier="flex", stream=True))
    assert (ask.cap, ask.schema, ask.tool_choice, ask.stream, ask.tier) == (20, SCHEMA, "f", True, "flex")
    assert "result" in ask.prompt
