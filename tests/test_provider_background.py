"""Responses in the background: what is sent, what is read of every ending, and the life of one at the sandbox."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from jobs.chat import Message, Outcome, Request
from jobs.errors import CallError, Permanent, Transient
from jobs.providers import BACKGROUND_PROVIDERS, Endpoint, Remote, Ticket
from jobs.providers.background_params import can_move
from jobs.providers.openai_background import remote_of, row_of
from jobs.sandbox.server import Sandbox
from tests import wire
from tests.batch_wire import run, stored
from tests.responses_wire import USAGE, message, refused, response
from tests.wire import Script, Server, serving

KEY = "sk-test-1234567890"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", KEY)


def request(text: str = "hi", **more: Any) -> Request:
    return Request(model="gpt-6-luna", messages=[Message(role="user", content=text)], **more)


def ticket(made: Any, window: str | None = "2h", **more: Any) -> Ticket:
    row = made.line("job_1", stored(request(**more)))
    return Ticket("b-1", 1, Path(), "", None, datetime.now(UTC), 1, "here", row, window)


@asynccontextmanager
async def provider(url: str) -> AsyncIterator[Any]:
    made = BACKGROUND_PROVIDERS["openai"](Endpoint("openai", url + "/v1", False, "A_KEY"))
    try:
        yield made
    finally:
        await made.close()


def scripted(test: Callable[[Any, Server], Awaitable[Any]], *scripts: Script) -> Any:
    async def whole() -> Any:
        async with serving(*scripts) as server, provider(server.url) as made:
            return await test(made, server)

    return run(whole)


async def rows(made: Any, remote: Remote) -> list[Any]:
    return [row async for row in made.collect(remote)]


def test_the_life_of_a_response(sandbox: Sandbox) -> None:
    async def test() -> None:
        async with provider(sandbox.url) as made:
            remote = await made.submit(ticket(made))
            assert (remote.status, remote.terminal, remote.rows) == ("queued", False, 1)
            assert (remote.batch_id, remote.install) == ("b-1", "here")
            assert await made.find(ticket(made)) == []
            sandbox.advance(1)
            remote = await made.poll(remote.id)
            assert (remote.status, remote.terminal, remote.done) == ("completed", True, 1)
            [row] = await rows(made, remote)
            assert row.custom_id == "job_1"
            assert row.answer.first.text.startswith("[sandbox]")
            assert (await made.cancel(remote.id)).status == "completed"

    run(test)


def test_a_cancelled_one_has_cost_nothing(sandbox: Sandbox) -> None:
    async def test() -> None:
        async with provider(sandbox.url) as made:
            remote = await made.submit(ticket(made))
            assert (await made.cancel(remote.id)).status == "cancelled"
            [row] = await rows(made, remote)
            assert (row.answer, row.cancelled, row.retry) == (None, True, True)

    run(test)


def test_what_is_sent() -> None:
    async def test(made: Any, server: Server) -> None:
        await made.submit(ticket(made, max_tokens=9, params={"metadata": {"mine": "7"}}))
        await made.submit(ticket(made, None))
        await made.poll("resp_/1")
        await made.cancel("resp_2")
        first, second, *others = server.asked
        body = first.json
        assert (body["background"], body["store"], body["max_output_tokens"]) == (True, True, 9)
        assert body["background_options"] == {"completion_window": "2h"}
        assert body["metadata"] == {
            "mine": "7", "shunter_row": "job_1", "shunter_batch": "b-1", "shunter_install": "here",
        }  # fmt: skip
        assert "background_options" not in second.json
        assert not {"stream", "service_tier"} & set(body)
        assert [one.target for one in others] == ["/v1/responses/resp_%2F1", "/v1/responses/resp_2/cancel"]

    scripted(test, wire.reply({"id": "resp_1", "status": "queued"}))


def test_metadata_has_room_for_sixteen() -> None:
    async def test(made: Any, _: Server) -> None:
        full = {str(n): "x" for n in range(15)}
        body = json.loads(made.line("job_1", stored(request(params={"metadata": full}))))
        assert body["metadata"] == full | {"shunter_row": "job_1"}

    scripted(test, wire.mute)


def test_what_may_not_be_stored_is_refused_here() -> None:
    async def test(made: Any, server: Server) -> None:
        with pytest.raises(Permanent, match="store = false"):
            made.line("job_1", stored(request(params={"store": False})))
        with pytest.raises(Permanent, match="takes no file"):
            await made.upload(None)

    scripted(test, wire.mute)


@pytest.mark.parametrize(
    ("script", "kind", "maybe_billed"),
    [
        (wire.reply({}, 500), Transient, True),
        (wire.reply({}, 503), Transient, False),
        (wire.reply({}, 429), Transient, False),
        (wire.reply({"error": {"message": "no such window", "code": "invalid_value"}}, 400), Permanent, False),
        (wire.reply({}), Transient, True),
        (wire.reply(b"<html>"), Transient, True),
        (wire.hang_up, Transient, True),
    ],
)  # fmt: skip
def test_an_unclear_create_says_so(script: Script, kind: type[CallError], maybe_billed: bool) -> None:
    async def test(made: Any, server: Server) -> None:
        with pytest.raises(kind) as caught:
            await made.submit(ticket(made))
        assert caught.value.maybe_billed is maybe_billed
        assert len(server.asked) == 1

    scripted(test, script)


@pytest.mark.parametrize(
    ("body", "usable", "facts"),
    [
        (response("completed", message("yes"), usage=USAGE), True, (None, True, False)),
        (response("incomplete", message("ye"), usage=USAGE, incomplete_details={"reason": "max_output_tokens"}), True,
         (None, True, False)),
        (response("incomplete", message("ye"), usage=USAGE, incomplete_details={"reason": "content_filter"}), False,
         (None, True, False)),
        (response("completed", refused("no"), usage=USAGE), False, (None, True, False)),
        (response("incomplete", usage=USAGE), False, ("incomplete", True, False)),
        (response("failed", usage=USAGE) | {"error": {"code": "server_error", "message": "oh"}}, False,
         ("server_error", True, False)),
        (response("failed") | {"error": {"code": "server_error", "message": "oh"}}, None,
         ("server_error", True, False)),
        (response("failed") | {"error": {"code": "invalid_prompt", "message": "no"}}, None,
         ("invalid_prompt", False, False)),
        (response("failed"), None, ("provider_error", True, False)),
        (response("cancelled"), None, ("cancelled", True, True)),
        (response("cancelled", message("ye"), usage=USAGE), False, ("cancelled", True, True)),
        ({"status": "completed"}, False, ("malformed", True, False)),
    ],
)  # fmt: skip
def test_every_ending(body: dict[str, Any], usable: bool | None, facts: tuple[Any, ...]) -> None:
    row = row_of(body)
    assert (row.error_code, row.retry, row.cancelled) == facts
    assert (row.answer.usable if row.answer else None) is usable
    if row.error_code:
        assert row.error


def test_a_truncated_answer_is_one() -> None:
    row = row_of(response("incomplete", message("ye"), usage=USAGE, incomplete_details={"reason": "max_output_tokens"}))
    assert row.answer is not None
    assert (row.answer.outcome, row.answer.first.finish_reason) == (Outcome.TRUNCATED, "length")


def test_the_service_tier_is_not_the_window() -> None:
    row = row_of(response("completed", message("yes"), usage=USAGE, service_tier="default"))
    assert row.answer is not None
    assert row.answer.tier is None


@pytest.mark.parametrize("status", ["queued", "in_progress", "something_new", ""])
def test_another_word_is_no_end(status: str) -> None:
    assert not remote_of({"id": "resp_1", "status": status}).terminal


@pytest.mark.parametrize(
    ("more", "can"),
    [
        ({}, True),
        ({"params": {"temperature": 0.2, "top_p": 1, "n": 1, "reasoning_effort": "low", "metadata": {"a": "b"}}}, True),
        ({"params": {"store": True}}, True),
        ({"params": {"store": False}}, False),
        ({"params": {"n": 2}}, False),
        ({"params": {"stop": ["x"]}}, False),
        ({"params": {"seed": 7}}, False),
        ({"params": {"logprobs": True}}, False),
        ({"messages": [Message(role="function", name="f", content="7")]}, False),
        ({"messages": [Message(role="user", content="hi"), Message(role="assistant", content="ho")]}, True),
        ({"messages": [Message(role="user", content=[{"type": "text", "text": "hi"}])]}, True),
        ({"messages": [Message(role="user", content=[{"type": "input_audio", "input_audio": {}}])]}, False),
        (
            {"messages": [Message(role="user", content="hi"), Message(role="assistant", tool_calls=[{"id": "c"}])]},
            False,
        ),
    ],
)
def test_only_what_says_the_same_there_is_moved(more: dict[str, Any], can: bool) -> None:
    facts: dict[str, Any] = {"model": "gpt-6-luna", "messages": [Message(role="user", content="hi")]}
    assert can_move(Request(**facts | more)) is can


def test_closing_twice_is_harmless() -> None:
    async def test(made: Any, _: Server) -> None:
        await asyncio.gather(made.close(), made.close())

    scripted(test, wire.mute)
