"""The Responses API of the gateway, asked by OpenAI's own client, unmodified."""

import asyncio
from typing import Any

import openai
import pytest

from jobs import live
from jobs.sandbox.server import Sandbox
from tests.gateways import Served, facts_of, sandbox_of
from tests.lanes import MODEL

TOOL: Any = {"type": "function", "name": "get_weather", "strict": False,
             "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}  # fmt: skip
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
sandbox = sandbox_of(answer_tokens=20)
facts = facts_of(has_batch={"openai": False})


def test_a_whole_response(asked: openai.OpenAI, sandbox: Sandbox) -> None:
    made = asked.responses.create(model=MODEL, input="Say something", instructions="Be brief")
    (row,) = sandbox.bill()["rows"]
    assert made.status == "completed"
    assert made.output_text
    assert made.usage
    assert (made.usage.input_tokens, made.usage.output_tokens) == (row["usage"]["input"], row["usage"]["output"])
    assert asked.responses.retrieve(made.id).output_text == made.output_text


def test_a_streamed_response_by_the_client_s_own_helper(asked: openai.OpenAI) -> None:
    kinds, said = [], ""
    with asked.responses.stream(model=MODEL, input="Write a long essay") as stream:
        for event in stream:
            kinds.append(event.type)
            said += event.delta if event.type == "response.output_text.delta" else ""
        final = stream.get_final_response()
    assert kinds[:4] == ["response.created", "response.in_progress", "response.output_item.added",
                         "response.content_part.added"]  # fmt: skip
    assert kinds[-4:] == ["response.output_text.done", "response.content_part.done", "response.output_item.done",
                          "response.completed"]  # fmt: skip
    assert final.output_text == said != ""


@pytest.mark.parametrize("stream", [False, True])
def test_tools_and_their_results(asked: openai.OpenAI, stream: bool) -> None:
    ask: dict[str, Any] = {"model": MODEL, "input": "Call get_weather", "tools": [TOOL], "tool_choice": "required"}
    if stream:
        with asked.responses.stream(**ask) as events:
            made = events.get_final_response()
    else:
        made = asked.responses.create(**ask)
    call: Any = made.output[0]
    assert (call.type, call.name) == ("function_call", "get_weather")
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    after = asked.responses.create(model=MODEL, previous_response_id=made.id, input=[result], tools=[TOOL])
    assert after.status == "completed"


def test_a_structured_response(asked: openai.OpenAI) -> None:
    wanted: Any = {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}
    assert '"n"' in asked.responses.create(model=MODEL, input="A number", text=wanted).output_text


def test_an_answer_that_was_cut_short_is_incomplete(asked: openai.OpenAI) -> None:
    made = asked.responses.create(model=MODEL, input="Write a long essay", max_output_tokens=16)
    assert made.status == "incomplete"
    assert made.incomplete_details
    assert made.incomplete_details.reason == "max_output_tokens"


def test_an_upstream_error_is_a_status(asked: openai.OpenAI, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "status", "status": 400, "code": "odd"}])
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError):
            asked.responses.create(model=MODEL, input="hi", stream=stream)


def test_a_response_in_the_background_is_a_queued_job(asked: openai.OpenAI, served: Served) -> None:
    made = asked.responses.create(model=MODEL, input="Take your time", background=True)
    assert (made.status, made.background) == ("queued", True)
    assert asked.responses.retrieve(made.id).status == "queued"

    async def work() -> None:
        await live.drain(served.router.context(), lambda claim, ended: None, asyncio.Event())

    asyncio.run_coroutine_threadsafe(work(), served.loop).result(20)
    done = asked.responses.retrieve(made.id)
    assert done.status == "completed"
    assert done.output_text


def test_a_response_in_the_background_is_cancelled(asked: openai.OpenAI) -> None:
    made = asked.responses.create(model=MODEL, input="Never mind", background=True)
    assert asked.responses.cancel(made.id).status == "cancelled"


@pytest.mark.parametrize(
    "body",
    [{}, {"input": 3}, {"input": []}, {"input": [3]}, {"input": [{"type": "item_reference", "id": "x"}]},
     {"input": "a", "tools": [{"type": "web_search"}]}, {"input": "a", "background": True, "stream": True,
      "background_options": {"completion_window": "2h"}},
     {"input": "a", "previous_response_id": 3}, {"input": "a", "conversation": "c"}, {"input": "a", "tools": 3},
     {"input": [{"role": "user", "content": [3]}]}, {"input": [{"role": "user"}]}],
)  # fmt: skip
def test_what_cannot_be_said_is_refused(served: Served, body: dict[str, Any]) -> None:
    with served.client() as client:
        answer = client.post("/v1/responses", json={"model": MODEL, **body})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]
