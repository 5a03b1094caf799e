"""Anthropic's Messages API and its batches, as the real Anthropic SDK sees them."""

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import jsonschema
import pytest

from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings

HELLO = [{"role": "user", "content": "Tell me about signals."}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "n": {"enum": [1, 2]}},
    "required": ["city", "n"],
    "additionalProperties": False,
}
TOOL = {"name": "get_weather", "input_schema": SCHEMA}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running(SandboxSettings(batch_seconds=1000, cancel_seconds=50)) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def one_client(sandbox: Sandbox) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=sandbox.url, api_key="sk-ant-test", max_retries=0) as client:
        yield client


@pytest.fixture
def client(sandbox: Sandbox, one_client: anthropic.Anthropic) -> anthropic.Anthropic:
    sandbox.reset()
    return one_client


def ask(client: Any, **more: Any) -> Any:
    return client.messages.create(**{"model": "claude-haiku-5-5", "max_tokens": 1000, "messages": HELLO, **more})


def test_plain_and_stream_say_the_same(client: Any) -> None:
    plain = ask(client)
    assert plain.content[0].text.startswith("[sandbox]")
    assert plain.stop_reason == "end_turn"
    assert plain._request_id.startswith("req_")
    with client.messages.stream(model="claude-haiku-5-5", max_tokens=1000, messages=HELLO) as events:
        pieces = list(events.text_stream)
        final = events.get_final_message()
    assert "".join(pieces) == plain.content[0].text
    assert len(pieces) == plain.usage.output_tokens == final.usage.output_tokens
    assert final.usage.input_tokens == plain.usage.input_tokens
    assert final.stop_reason == "end_turn"
    assert (
        client.messages.count_tokens(model="claude-haiku-5-5", messages=HELLO).input_tokens == plain.usage.input_tokens
    )


def test_the_raw_events_come_in_order(client: Any) -> None:
    kinds = [event.type for event in ask(client, stream=True, max_tokens=2)]
    assert kinds == [
        "message_start", "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
        "message_delta", "message_stop",
    ]  # fmt: skip


def test_the_cap(client: Any) -> None:
    got = ask(client, max_tokens=3)
    assert (got.stop_reason, got.usage.output_tokens) == ("max_tokens", 3)


def test_a_schema_answer_fits(client: Any) -> None:
    import json

    got = ask(client, output_config={"format": {"type": "json_schema", "schema": SCHEMA}})
    jsonschema.validate(json.loads(got.content[0].text), SCHEMA)


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}])
def test_tools(client: Any, choice: Any) -> None:
    plain = ask(client, tools=[TOOL], tool_choice=choice)
    (block,) = plain.content
    assert (block.type, block.name, plain.stop_reason) == ("tool_use", "get_weather", "tool_use")
    jsonschema.validate(block.input, SCHEMA)
    with client.messages.stream(
        model="claude-haiku-5-5",
        max_tokens=1000,
        messages=HELLO,
        tools=[TOOL],
        tool_choice=choice,
    ) as events:
        final = events.get_final_message()
    assert final.content[0].input == block.input
    assert final.usage.output_tokens == plain.usage.output_tokens


def test_a_tool_result_is_answered_in_words(client: Any) -> None:
    asked: list[Any] = [{"role": "user", "content": "get_weather please"}]
    first = ask(client, messages=asked, tools=[TOOL])
    asked += [
        {"role": "assistant", "content": [block.model_dump() for block in first.content]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": first.content[0].id, "content": "get_weather: sun"}],
        },
    ]
    assert ask(client, messages=asked, tools=[TOOL]).stop_reason == "end_turn"


@pytest.mark.parametrize(
    ("more", "kind", "words"),
    [
        ({"model": "gpt-4o"}, anthropic.NotFoundError, "model: gpt-4o"),
        ({"messages": []}, anthropic.BadRequestError, "at least one message"),
        ({"messages": [{"role": "boss", "content": "x"}]}, anthropic.BadRequestError, "role"),
        ({"max_tokens": 0}, anthropic.BadRequestError, "max_tokens"),
        ({"extra_body": {"temperature": 1}}, anthropic.BadRequestError, "temperature"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, anthropic.BadRequestError, "pattern"),
        ({"tool_choice": {"type": "any"}}, anthropic.BadRequestError, "tool_choice"),
    ],
)
def test_wrong_requests_are_refused(client: Any, more: Any, kind: Any, words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        ask(client, **more)
    assert caught.value.request_id.startswith("req_")


def test_the_old_version_may_set_a_temperature(client: Any) -> None:
    assert ask(client, extra_headers={"anthropic-version": "2023-06-01"}, extra_body={"temperature": 1})


def test_keys_and_models(client: Any, sandbox: Sandbox) -> None:
    with pytest.raises(anthropic.AuthenticationError):
        ask(client.with_options(api_key="sk-wrong-key"))
    body = {"model": "claude-haiku-5-5", "max_tokens": 3, "messages": HELLO}
    for headers, status in (({"x-api-key": "sk-ant"}, 200), ({}, 401), ({"x-api-key": "wrong"}, 401)):
        got = httpx2.post(
            sandbox.url + "/v1/messages", json=body, headers={"anthropic-version": "2026-10-21", **headers}
        )
        assert got.status_code == status
        assert "request-id" in got.headers
        assert "anthropic-ratelimit-tokens-remaining" in got.headers
    assert "claude-haiku-5-5" in [model.id for model in client.models.list()]


def rows(*ids: str, **more: Any) -> list[Any]:
    return [
        {"custom_id": one, "params": {"model": "claude-haiku-5-5", "max_tokens": 9, "messages": HELLO, **more}}
        for one in ids
    ]


def test_a_batch_from_start_to_end(client: Any, sandbox: Sandbox) -> None:
    names = [f"row-{n}" for n in range(40)]
    asked = [
        *rows(*names),
        *rows("bad", max_tokens=0),
        *rows("other", model="claude-opus-5-5"),
        *rows("streamed", stream=True),
    ]
    batch = client.messages.batches.create(requests=asked)
    assert batch.processing_status == "in_progress"
    assert batch.results_url is None
    assert batch.request_counts.processing == 43
    with pytest.raises(anthropic.AnthropicError, match="results_url"):
        client.messages.batches.results(batch.id)
    sandbox.advance(500)
    half = client.messages.batches.retrieve(batch.id)
    assert half.processing_status == "in_progress"
    assert half.request_counts.succeeded == 0
    assert 15 <= sandbox.bill(kind="batch")["totals"]["rows"] <= 25
    sandbox.advance(501)
    ended = client.messages.batches.retrieve(batch.id)
    assert ended.processing_status == "ended"
    assert ended.ended_at is not None
    assert (ended.request_counts.succeeded, ended.request_counts.errored, ended.request_counts.processing) == (41, 2, 0)
    found = {line.custom_id: line.result for line in client.messages.batches.results(batch.id)}
    assert set(found) == {*names, "bad", "other", "streamed"}
    assert list(found)[:40] != names
    assert found["bad"].type == "errored"
    assert found["bad"].error.error.type == "invalid_request_error"
    good = found["row-3"]
    assert good.type == "succeeded"
    assert good.message.usage.service_tier == "batch"
    assert good.message.content == ask(client, max_tokens=9).content
    assert sandbox.bill(kind="batch")["totals"]["rows"] == 41


def test_a_batch_is_cancelled_half_way_and_deleted(client: Any, sandbox: Sandbox) -> None:
    batch = client.messages.batches.create(requests=rows(*"abcdefghij"))
    sandbox.advance(301)
    assert client.messages.batches.cancel(batch.id).processing_status == "canceling"
    with pytest.raises(anthropic.BadRequestError, match="cannot be deleted"):
        client.messages.batches.delete(batch.id)
    sandbox.advance(50)
    ended = client.messages.batches.retrieve(batch.id)
    assert ended.processing_status == "ended"
    assert ended.cancel_initiated_at is not None
    assert (ended.request_counts.succeeded, ended.request_counts.canceled) == (3, 7)
    kinds = [line.result.type for line in client.messages.batches.results(batch.id)]
    assert (kinds.count("succeeded"), kinds.count("canceled")) == (3, 7)
    client.messages.batches.delete(batch.id)
    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.retrieve(batch.id)


def test_a_batch_expires(client: Any, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "expire", "fraction": 0.4}])
    batch = client.messages.batches.create(requests=rows(*"abcdefghij"))
    sandbox.advance(401)
    counts = client.messages.batches.retrieve(batch.id).request_counts
    assert (counts.succeeded, counts.expired) == (4, 6)
    assert sandbox.bill()["totals"]["rows"] == 4


def test_the_list_pages_both_ways(client: Any) -> None:
    made = [client.messages.batches.create(requests=rows("a")).id for _ in range(5)][::-1]
    assert [batch.id for batch in client.messages.batches.list(limit=2)] == made
    page = client.messages.batches.list(limit=2, before_id=made[3])
    assert [batch.id for batch in page.data] == made[1:3]
    assert page.has_more
    with pytest.raises(anthropic.BadRequestError, match="limit"):
        client.messages.batches.list(limit=1001)


@pytest.mark.parametrize(
    ("requests", "words"),
    [([], "at least 1"), (rows("x" * 65), "64 characters"), (rows("a b"), "pattern"), (rows("a", "a"), "unique")],
)
def test_wrong_batches_are_refused(client: Any, requests: Any, words: str) -> None:
    with pytest.raises(anthropic.BadRequestError, match=words):
        client.messages.batches.create(requests=requests)
