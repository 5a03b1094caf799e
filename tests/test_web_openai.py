"""The gateway under /v1, asked by OpenAI's own client, unmodified."""

import time
from typing import Any

import httpx2
import openai
import pytest

from db import lookup
from jobs.sandbox.server import Sandbox
from router.web import streams
from tests.gateways import Served, sandbox_of
from tests.lanes import CLAUDE, MODEL

ESSAY: list[Any] = [{"role": "user", "content": "Write a long essay about rivers."}]
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
sandbox = sandbox_of(answer_tokens=30, tokens_per_second=600)


def test_a_plain_answer_with_its_usage_and_which_way_it_went(asked: openai.OpenAI, sandbox: Sandbox) -> None:
    raw = asked.chat.completions.with_raw_response.create(model=MODEL, messages=ESSAY)
    answer, (row,) = raw.parse(), sandbox.bill()["rows"]
    assert answer.choices[0].message.content
    assert answer.usage
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (
        row["usage"]["input"],
        row["usage"]["output"],
    )
    assert raw.headers["x-shunter-lane"] == "sync"
    assert raw.headers["x-shunter-reason"]
    assert round(float(raw.headers["x-shunter-cost"]) * 10**9) == row["cost_nano_usd"]
    assert answer.id == f"chatcmpl-{raw.headers['x-shunter-job']}"


def test_claude_answers_in_the_same_form(asked: openai.OpenAI) -> None:
    whole = asked.chat.completions.create(model=CLAUDE, messages=ESSAY, tools=[TOOL], tool_choice="required")
    short = list(asked.chat.completions.create(model=CLAUDE, messages=ESSAY, max_tokens=5, stream=True))
    assert whole.choices[0].message.tool_calls
    assert whole.choices[0].finish_reason == "tool_calls"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in short)
    assert short[-1].choices[0].finish_reason == "length"


def test_a_stream_with_its_usage(asked: openai.OpenAI) -> None:
    chunks = list(
        asked.chat.completions.create(model=MODEL, messages=ESSAY, stream=True, stream_options={"include_usage": True})
    )
    assert sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in chunks) > 10
    assert chunks[-2].choices[0].finish_reason
    assert chunks[-1].choices == []
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens > 0


def test_the_helper_of_the_client_reads_the_stream_as_well(asked: openai.OpenAI) -> None:
    with asked.chat.completions.stream(model=MODEL, messages=ESSAY) as stream:
        assert stream.get_final_completion().choices[0].message.content


def test_several_choices(asked: openai.OpenAI) -> None:
    whole = asked.chat.completions.create(model=MODEL, messages=ESSAY, n=3)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert all(choice.message.content for choice in whole.choices)
    ended = set()
    for chunk in asked.chat.completions.create(model=MODEL, messages=ESSAY, n=3, stream=True):
        ended |= {choice.index for choice in chunk.choices if choice.finish_reason}
    assert ended == {0, 1, 2}


@pytest.mark.parametrize("choice", ["required", "auto"])
def test_tools_whole_and_streamed(asked: openai.OpenAI, choice: Any) -> None:
    ask: dict[str, Any] = {"model": MODEL, "tools": [TOOL], "tool_choice": choice,
                           "messages": [{"role": "user", "content": "Call get_weather for Paris"}]}  # fmt: skip
    whole = asked.chat.completions.create(**ask).choices[0]
    with asked.chat.completions.stream(**ask) as stream:
        streamed = stream.get_final_completion().choices[0]
    for answer in (whole, streamed):
        if choice == "required":
            assert answer.message.tool_calls
            assert answer.finish_reason == "tool_calls"
        for call in answer.message.tool_calls or ():
            assert call.function.name == "get_weather"
            assert call.function.arguments.startswith("{")


def test_an_answer_that_fits_its_schema(asked: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    whole = asked.chat.completions.create(model=MODEL, messages=ESSAY, response_format=wanted)
    chunks = asked.chat.completions.create(model=MODEL, messages=ESSAY, response_format=wanted, stream=True)
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    for text in (whole.choices[0].message.content, streamed):
        assert text
        assert '"n"' in text


def test_fields_that_are_not_known_here_are_passed_on(asked: openai.OpenAI, served: Served) -> None:
    raw = asked.chat.completions.with_raw_response.create(
        model=MODEL, messages=ESSAY, seed=7, extra_body={"made_up": {"a": 1}},
        metadata={"mine": "1", "shunter_tags": "team=a"},
    )  # fmt: skip
    job = raw.headers["x-shunter-job"]
    assert '"made_up":{"a":1}' in lookup.body(served.router.store, job)[0]
    assert '"metadata":{"mine":"1"}' in lookup.body(served.router.store, job)[0]
    kept = lookup.job(served.router.store, job)
    assert kept
    assert kept["tags"] == {"team": "a"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, openai.BadRequestError), (404, openai.NotFoundError), (422, openai.UnprocessableEntityError),
     (413, openai.APIStatusError)],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_error_keeps_its_status_and_code(
    asked: openai.OpenAI, sandbox: Sandbox, status: int, kind: type[openai.APIStatusError], stream: bool
) -> None:
    sandbox.faults([{"kind": "status", "status": status, "code": "odd", "message": "an odd thing"}])
    with pytest.raises(kind) as caught:
        asked.chat.completions.create(model=MODEL, messages=ESSAY, stream=stream)
    assert (caught.value.status_code, caught.value.code) == (status, "odd")
    assert "an odd thing" in str(caught.value)


@pytest.mark.parametrize("stream", [False, True])
def test_who_must_wait_long_is_told_so_at_once(asked: openai.OpenAI, sandbox: Sandbox, stream: bool) -> None:
    sandbox.faults([{"kind": "status", "status": 429, "retry_after": 33}])
    with pytest.raises(openai.RateLimitError) as caught:
        asked.chat.completions.create(model=MODEL, messages=ESSAY, stream=stream)
    assert caught.value.response.headers["retry-after"] == "33"


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_after_several_tries_keeps_its_status_and_when_to_come_back(
    asked: openai.OpenAI, sandbox: Sandbox, stream: bool
) -> None:
    sandbox.faults([{"kind": "status", "status": 503, "retry_after": 0.05, "code": "odd"}])
    with pytest.raises(openai.InternalServerError) as caught:
        asked.chat.completions.create(model=MODEL, messages=ESSAY, stream=stream)
    assert "tried 3 times" in str(caught.value)
    assert (caught.value.status_code, caught.value.code) == (503, "odd")
    assert caught.value.response.headers["retry-after"] == "1"


def test_an_error_in_mid_stream_is_one_that_the_client_raises(asked: openai.OpenAI, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "cut", "after": 5}])
    chunks = asked.chat.completions.create(model=MODEL, messages=ESSAY, stream=True)
    assert any(choice.delta.content for choice in next(chunks).choices + next(chunks).choices)
    with pytest.raises(openai.APIError) as caught:
        list(chunks)
    assert caught.value.code == "cut"


@pytest.mark.parametrize("stream", [False, True])
def test_a_quiet_stream_is_kept_alive_and_read_all_the_same(
    asked: openai.OpenAI, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr(streams, "QUIET_S", 0.05)
    sandbox.faults([{"kind": "slow_first_token", "seconds": 0.4}])
    answer: Any = asked.chat.completions.create(model=MODEL, messages=ESSAY, stream=stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in answer) if stream else "plain"
    assert text


def test_a_key_asks_once(asked: openai.OpenAI, sandbox: Sandbox) -> None:
    first, again = (
        asked.chat.completions.create(model=MODEL, messages=ESSAY, extra_headers={"X-Shunter-Key": "once"})
        for _ in range(2)
    )
    assert (first.id, first.choices) == (again.id, again.choices)
    assert len(sandbox.bill()["rows"]) == 1
    with pytest.raises(openai.ConflictError):
        asked.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "else"}],
                                      extra_headers={"X-Shunter-Key": "once"})  # fmt: skip


def test_only_who_prefers_it_is_answered_later(served: Served, sandbox: Sandbox) -> None:
    sandbox.reset()
    ask = {"model": MODEL, "messages": ESSAY}
    with served.client() as client:
        client.headers["X-Shunter-Deadline"] = "12h"
        assert client.post("/v1/chat/completions", json=ask).status_code == 200
        later = client.post("/v1/chat/completions", json=ask, headers={"Prefer": "respond-async"})
        assert later.status_code == 202
        job = client.get(later.headers["location"]).json()
    assert (job["id"], job["state"], job["class"]) == (later.json()["id"], "queued", "bulk")
    assert len(sandbox.bill()["rows"]) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_stops_it_upstream(
    served: Served, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    sandbox.reset()
    sandbox.faults([{"kind": "slow_first_token", "seconds": 30.0}])
    body, tag = {"model": MODEL, "messages": ESSAY, "stream": stream}, {"X-Shunter-Tags": f"left={stream}"}
    with served.client() as client, pytest.raises(httpx2.ReadTimeout):
        client.post("/v1/chat/completions", json=body, timeout=0.3, headers=tag)
    until = time.monotonic() + 10
    while time.monotonic() < until:
        newest = lookup.jobs(served.router.store, limit=1)["jobs"][0]
        if newest["state"] != "running":
            break
        time.sleep(0.02)
    assert (newest["tags"], newest["state"]) == ({"left": str(stream)}, "cancelled")


def test_models_are_listed(asked: openai.OpenAI) -> None:
    assert MODEL in [model.id for model in asked.models.list()]
    assert asked.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        asked.models.retrieve("a/b")


@pytest.mark.parametrize(
    "body",
    [{}, {"messages": []}, {"model": MODEL, "messages": "hi"}, {"model": 3, "messages": ESSAY}, {"messages": [{}]},
     {"messages": ESSAY, "stream": "yes"}, {"messages": ESSAY, "max_tokens": "x"}, {"messages": ESSAY, "max_tokens": 0},
     {"messages": ESSAY, "max_tokens": 5, "max_completion_tokens": 6}, {"messages": ESSAY, "tools": {}}],
)  # fmt: skip
def test_a_body_that_is_no_request_is_refused(served: Served, body: dict[str, Any]) -> None:
    with served.client() as client:
        answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
