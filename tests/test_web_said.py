"""What a response says of its request and of its tokens, now and when it is asked for again."""

from typing import Any

import openai
import pytest

from jobs.chat import Request
from jobs.errors import Permanent
from jobs.providers.responses_params import body_of
from tests.gateways import Served, sandbox_of
from tests.lanes import CLAUDE, MODEL

LIKELY: dict[str, Any] = {"model": MODEL, "input": "Write a long essay about rivers.", "top_logprobs": 2,
                          "include": ["message.output_text.logprobs"]}  # fmt: skip
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
TOOL: Any = {"type": "function", "name": "get_weather", "strict": False, "parameters": {"type": "object"}}
sandbox = sandbox_of(answer_tokens=12)


def words(told: Any) -> str:
    return "".join(one.token for one in told)


# ---- what was asked ----


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_it_is_in_the_background_when_that_was_asked(asked: openai.OpenAI, stream: bool, background: bool) -> None:
    made: Any = asked.responses.create(model=MODEL, input="hi", stream=stream, background=background)
    (first, *_) = made if stream else (made,)
    ident = first.response.id if stream else first.id
    assert asked.responses.retrieve(ident).background is background
    assert asked.responses.cancel(ident).background is background
    (again, *_) = asked.responses.retrieve(ident, stream=True)
    assert again.response.background is background


def test_it_repeats_its_request_when_it_is_asked_for_again(asked: openai.OpenAI) -> None:
    wanted: Any = {"format": {"type": "json_schema", "name": "n", "strict": True, "schema": SCHEMA}}
    first = asked.responses.create(model=MODEL, input="hi", metadata={"for": "me"}, temperature=0.5, text=wanted,
                                   max_output_tokens=99, parallel_tool_calls=False)  # fmt: skip
    choice: Any = {"type": "function", "name": "get_weather"}
    second = asked.responses.create(model=MODEL, input="hi", tools=[TOOL], tool_choice=choice)
    third = asked.responses.create(
        model=MODEL, input="hi", instructions="Be brief.", previous_response_id=first.id, store=False, user="me",
        truncation="auto", top_p=0.9, tool_choice="none", top_logprobs=2, metadata={"shunter_tags": "a=b"},
        text={"format": {"type": "text"}, "verbosity": "low"}, reasoning={"effort": "low"},
    )  # fmt: skip
    assert (third.instructions, third.previous_response_id, third.user) == ("Be brief.", first.id, "me")
    assert (third.truncation, third.top_p, third.tool_choice, third.top_logprobs) == ("auto", 0.9, "none", 2)
    assert third.model_dump()["store"] is False
    assert third.metadata == {"shunter_tags": "a=b"}
    assert third.reasoning is not None
    assert third.reasoning.effort == "low"
    for made in (first, second, third):
        assert asked.responses.retrieve(made.id).model_dump() == made.model_dump()


@pytest.mark.parametrize("background", [False, True])
def test_what_was_said_first_is_not_taken_for_instructions(asked: openai.OpenAI, background: bool) -> None:
    words: Any = [{"role": "system", "content": "Be long."}, {"role": "user", "content": "hi"}]
    plain = asked.responses.create(model=MODEL, input=words, background=background)
    told = asked.responses.create(model=MODEL, input=words, instructions="Be brief.", background=background)
    assert [asked.responses.retrieve(one.id).instructions for one in (plain, told)] == [None, "Be brief."]
    with asked.responses.stream(model=MODEL, input=words, instructions="Be brief.") as stream:
        assert {event.response.instructions for event in stream if hasattr(event, "response")} == {"Be brief."}


def test_what_was_not_asked_has_its_default(asked: openai.OpenAI) -> None:
    made = asked.responses.create(model=MODEL, input="hi").model_dump()
    names = ("instructions", "previous_response_id", "store", "truncation", "parallel_tool_calls", "tool_choice",
             "tools", "user", "metadata", "max_output_tokens", "top_logprobs")  # fmt: skip
    assert [made[name] for name in names] == [None, None, True, "disabled", True, "auto", [], None, {}, None, 0]
    assert made["text"] == {"format": {"type": "text"}, "verbosity": None}


def test_what_is_no_object_is_not_repeated(served: Served) -> None:
    with served.client() as client:
        made = client.post("/v1/responses", json={"model": MODEL, "input": "hi", "reasoning": "low", "text": [1]})
    assert made.status_code == 200, made.text
    assert (made.json()["reasoning"], made.json()["text"]) == (
        {"effort": None, "summary": None}, {"format": {"type": "text"}},
    )  # fmt: skip


# ---- how likely its tokens were ----


def test_a_whole_response_says_how_likely_its_tokens_were(asked: openai.OpenAI) -> None:
    made = asked.responses.create(**LIKELY)
    part: Any = made.output[0].content[0]  # type: ignore[union-attr]
    assert words(part.logprobs) == made.output_text != ""
    assert {len(one.top_logprobs) for one in part.logprobs} == {2}
    assert asked.responses.retrieve(made.id).output == made.output


def test_a_stream_says_it_of_each_piece_and_of_the_whole(asked: openai.OpenAI) -> None:
    with asked.responses.stream(**LIKELY) as stream:
        events = list(stream)
    pieces = [event for event in events if event.type == "response.output_text.delta"]
    assert len(pieces) > 1
    assert all(words(event.logprobs) == event.delta for event in pieces)
    (done,) = (event for event in events if event.type == "response.output_text.done")
    last: Any = events[-1]
    assert words(done.logprobs) == words(last.response.output[0].content[0].logprobs) == done.text


def test_a_structured_answer_that_is_held_back_says_it_at_the_end(asked: openai.OpenAI) -> None:
    wanted: Any = {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}
    with asked.responses.stream(**LIKELY, text=wanted) as stream:
        (piece,) = (event for event in stream if event.type == "response.output_text.delta")
    assert words(piece.logprobs) == piece.delta != ""


def test_who_asks_for_none_gets_none(asked: openai.OpenAI) -> None:
    for more in ({}, {"include": ["reasoning.encrypted_content"]}, {"top_logprobs": 2}):
        made: Any = asked.responses.create(model=MODEL, input="hi", **more)
        assert made.output[0].content[0].logprobs == []


def test_where_they_cannot_be_had_it_says_so(asked: openai.OpenAI, served: Served) -> None:
    with pytest.raises(openai.BadRequestError, match="logprobs"):
        asked.responses.create(**{**LIKELY, "model": CLAUDE})
    with served.client() as client:
        answer = client.post("/v1/responses", json={**LIKELY, "include": "all"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "include")
    chat = Request.from_body({"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "logprobs": True})
    with pytest.raises(Permanent, match="without logprobs") as refused:
        body_of(chat, own=True)
    assert refused.value.code == "unsupported"


# ---- what there is not ----


def test_what_is_not_served_is_told_what_is(asked: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="chat/completions, responses, models, files and batches"):
        asked.embeddings.create(model="text-embedding-3-small", input="hi")
