"""A job that runs in one process is stopped from another, settled there, and paid for what it was."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from db import lookup, queue, stops, wishes
from db.engine import Store, connect
from db.rescue import rescue
from db.states import JobState
from jobs import live, stopping
from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings
from tests.commands import Shell, finish
from tests.gateways import Served, sandbox_of, serving, settings_for
from tests.lanes import KEY, World, add, balanced, job, rows

ESSAY = "Write a long essay about rivers."
slow = sandbox_of(tokens_per_second=40, answer_tokens=400)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(stopping, "LOOK_S", 0.05)
    return Shell(monkeypatch, capsys, tmp_path)


@pytest.fixture
def served(slow: Sandbox, run: Shell, tmp_path: Path) -> Iterator[Served]:
    slow.reset()
    with serving(settings_for(slow.url, tmp_path)) as gateway:
        yield gateway


# ---- what the database keeps of it ----


@pytest.mark.both
def test_what_waits_is_cancelled_and_what_runs_is_wished_to_stop(store: Store) -> None:
    now = datetime.now(UTC)
    first, second = add(store, job(lane="sync", now=now), job(lane="sync", now=now), now=now)
    (claim,) = queue.claim(store, "me", now + timedelta(hours=1), 1, now, ["openai"])
    waits = second if claim.job_id == first else first
    for _ in range(2):
        states = stops.stop(store, [first, second], now)
        assert states == {claim.job_id: JobState.RUNNING, waits: JobState.CANCELLED}
    assert wishes.wanted(store, "me") == [claim.job_id]
    assert wishes.wanted(store, "another") == []


@pytest.mark.both
def test_what_an_owner_left_is_cancelled_once_it_waits(store: Store) -> None:
    now = datetime.now(UTC)
    (ident,) = add(store, job(lane="sync", now=now), now=now)
    queue.claim(store, "me", now + timedelta(seconds=1), 1, now, ["openai"])
    stops.stop(store, [ident], now)
    rescue(store, now + timedelta(minutes=1), 3)
    assert stops.states(store, [ident]) == {ident: JobState.CANCELLED}
    assert not rows(store, "SELECT 1 FROM stop")


def test_a_retry_forgets_that_somebody_wanted_it_to_stop(store: Store) -> None:
    now = datetime.now(UTC)
    ident = finish(store, failed=True)
    wishes.wish(store, [ident], now)
    assert queue.retry(store, [ident], now) == [ident]
    stops.tidy(store, now)
    assert stops.states(store, [ident]) == {ident: JobState.QUEUED}


# ---- the process that runs it ----


@pytest.mark.both
def test_a_worker_s_call_is_stopped_and_the_others_go_on(
    store: Store, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(stopping, "LOOK_S", 0.05)

    async def drained(world: World, other: Store) -> tuple[str, int]:
        context = world.context(concurrency=2)
        async with context.holding():
            draining = asyncio.ensure_future(live.drain(context, lambda claim, ended: None, asyncio.Event()))
            while len(found := rows(store, "SELECT job_id FROM attempt ORDER BY job_id")) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            one: str = found[0][0]
            look = asyncio.to_thread(lambda: stops.stop(other, [one], datetime.now(UTC)))
            assert (await look) == {one: JobState.RUNNING}
            done = await draining
        await context.close()
        return one, done

    with running(SandboxSettings(latency_s=0.8)) as sandbox:
        world, other = World(store, sandbox, tmp_path), connect(database_url)
        world.add("a", "b", lane="sync")
        one, done = asyncio.run(drained(world, other))
        other.close()
    assert done == 2
    assert world.states() == {"succeeded": 1, "cancelled": 1}
    view = lookup.job(store, one)
    assert view is not None
    assert [attempt["state"] for attempt in view["attempts"]] == ["unknown"]  # it was under way: nobody knows its bill
    assert view["attempts"][0]["at_risk_usd"] is not None
    balanced(store)


def _begun(served: Served, key: str) -> threading.Thread:
    """Somebody reads an answer of the server's."""
    first = threading.Event()

    def read() -> None:
        body = {"message": ESSAY, "key": key}
        with served.client() as client, client.stream("POST", "/api/chat/stream", json=body) as stream:
            for _ in stream.iter_text():
                first.set()

    thread = threading.Thread(target=read)
    thread.start()
    assert first.wait(20)
    return thread


def test_the_command_stops_what_the_server_runs(served: Served, run: Shell, slow: Sandbox) -> None:
    reading = _begun(served, "stop-me")
    done = run("jobs", "cancel", "stop-me", "--json")
    reading.join(20)
    with served.client() as client:
        view = client.get("/api/jobs/stop-me").json()
    assert (done.code, done.json) == (0, {"cancelled": [view["id"]], "stopping": [], "left": []})
    assert view["state"] == "cancelled"
    assert view["attempts"][0]["error"]["message"] == "it was cancelled while it ran"
    (row,) = slow.billed(1)["rows"]
    assert row["usage"]["output"] < 400
    again = run("jobs", "cancel", "stop-me")
    assert again.code == 1
    assert "final already" in again.err


def test_one_server_stops_what_another_runs(served: Served, slow: Sandbox, tmp_path: Path) -> None:
    reading = _begun(served, "over-there")
    with serving(settings_for(slow.url, tmp_path)) as second, second.client() as client:
        told = client.post("/api/jobs/over-there/cancel")
    reading.join(20)
    assert (told.status_code, told.json()["state"], told.json()["stopping"]) == (200, "cancelled", False)


def test_an_owner_that_does_not_answer_is_still_stopping(
    served: Served, run: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "PATIENCE_S", 0.2)
    store, now = served.router.store, datetime.now(UTC)
    (ident,) = add(store, job(lane="sync", now=now), now=now)
    queue.claim(store, "one that stands still", now + timedelta(hours=1), 1, now, ["openai"])
    with served.client() as client:
        told: httpx2.Response = client.post(f"/api/jobs/{ident}/cancel")
        whole: Any = told.json()
        assert (told.status_code, whole) == (202, {"id": ident, "state": "running", "stopping": True})
    done = run("jobs", "cancel", ident, "--json")
    assert (done.code, done.json["stopping"]) == (1, [ident])
    assert "still stopping" in done.err
