"""Every way that a stream can end, as a person at the terminal and a program that uses the library meet it.

`tests/test_stream_conformance.py` holds the ends of the calls themselves; here each comes to its end in the ledger: one
outcome, a final job, the partial text kept and marked, a cost that is known or NULL with money at risk.
"""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from db import lookup
from db.states import Lane
from jobs import retry
from jobs.chat import Delta, Handling, Outcome, Request
from router import Router
from router.asking import Asked
from router.decided import Started, Wish
from router.submitting import submit_prompt
from tests import wire
from tests.conformance import Case, End, Format
from tests.conformance_anthropic import ANTHROPIC
from tests.conformance_calls import IDLE
from tests.conformance_chat import CHAT
from tests.conformance_responses import RESPONSES
from tests.conformance_rows import ROWS, Row
from tests.wire import Script, serving

MODELS = {"chat": "gpt-4.1-mini", "responses": "gpt-4.1-mini", "anthropic": "claude-haiku-4-5"}
PROMPT = "Explain a railway signal."
WITHIN_S = 6.0  # three tries of the slowest row, on a busy machine
NEVER_SENT = ("unreachable",)


def recorded(case: Case) -> Row:
    """A recorded stream as a row."""
    return Row(lambda _: wire.stream(case.wire, kind=case.kind), case.end, timeouts=IDLE)


def rows_of(form: Format) -> dict[str, Row]:
    """What breaks how, and every recorded end of the format."""
    return {**ROWS, **{name: recorded(case) for name, case in form.cases.items() if case.choices == 1}}


FORMATS = (CHAT, RESPONSES, ANTHROPIC)
ALL = {f"{form.name}: {name}": (form, row) for form in FORMATS for name, row in rows_of(form).items()}
every_end = pytest.mark.parametrize(("form", "row"), ALL.values(), ids=ALL)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.005)
    monkeypatch.setenv("SHUNTER_DATABASE_URL", f"sqlite:///{tmp_path / 'shunter.db'}")
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "sk-test-1234567890")


@contextmanager
def listening(script: Script | None) -> Iterator[str]:
    """The URL of a scripted server with an event loop of its own; of nobody without a script."""
    up, down, url = threading.Event(), asyncio.Event(), [""]
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with serving(script or wire.hang_up) as server:
            url[0] = server.url
            if script is not None:
                up.set()
                await down.wait()
        up.set()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    up.wait(5)
    yield url[0]
    loop.call_soon_threadsafe(down.set)
    thread.join(5)
    loop.close()


@contextmanager
def provider(form: Format, row: Row, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment names a server that ends every stream as the row says."""
    with listening(row.script(form) if row.script else None) as url:
        name = "ANTHROPIC_BASE_URL" if form.provider == "anthropic" else "OPENAI_BASE_URL"
        monkeypatch.setenv(name, url + form.base)
        monkeypatch.setenv("SHUNTER_OPENAI_API", "responses" if form.api == "responses" else "chat")
        yield


@every_end
def test_in_the_library(form: Format, row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> tuple[str, dict[str, Any]]:
        router, shown, job_id, times = Router(), "", "", row.timeouts
        watched = Handling(first_token=times.first_token, idle=times.idle, total=times.total)
        body = {"model": MODELS[form.name], "messages": [{"role": "user", "content": PROMPT}]}
        request = Request.from_body(body, interactive=True, handling=watched)
        lane = Lane.SYNC if row.plain else Lane.STREAM
        async with asyncio.timeout(WITHIN_S), aclosing(router.stream(request, Wish(lane=lane))) as events:
            async for event in events:
                job_id = event.job_id if isinstance(event, Started) else job_id
                shown += event.text if isinstance(event, Delta) else ""
        found = lookup.job(router.store, job_id)
        await router.close()
        assert found is not None
        return shown, found

    with provider(form, row, monkeypatch):
        shown, job = asyncio.run(test())
    assert shown == ("" if row.plain else job["text"] or "")
    holds(row.end, job)


@every_end
def test_at_the_terminal(
    form: Format, row: Row, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = row.timeouts
    asked = Asked(
        PROMPT, model=MODELS[form.name], lane="sync" if row.plain else "stream", timeout=f"{times.total}s",
        first_token_timeout=f"{times.first_token}s", idle_timeout=f"{times.idle}s",
    )  # fmt: skip
    with provider(form, row, monkeypatch):
        began = time.monotonic()
        code = submit_prompt(asked, json=False)
        assert time.monotonic() - began < WITHIN_S
    said, store = capsys.readouterr(), Router().store
    job = lookup.job(store, lookup.jobs(store)["jobs"][0]["id"])
    store.close()
    assert job is not None
    assert said.out.startswith(job["text"] or "")
    assert code == 0 if job["state"] == "succeeded" else code in (1, 2)
    assert "Traceback" not in said.err
    holds(row.end, job)


def holds(end: End, job: dict[str, Any]) -> None:
    """The job and its ledger say of this end what is true of it."""
    succeeded = end.outcome in (Outcome.COMPLETE, Outcome.TRUNCATED)
    last = job["attempts"][-1]
    assert job["state"] == ("succeeded" if succeeded else "failed")
    assert {attempt["outcome"] for attempt in job["attempts"]} == {end.outcome.value}
    assert (job["text"] or "") == end.text
    assert not job["text"] or job["partial"] is not succeeded
    assert succeeded or (job["error"] and job["error"]["code"] == (end.code or end.outcome.value))
    for attempt in job["attempts"]:
        charged(end, attempt)
    if end.usage:
        assert (last["tokens"]["input"], last["tokens"]["output"]) == (end.usage.input, end.usage.output)


def charged(end: End, attempt: dict[str, Any]) -> None:
    """A cost that is known, or NULL with money at risk; never a guess that looks like a cost."""
    assert attempt["ended_at"] is not None
    if end.usage is not None:
        assert attempt["state"] == ("ok" if end.outcome in (Outcome.COMPLETE, Outcome.TRUNCATED) else "failed")
        assert float(attempt["cost_usd"]) > 0
    elif end.code in NEVER_SENT:
        assert (attempt["state"], float(attempt["cost_usd"])) == ("failed", 0)
    else:
        assert (attempt["state"], attempt["cost_usd"], attempt["cost_source"]) == ("unknown", None, "unknown")
        assert float(attempt["at_risk_usd"]) > 0
