"""Chat completions: what is asked, and odd JSON that is taken all the same."""

from dataclasses import replace
from typing import Any

import pytest

from jobs.chat import Message, Request, Usage
from jobs.providers.openai_params import body_of
from jobs.providers.openai_wire import Accumulator, answer_from, usage_of


def request(**more: Any) -> Request:
    return Request(**{"model": "m", "messages": [Message(role="user", content="hi")]} | more)


def test_half_an_emoji_and_nan_are_taken() -> None:
    body = b'{"choices": [{"message": {"content": "a\\ud83d"}, "logprobs": NaN, "finish_reason": "stop"}]}'
    assert answer_from(body).first.text == "a\ufffd"


@pytest.mark.parametrize(
    ("own", "model", "name"),
    [
        (True, "gpt-4o", "max_completion_tokens"),
        (False, "gpt-4o", "max_tokens"),
        (False, "llama-3", "max_tokens"),
        (False, "gpt-6-luna", "max_completion_tokens"),
        (False, "openai/o3", "max_completion_tokens"),
    ],
)
def test_the_cap_has_the_servers_name(own: bool, model: str, name: str) -> None:
    for asked in (request(model=model, max_tokens=7), request(model=model, params={"max_completion_tokens": 7})):
        body = body_of(asked, own=own)
        assert {key: body[key] for key in body if key.startswith("max")} == {name: 7}


def test_the_lane_and_the_tier_say_stream_and_service_tier() -> None:
    asked = request(
        params={"stream": True, "stream_options": {"include_usage": False}, "service_tier": "flex", "seed": 1}
    )
    assert body_of(asked, own=True) == {"seed": 1, "model": "m", "messages": [{"role": "user", "content": "hi"}]}
    body = body_of(asked, own=True, tier="fast", stream=True)
    assert (body["service_tier"], body["stream"], body["stream_options"]) == ("fast", True, {"include_usage": True})


def test_a_large_number_in_arguments_stays_what_it_is() -> None:
    call = {"id": "a", "function": {"name": "f", "arguments": '{"n": -9223372036854775809}'}}
    answer = answer_from({"choices": [{"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]})
    assert answer.first.tool_calls[0].arguments == {"n": -9223372036854775809}


@pytest.mark.parametrize(
    ("raw", "usage"),
    [
        (None, None),
        ({}, None),
        ({"prompt_tokens": 0, "completion_tokens": 0}, None),
        ({"prompt_tokens": 5}, None),
        ({"prompt_tokens": 5, "total_tokens": 7}, Usage(5, 2)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": None}, Usage(5, 2)),
        ({"input_tokens": 5, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 3}}, Usage(5, 2, 3)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 9}}, Usage(5, 2, 5)),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 2,
                "total_tokens": 10,
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(5, 5, reasoning=3),
        ),
    ],
)
def test_usage(raw: Any, usage: Usage | None) -> None:
    assert usage_of(raw) == usage


ODD = (None, "", "x", 0, 1, {}, [{"text": "part"}], {"name": "f", "arguments": "{}"}, {"content": "y"})
REASONS = ("length", "content_filter", "tool_calls", "STOP", "sideways", "", None, 3)
MORE = ("content", "refusal", "tool_calls", "function_call", "reasoning", "reasoning_content")


def plain(message: Any = None, choice: Any = None, more: Any = None, others: Any = ()) -> dict[str, Any]:
    said = {"role": "assistant", "content": "words", **(message or {})}
    ended = {"message": said, "finish_reason": "stop", **(choice or {})}
    return {
        "choices": [ended, *others],
        "model": "m",
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
        **(more or {}),
    }


@pytest.mark.parametrize(
    "body",
    [
        plain(),
        *(plain(choice={"finish_reason": reason}) for reason in REASONS),
        *(plain({name: value}) for name in MORE for value in ODD),
        *(plain(choice={name: value}) for name in ("message", "index", "delta") for value in ODD),
        *(plain(more={name: value}) for name in ("usage", "model", "service_tier") for value in ODD),
        *(plain(others=[value]) for value in (*ODD, plain()["choices"][0])),
    ],
)
def test_the_short_way_to_a_plain_answer_ends_where_the_long_one_does(body: dict[str, Any]) -> None:
    accumulator = Accumulator()
    accumulator.feed(body)
    assert answer_from(body) == accumulator.finish()
    assert answer_from(body, tier="batch") == replace(accumulator.finish(), tier="batch")
