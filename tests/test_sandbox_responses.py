"""The Responses API as the real OpenAI SDK sees it."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import openai
import pytest

from jobs.sandbox.server import Sandbox, running

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "name": "look_up", "parameters": SCHEMA}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running() as sandbox:
        yield sandbox


def ask(client: Any, **more: Any) -> Any:
    return client.responses.create(**{"model": "gpt-6-luna", "input": "Tell me about points.", **more})


def test_plain_and_stream_say_the_same_and_cost_the_same(client: Any) -> None:
    plain = ask(client)
    assert plain.status == "completed"
    assert plain.output_text.startswith("[sandbox]")
    with client.responses.stream(model="gpt-6-luna", input="Tell me about points.") as events:
        kinds = [event.type for event in events]
        final = events.get_final_response()
    assert final.output_text == plain.output_text
    assert final.usage == plain.usage
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert kinds.count("response.output_text.delta") == plain.usage.output_tokens


def test_sequence_numbers_run(client: Any) -> None:
    events = list(ask(client, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_chat_and_responses_count_alike(client: Any) -> None:
    chat = client.chat.completions.create(
        model="gpt-6-luna", messages=[{"role": "user", "content": "Tell me about points."}]
    )
    usage = ask(client).usage
    assert chat.usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (chat.usage.prompt_tokens, chat.usage.completion_tokens)
    counted = client.responses.input_tokens.count(model="gpt-6-luna", input="Tell me about points.")
    assert counted.input_tokens == usage.input_tokens


@pytest.mark.parametrize("stream", [False, True])
def test_the_cap_makes_it_incomplete(client: Any, stream: bool) -> None:
    if stream:
        last = list(ask(client, max_output_tokens=5, stream=True))[-1]
        assert last.type == "response.incomplete"
        got = last.response
    else:
        got = ask(client, max_output_tokens=5)
    assert got.status == "incomplete"
    assert got.incomplete_details.reason == "max_output_tokens"
    assert got.usage.output_tokens == 5 == len(got.output_text.split())


def test_schema_and_json_mode(client: Any) -> None:
    wanted = {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}}
    jsonschema.validate(json.loads(ask(client, text=wanted).output_text), SCHEMA)
    assert "sandbox" in json.loads(ask(client, text={"format": {"type": "json_object"}}).output_text)


def test_function_calls(client: Any) -> None:
    plain = ask(client, tools=[TOOL], tool_choice="required")
    (call,) = plain.output
    assert (call.type, call.name, call.status) == ("function_call", "look_up", "completed")
    jsonschema.validate(json.loads(call.arguments), SCHEMA)
    with client.responses.stream(model="gpt-6-luna", input="look_up it", tools=[TOOL]) as events:
        streamed = list(events)
        final = events.get_final_response()
    pieces = [event.delta for event in streamed if event.type == "response.function_call_arguments.delta"]
    assert "".join(pieces) == final.output[0].arguments
    assert final.usage is not None
    assert len(pieces) == final.usage.output_tokens
    answered = [
        {"role": "user", "content": "look_up it"},
        {"type": "function_call", "call_id": call.call_id, "name": "look_up", "arguments": call.arguments},
        {"type": "function_call_output", "call_id": call.call_id, "output": "done with look_up"},
    ]
    assert ask(client, input=answered, tools=[TOOL]).output_text.startswith("[sandbox]")


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        ({"input": []}, 400, "empty array"),
        ({"input": [{"role": "boss", "content": "x"}]}, 400, "boss"),
        ({"model": "mistral"}, 404, "mistral"),
        ({"max_output_tokens": 0}, 400, ">= 1"),
        ({"extra_body": {"max_tokens": 5}}, 400, "max_output_tokens"),
        ({"metadata": {str(n): "x" for n in range(17)}}, 400, "16"),
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "array"}, "strict": True}}},
            400,
            "object",
        ),
    ],
)
def test_wrong_requests_are_refused(client: Any, more: Any, status: int, words: str) -> None:
    with pytest.raises(openai.APIStatusError, match=words) as caught:
        ask(client, **more)
    assert caught.value.status_code == status


def test_the_models(client: Any) -> None:
    names = [model.id for model in client.models.list()]
    assert len(names) >= 12
    assert "gpt-6-luna" in names
    assert client.models.retrieve("gpt-4o").id == "gpt-4o"
    with pytest.raises(openai.NotFoundError, match="nope"):
        client.models.retrieve("nope")
