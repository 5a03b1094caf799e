"""Tool calls and pace of chat completions, as the real OpenAI SDK sees them."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import openai
import pytest

from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings

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


@pytest.mark.parametrize(
    ("choice", "prompt", "names"),
    [
        ("required", "anything", ["get_weather"]),
        ({"type": "function", "function": {"name": "get_time"}}, "anything", ["get_time"]),
        ("auto", "please get_weather and get_time", ["get_weather", "get_time"]),
        ("auto", "nothing of the kind", []),
        ("none", "please get_weather", []),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_tools_are_called_when_they_should_be(
    client: Any, choice: Any, prompt: str, names: list[str], stream: bool
) -> None:
    more: dict[str, Any] = {
        "messages": [{"role": "user", "content": prompt}],
        "tools": [WEATHER, TIME],
        "tool_choice": choice,
    }
    if stream:
        parts: dict[int, list[str]] = {}
        chunks = list(ask(client, stream=True, stream_options={"include_usage": True}, **more))
        for chunk in chunks[:-1]:
            for call in chunk.choices[0].delta.tool_calls or []:
                if call.index not in parts:
                    assert call.id
                    assert call.type == "function"
                    parts[call.index] = [call.function.name, ""]
                else:
                    assert call.id is None
                    assert call.function.name is None
                parts[call.index][1] += call.function.arguments
        calls, finish, usage = list(parts.values()), chunks[-2].choices[0].finish_reason, chunks[-1].usage
        assert usage == ask(client, **more).usage
    else:
        got = ask(client, **more)
        calls = [[call.function.name, call.function.arguments] for call in got.choices[0].message.tool_calls or []]
        finish = got.choices[0].finish_reason
    assert [name for name, _ in calls] == names
    assert finish == ("tool_calls" if names else "stop")
    for name, arguments in calls:
        tool: Any = WEATHER if name == "get_weather" else TIME
        jsonschema.validate(json.loads(arguments), tool["function"]["parameters"])


def test_a_tool_loop_ends(client: Any) -> None:
    asked: list[Any] = [{"role": "user", "content": "get_weather please"}]
    call = ask(client, messages=asked, tools=[WEATHER]).choices[0].message
    asked += [
        call.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "get_weather: sunny"},
    ]
    assert ask(client, messages=asked, tools=[WEATHER]).choices[0].finish_reason == "stop"


def test_one_call_where_parallel_calls_are_off(client: Any) -> None:
    got = ask(
        client,
        messages=[{"role": "user", "content": "get_weather get_time"}],
        tools=[WEATHER, TIME],
        parallel_tool_calls=False,
    )
    assert len(got.choices[0].message.tool_calls) == 1


def test_settings_rule_length_reasoning_and_pace() -> None:
    settings = SandboxSettings(answer_tokens=30, reasoning_tokens=10, latency_s=0.05, tokens_per_second=400)
    with (
        running(settings) as sandbox,
        openai.OpenAI(base_url=sandbox.url + "/v1", api_key="sk-x", max_retries=0) as client,
    ):
        got = ask(client, model="gpt-6-luna")
        assert got.usage.completion_tokens == 40
        assert got.usage.completion_tokens_details.reasoning_tokens == 10
        short = ask(client, model="gpt-6-luna", max_completion_tokens=12)
        assert short.usage.completion_tokens == 12
        assert len(short.choices[0].message.content.split()) == 2
        assert ask(client, model="gpt-4o").usage.completion_tokens == 30
        import time

        began = time.perf_counter()
        marks = [time.perf_counter() - began for _ in ask(client, model="gpt-4o", stream=True)]
        assert marks[1] >= 0.045
        assert marks[-1] >= 0.05 + 29 / 400 - 0.01
