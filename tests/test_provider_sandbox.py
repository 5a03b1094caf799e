"""The live lanes against the sandbox: what is shown, what is counted, and that its bill agrees."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from jobs.chat import Answer, Message, Outcome, Request
from jobs.errors import CallError
from jobs.providers import PROVIDERS, Endpoint, Timeouts
from jobs.sandbox.server import Sandbox

MODELS = {"openai": "gpt-4.1-mini", "anthropic": "claude-haiku-4-5"}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
FORCED = {"type": "function", "function": {"name": "weather"}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}


@pytest.fixture(params=["openai", "anthropic"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(name: str, sandbox: Sandbox, test: Callable[[Any, Request], Awaitable[Any]], **more: Any) -> Any:
    async def whole() -> Any:
        made = PROVIDERS[name](Endpoint(name, sandbox.url + ("/v1" if name == "openai" else ""), False, "A_KEY"))
        request = Request(
            model=MODELS[name], messages=[Message(role="user", content="tell me")], max_tokens=2000, **more
        )
        try:
            async with asyncio.timeout(20):
                return await test(made, request)
        finally:
            await made.close()

    return asyncio.run(whole())


async def plain(made: Any, request: Request) -> tuple[str, Any]:
    try:
        answer = await made.complete(request, tier="default", timeouts=Timeouts())
    except CallError as error:
        return "", error
    return answer.first.text, answer


async def streamed(made: Any, request: Request) -> tuple[str, Any]:
    text = ""
    try:
        async for item in made.stream(request, tier="default", timeouts=Timeouts()):
            if isinstance(item, Answer):
                return text, item
            text += item.text
    except CallError as error:
        return text, error
    raise AssertionError("no answer")


LANES = pytest.mark.parametrize("lane", [plain, streamed])


@LANES
def test_an_answer_and_its_tokens(name: str, lane: Any, sandbox: Sandbox) -> None:
    text, answer = run(name, sandbox, lane)
    assert text
    assert (answer.first.text, answer.usable) == (text, True)
    (row,) = sandbox.billed(1)["rows"]
    assert answer.usage is not None
    assert (answer.usage.input, answer.usage.output) == (row["usage"]["input"], row["usage"]["output"])


@LANES
def test_a_forced_tool(name: str, lane: Any, sandbox: Sandbox) -> None:
    _, answer = run(name, sandbox, lane, tools=[TOOL], tool_choice=FORCED)
    (call,) = answer.first.tool_calls
    assert (call.name, call.error, isinstance(call.arguments, dict)) == ("weather", None, True)
    assert (answer.outcome, answer.first.finish_reason in ("tool_calls", "stop")) == (Outcome.COMPLETE, True)


@LANES
def test_a_schema(name: str, lane: Any, sandbox: Sandbox) -> None:
    text, answer = run(name, sandbox, lane, response_format=FORMAT)
    assert '"n"' in text
    assert answer.outcome is Outcome.COMPLETE


@LANES
@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        ("length", Outcome.TRUNCATED),
        ("refusal", Outcome.REFUSED),
        ("no_usage", Outcome.COMPLETE),
        ("no_finish", Outcome.CUT),
    ],
)
def test_drills_that_end_in_an_answer(name: str, lane: Any, kind: str, outcome: Outcome, sandbox: Sandbox) -> None:
    if kind == "no_finish" and lane is plain:
        pytest.skip("a drill of streams")
    sandbox.faults([{"kind": kind}])
    _, answer = run(name, sandbox, lane)
    assert answer.outcome is outcome
    assert answer.usage is None or kind != "no_usage"


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_cut_keeps_what_came(name: str, how: str, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "cut", "after": 3, "how": how}])
    text, answer = run(name, sandbox, streamed)
    assert text
    assert (answer.outcome, answer.first.text, answer.usage) == (Outcome.CUT, text, None)


@LANES
@pytest.mark.parametrize(("status", "wait"), [(429, 3.0), (500, None), (529, 1.5)])
def test_an_error_is_asked_once(name: str, lane: Any, status: int, wait: float | None, sandbox: Sandbox) -> None:
    sandbox.faults([{"kind": "status", "status": status, "retry_after": wait}])
    _, error = run(name, sandbox, lane)
    assert (error.status, error.retry_after, error.maybe_billed) == (status, wait, False)
    assert sandbox.requests()["count"] == 1
