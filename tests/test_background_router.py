"""The background lane from the front door: where it is, which requests can take it, and the window of the worker."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from db import facts
from db.states import Lane
from jobs import polling, windows, worker
from jobs.chat import Request
from jobs.errors import UsageError
from jobs.sandbox.server import Sandbox
from router import Router
from router.decided import Wish
from router.decision import Decision
from tests.lanes import KEY, balanced, rows, settled

HOURS = timedelta(hours=1)


@pytest.fixture(autouse=True)
def _sandbox_is_the_provider(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{sandbox.url}/v1")
    monkeypatch.setenv("SHUNTER_DATABASE_URL", f"sqlite:///{tmp_path / 'shunter.db'}")
    monkeypatch.setattr(polling, "_FIRST_POLL_S", 0.05)


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHUNTER_OPENAI_BACKGROUND", "true")


def ask(**more: Any) -> Request:
    facts_: dict[str, Any] = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": "Explain a signal."}]}
    return Request.model_validate(facts_ | more)


def with_router(work: Callable[[Router], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        router = Router()
        try:
            return await work(router)
        finally:
            await router.close()

    return asyncio.run(run())


def explained(request: Request) -> Decision:
    async def work(router: Router) -> Any:
        return router.explain(request)

    found: Decision = with_router(work)
    return found


def offered(decision: Decision) -> set[str | None]:
    return {step.window for option in decision.options for step in option.plan} - {None}


def test_a_compatible_server_has_no_windows_unless_the_config_says_so() -> None:
    assert offered(explained(ask())) == set()
    with pytest.raises(UsageError, match="openai_background"):
        asyncio.run(Router().submit(ask(), Wish(lane=Lane.BACKGROUND)))


@pytest.mark.usefixtures("there")
def test_the_config_says_so() -> None:
    assert offered(explained(ask())) == {"2h", "8h"}


def test_openais_own_address_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL")
    assert offered(explained(ask())) == {"2h", "8h"}
    monkeypatch.setenv("SHUNTER_OPENAI_BACKGROUND", "false")
    assert offered(explained(ask())) == set()


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize(
    "more",
    [
        {"model": "claude-haiku-5-5"},
        {"params": {"n": 2}},
        {"params": {"stop": ["."]}},
        {"params": {"store": False}},
        {"messages": [{"role": "function", "name": "f", "content": "7"}]},
    ],
)
def test_what_cannot_be_asked_there_is_not_offered_there(more: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    assert offered(explained(ask(**more))) == set()


@pytest.mark.usefixtures("there")
def test_who_speaks_responses_knows_what_can_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHUNTER_OPENAI_API", "responses")
    assert offered(explained(ask(params={"include": ["reasoning.encrypted_content"]}))) == {"2h", "8h"}
    assert offered(explained(ask(params={"store": False}))) == set()


@pytest.mark.usefixtures("there")
def test_from_submit_to_the_ledger(sandbox: Sandbox) -> None:
    async def work(router: Router) -> Any:
        job = await router.submit(ask(deadline=datetime.now(UTC) + 20 * HOURS), Wish(lane=Lane.BACKGROUND))
        assert (job["lane"], job["state"]) == ("background", "queued")
        await worker.once(router.context(), worker.Told(), asyncio.Event())
        balanced(router.store)
        assert settled(router.store) == (sandbox.bill(tier="8h")["totals"]["cost_nano_usd"], 0, 0)
        return rows(router.store, "SELECT state, tier FROM attempt")

    assert [tuple(row) for row in with_router(work)] == [("ok", "8h")]


@pytest.mark.usefixtures("there")
def test_a_closed_window_moves_what_cannot_wait_to_the_background() -> None:
    async def work(router: Router) -> tuple[Decision, Decision, Decision]:
        now = datetime.now(UTC)
        request = ask(deadline=now + 10 * HOURS)
        open_ = router.explain(request)
        opens = now + 9 * HOURS
        facts.put(router.store, windows.KEY, f"{opens:%H:%M}-{opens + HOURS:%H:%M} UTC")
        return open_, router.explain(request), router.explain(ask())

    before, behind, no_deadline = with_router(work)
    assert before.lane is Lane.BATCH
    assert (behind.lane, behind.plan[0].window) == (Lane.BACKGROUND, "8h")
    assert "too soon for the Batch API" in behind.reason
    assert no_deadline.lane is Lane.BATCH
    batch = next(option for option in no_deadline.options if option.plan[0].lane is Lane.BATCH)
    assert batch.finish_p50 > datetime.now(UTC) + 9 * HOURS
