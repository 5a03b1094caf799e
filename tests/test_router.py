"""The Router as a library: explain, submit, stream, and a key that makes a second submit add nothing."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from db.states import Lane
from jobs.chat import Delta, Request
from jobs.errors import Refused, UsageError
from jobs.runner import Ended
from jobs.sandbox.server import Sandbox
from router import Router
from router.decided import Started, Wish
from tests.lanes import KEY, balanced, rows, settled, states

MODEL = "gpt-6-luna"
LONG = "Explain step by step how a railway signal works, in detail."


@pytest.fixture(autouse=True)
def _sandbox_is_the_provider(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{sandbox.url}/v1")
    monkeypatch.setenv("SHUNTER_DATABASE_URL", f"sqlite:///{tmp_path / 'shunter.db'}")


def ask(prompt: str = LONG, **more: Any) -> Request:
    facts: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], "interactive": True}
    return Request.model_validate(facts | more)


def with_router(work: Callable[[Router], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        router = Router()
        try:
            return await work(router)
        finally:
            await router.close()

    return asyncio.run(run())


def even(router: Router, sandbox: Sandbox) -> None:
    balanced(router.store)
    assert settled(router.store) == (sandbox.bill()["totals"]["cost_nano_usd"], 0, 0)


def test_submit_gives_the_job_of_the_documented_form(sandbox: Sandbox) -> None:
    async def work(router: Router) -> Any:
        found = await router.submit(ask())
        even(router, sandbox)
        return found

    job = with_router(work)
    assert {
        *("id", "client_key", "state", "class", "lane", "tier", "model", "provider", "submitted_at", "deadline_at"),
        *(
            "finished_at",
            "cost_usd",
            "text",
            "tool_calls",
            "finish_reason",
            "truncated",
            "error",
            "decision",
            "attempts",
        ),
    } <= set(job)
    assert (job["state"], job["lane"], job["class"]) == ("succeeded", "stream", "interactive-long")
    assert job["text"].startswith("[sandbox]")
    assert float(job["cost_usd"]) > 0
    assert "e" not in job["cost_usd"]
    json.dumps(job)


def test_stream_says_first_how_it_was_decided(sandbox: Sandbox) -> None:
    async def work(router: Router) -> Any:
        async with aclosing(router.stream(ask())) as events:
            return [event async for event in events]

    first, *rest, last = with_router(work)
    assert isinstance(first, Started)
    assert first.decision.lane is Lane.STREAM
    assert all(isinstance(event, Delta) for event in rest)
    assert isinstance(last, Ended)
    assert "".join(event.text for event in rest).startswith("[sandbox]")


def test_nobody_waits_and_so_it_is_queued(sandbox: Sandbox) -> None:
    async def work(router: Router) -> Any:
        found = await router.submit(ask(interactive=False))
        assert states(router.store) == {"queued": 1}
        return found

    job = with_router(work)
    assert (job["state"], job["lane"], job["attempts"], job["cost_usd"]) == ("queued", "batch", [], "0")
    assert sandbox.bill()["totals"]["rows"] == 0


def test_bulk_that_is_wanted_here_runs_here() -> None:
    async def work(router: Router) -> Any:
        return await router.submit(ask("hi", interactive=False), Wish(lane=Lane.SYNC, here=True))

    assert with_router(work)["state"] == "succeeded"


def test_explain_sends_nothing_and_keeps_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    async def work(router: Router) -> Any:
        return router.explain(ask()), router.explain(ask())

    one, two = with_router(work)
    assert one.lane is two.lane is Lane.STREAM
    assert {option.plan[0].lane for option in one.options} == {Lane.STREAM, Lane.SYNC, Lane.BATCH}
    assert sandbox.requests()["count"] == 0
    assert not (tmp_path / "shunter.db").exists()


@pytest.mark.parametrize("interactive", [True, False])
def test_the_same_key_again_adds_nothing(sandbox: Sandbox, interactive: bool) -> None:
    async def work(router: Router) -> None:
        first = await router.submit(ask(client_key="k", interactive=interactive))
        bill = sandbox.bill()["totals"]
        assert await router.submit(ask(client_key="k", interactive=interactive)) == first
        assert sandbox.bill()["totals"] == bill
        assert sum(states(router.store).values()) == 1
        balanced(router.store)

    with_router(work)


def test_another_request_under_a_known_key_is_an_error(sandbox: Sandbox) -> None:
    async def work(router: Router) -> None:
        first = await router.submit(ask(client_key="k"))
        with pytest.raises(UsageError, match=f"the key 'k' was used for another request .job {first['id']}.") as caught:
            await router.submit(ask("other", client_key="k"))
        assert caught.value.exit_code == 2
        assert sum(states(router.store).values()) == 1

    with_router(work)


def test_again_runs_a_known_key_again() -> None:
    async def work(router: Router) -> None:
        first = await router.submit(ask("hi", client_key="k"))
        second = await router.submit(ask("hi", client_key="k"), Wish(again=True))
        assert first["id"] != second["id"]

    with_router(work)


def test_without_a_key_every_submit_is_a_job() -> None:
    async def work(router: Router) -> None:
        await router.submit(ask("hi"))
        await router.submit(ask("hi"))
        assert states(router.store) == {"succeeded": 2}

    with_router(work)


@pytest.mark.parametrize("events", [1, 4])
def test_who_leaves_early_cancels(sandbox: Sandbox, events: int) -> None:
    async def work(router: Router) -> None:
        async with aclosing(router.stream(ask())) as stream:
            for _ in range(events):
                await anext(stream)
        assert states(router.store) == {"cancelled": 1}
        assert not rows(router.store, "SELECT 1 FROM attempt WHERE state = 'sent'")
        assert sandbox.requests()["count"] == (0 if events == 1 else 1)

    with_router(work)


def test_a_cap_that_cannot_be_kept_refuses() -> None:
    async def work(router: Router) -> None:
        with pytest.raises(Refused) as caught:
            await router.submit(ask(), Wish(max_cost_nano=1))
        assert caught.value.exit_code == 3
        assert states(router.store) == {}

    with_router(work)


def test_without_a_key_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL")

    async def work(router: Router) -> None:
        with pytest.raises(UsageError, match=r"set OPENAI_API_KEY .* `shunter demo`"):
            await router.submit(ask())

    with_router(work)


def test_many_at_once(sandbox: Sandbox) -> None:
    async def work(router: Router) -> None:
        await asyncio.gather(*(router.submit(ask(f"Say {n} in one word.")) for n in range(20)))
        assert states(router.store) == {"succeeded": 20}
        even(router, sandbox)

    with_router(work)
