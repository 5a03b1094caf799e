"""Chat completions as the real OpenAI SDK sees them."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import openai
import pytest

from jobs.sandbox.server import Sandbox, running

HELLO = [{"role": "user", "content": "Tell me about marshalling yards."}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TIME = {
    "type": "function",
    "function": {"name": "get_time", "parameters": {"type": "object", "properties": {"zone": {"enum": ["CET"]}}}},
}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running() as sandbox:
        yield sandbox


def ask(client: Any, **more: Any) -> Any:
    return client.chat.completions.create(**{"model": "gpt-4o-mini", "messages": HELLO, **more})


def test_a_plain_answer_is_marked_and_whole(client: Any) -> None:
    got = ask(client)
    choice = got.choices[0]
    assert choice.message.content.startswith("[sandbox]")
    assert choice.finish_reason == "stop"
    assert got.object == "chat.completion"
    assert got.id.startswith("chatcmpl-")
    assert got.service_tier == "default"
    assert got._request_id.startswith("req_")
    usage = got.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens == 3 + 4 + 8
    assert usage.completion_tokens == len(choice.message.content.split())
    assert usage.completion_tokens_details.reasoning_tokens == 0
    assert usage.prompt_tokens_details.cached_tokens == 0


def test_the_same_prompt_gets_the_same_answer(client: Any) -> None:
    first, again = ask(client), ask(client)
    assert first.choices[0].message.content == again.choices[0].message.content
    assert first.id != again.id


@pytest.mark.parametrize("model", ["gpt-4o-mini", "gpt-6-luna", "o3", "chatgpt-4o-latest", "sandbox-1"])
def test_stream_and_plain_say_the_same(client: Any, model: str) -> None:
    plain = ask(client, model=model)
    chunks = list(ask(client, model=model, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].choices[0].delta.content == ""
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == plain.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == plain.usage
    assert all(c.usage is None for c in chunks[:-1])
    assert len(chunks) == plain.usage.completion_tokens + 3
    assert {c.id for c in chunks} == {chunks[0].id}


def test_no_usage_chunk_unless_asked(client: Any) -> None:
    chunks = list(ask(client, stream=True))
    assert all(chunk.choices for chunk in chunks)
    assert all("usage" not in chunk.model_fields_set for chunk in chunks)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("cap", [1, 2, 7])
def test_the_cap_is_kept_to_the_token(client: Any, cap: int, stream: bool) -> None:
    more = {"model": "gpt-6-luna", "max_completion_tokens": cap}
    if stream:
        *chunks, last = ask(client, stream=True, stream_options={"include_usage": True}, **more)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        finish, usage = chunks[-1].choices[0].finish_reason, last.usage
    else:
        got = ask(client, **more)
        text, finish, usage = got.choices[0].message.content, got.choices[0].finish_reason, got.usage
    assert (usage.completion_tokens, finish, len(text.split())) == (cap, "length", cap)


def test_length_follows_the_wording(client: Any) -> None:
    def tokens(prompt: str) -> int:
        got = ask(client, messages=[{"role": "user", "content": prompt}])
        return int(got.usage.completion_tokens)

    assert tokens("In one word: is it late?") <= 4
    assert 12 <= tokens("Say it briefly.") <= 36
    assert tokens("Write a detailed essay on points.") >= 240
    assert tokens("Write 77 words on sidings.") == 77
    assert tokens("Write 2000 words on sidings.") == 2000


SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "score": {"type": "integer", "minimum": 1, "maximum": 5},
        "kind": {"enum": ["a", "b"]},
    },
    "required": ["title", "score", "kind"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("stream", [False, True])
def test_a_schema_answer_fits_its_schema(client: Any, stream: bool) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA, "strict": True}}
    if stream:
        text = "".join(c.choices[0].delta.content or "" for c in ask(client, response_format=wanted, stream=True))
    else:
        text = ask(client, response_format=wanted).choices[0].message.content
    made = json.loads(text)
    jsonschema.validate(made, SCHEMA)
    assert made["title"].startswith("[sandbox]")


def test_json_mode_gives_an_object(client: Any) -> None:
    got = ask(client, response_format={"type": "json_object"})
    assert list(json.loads(got.choices[0].message.content)) == ["sandbox"]


@pytest.mark.parametrize("stream", [False, True])
def test_several_choices(client: Any, stream: bool) -> None:
    if stream:
        texts = {0: "", 1: "", 2: ""}
        for chunk in ask(client, n=3, stream=True):
            texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
        found = list(texts.values())
    else:
        found = [choice.message.content for choice in ask(client, n=3).choices]
    assert len(set(found)) == 3
    assert all(text.startswith("[sandbox]") for text in found)


OPEN_SCHEMA = {"name": "x", "schema": {"type": "object"}, "strict": True}
NO_SCHEMA = {"name": "x", "schema": {"enum": []}}


@pytest.mark.parametrize(
    ("more", "status", "code", "words"),
    [
        ({"messages": []}, 400, "empty_array", "empty array"),
        ({"messages": [{"role": "boss", "content": "x"}]}, 400, "invalid_value", "'boss'"),
        ({"messages": [{"content": "x"}]}, 400, "missing_required_parameter", "role"),
        ({"messages": [{"role": "user", "content": None}]}, 400, None, "null"),
        ({"max_tokens": 0}, 400, "integer_below_min_value", ">= 1"),
        ({"max_tokens": -3}, 400, "integer_below_min_value", "max_tokens"),
        ({"model": "gpt-6-luna", "max_tokens": 5}, 400, "unsupported_parameter", "max_completion_tokens"),
        ({"model": "llama-9"}, 404, "model_not_found", "llama-9"),
        ({"model": ""}, 400, "missing_required_parameter", "model"),
        ({"stream_options": {"include_usage": True}}, 400, None, "stream_options"),
        ({"service_tier": "flex"}, 400, None, "Invalid service_tier argument"),
        ({"service_tier": "gold"}, 400, "invalid_value", "gold"),
        ({"n": 1000}, 400, "integer_above_max_value", "128"),
        ({"response_format": {"type": "xml"}}, 400, "invalid_value", "xml"),
        ({"response_format": {"type": "json_schema", "json_schema": OPEN_SCHEMA}}, 400,
         "invalid_json_schema", "additionalProperties"),
        ({"response_format": {"type": "json_schema", "json_schema": NO_SCHEMA}}, 400, "invalid_json_schema", "enum"),
        ({"tool_choice": "required"}, 400, None, "tools"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "nope"}}}, 400, None, "nope"),
        ({"tools": [{"type": "function", "function": {"name": "bad name"}}]}, 400, "invalid_value", "pattern"),
    ],
)  # fmt: skip
def test_wrong_requests_are_refused_as_openai_does(
    client: Any, more: Any, status: int, code: str | None, words: str
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, **more)
    assert caught.value.status_code == status
    assert caught.value.code == code
    assert words in str(caught.value)
    assert caught.value.request_id


def test_keys(client: Any) -> None:
    for key, words in (("sk-wrong-1234567", "provided: sk-wr*******4567."), ("wrong", "provided: *****.")):
        with pytest.raises(openai.AuthenticationError, match="Incorrect API key") as caught:
            ask(client.with_options(api_key=key))
        assert words in str(caught.value)
        assert caught.value.code == "invalid_api_key"
    with pytest.raises(openai.AuthenticationError, match="didn't provide an API key"):
        ask(client, extra_headers={"Authorization": ""})


def test_tiers_are_echoed(client: Any) -> None:
    for asked, served in (("auto", "default"), ("flex", "flex"), ("fast", "priority"), ("priority", "priority")):
        assert ask(client, model="gpt-6-luna", service_tier=asked).service_tier == served


def test_rate_limit_headers(client: Any) -> None:
    got = client.chat.completions.with_raw_response.create(model="gpt-4o", messages=HELLO)
    assert {
        "x-request-id",
        "openai-processing-ms",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-requests",
    } <= set(got.headers)


async def _many(url: str) -> list[str]:
    import asyncio

    async with openai.AsyncOpenAI(base_url=url + "/v1", api_key="sk-x", max_retries=0) as client:
        asked = [
            client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": f"q {n}"}])
            for n in range(40)
        ]
        return [str(got.choices[0].message.content) for got in await asyncio.gather(*asked)]


def test_the_async_client_all_at_once(sandbox: Sandbox) -> None:
    import asyncio

    sandbox.reset()
    assert len(asyncio.run(_many(sandbox.url))) == 40
    assert sandbox.bill()["totals"]["rows"] == 40
