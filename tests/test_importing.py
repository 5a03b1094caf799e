"""The import of a batch: large ones a page at a time, twice without a change, and whatever a file may hold."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from db import batches
from db.engine import Store
from db.tables import Batch
from jobs import importing, polling, worker
from jobs.sandbox.server import Sandbox
from tests.lanes import KEY, World, rows

TABLES = ("job", "attempt", "result", "batch")


@pytest.fixture
def world(store: Store, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(polling, "_FIRST_POLL_S", 0.05)
    return World(store, sandbox, tmp_path)


def only(world: World) -> Batch:
    return batches.recent(world.store, 1)[0]


def everything(world: World) -> list[Any]:
    return [rows(world.store, f"SELECT * FROM {table} ORDER BY 1") for table in TABLES]


def imported_again(world: World) -> None:
    async def again() -> None:
        context = world.context()
        await importing.import_rows(context, only(world))
        await context.close()

    asyncio.run(again())


def test_page_after_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "_ROWS_A_WRITE", 7)
    world.sandbox.faults([{"kind": "expire", "fraction": 0.6, "error_rows": False, "times": 1}])
    world.add(*(f"Name city {n}." for n in range(50)))
    world.work()
    assert world.states() == {"succeeded": 50}
    world.even()


@pytest.mark.both
def test_a_second_time_changes_nothing(world: World) -> None:
    world.sandbox.faults([{"kind": "fail_rows", "fraction": 0.3, "status_code": 400, "times": 1}])
    world.add(*(f"Name city {n}." for n in range(10)))
    world.work()
    before = everything(world)
    imported_again(world)
    assert everything(world) == before


@pytest.mark.both
def test_a_second_time_after_the_rest_was_packed_again_changes_nothing(world: World) -> None:
    """A paused worker wakes up and imports a batch whose failed rows are in another one by now."""
    world.sandbox.faults([{"kind": "fail_rows", "fraction": 0.5, "times": 1}, {"kind": "stall", "skip": 1}])
    world.add(*(f"Name city {n}." for n in range(10)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "LINGER_S", 0.25)
        world.work()
    assert world.states() == {"succeeded": 5, "submitted": 5}
    before = everything(world)
    first = batches.recent(world.store, 2)[1]

    async def again() -> None:
        context = world.context()
        await importing.import_rows(context, first)
        await context.close()

    asyncio.run(again())
    assert everything(world) == before


def test_a_refused_file_fails_its_rows_and_costs_nothing(world: World) -> None:
    world.sandbox.faults([{"kind": "status", "status": 413, "match": {"path": "/v1/files", "method": "POST"}}])
    ids = world.add("one", "two")
    world.work()
    assert world.states() == {"failed": 2}
    assert "413" in world.job(ids[0])["error"]["message"]
    assert only(world).state == "imported"
    world.even()


def test_the_answers_of_a_batch_are_given_to_their_commands(world: World) -> None:
    good, bad = world.add("one", post_process="tr a-z A-Z")[0], world.add("two", post_process="exit 4")[0]
    world.work()
    assert world.job(good)["output"] == world.job(good)["text"].upper()
    assert world.job(bad)["state"] == "failed"
    assert world.job(bad)["text"].startswith("[sandbox]")
    world.even()


def test_refusals_and_filters_are_not_sent_again(world: World) -> None:
    world.sandbox.faults([{"kind": "refusal", "times": 1}, {"kind": "content_filter", "skip": 1, "times": 1}])
    world.add("one", "two", "three")
    world.work()
    assert world.states() == {"failed": 2, "succeeded": 1}
    assert len(rows(world.store, "SELECT 1 FROM attempt")) == 3
    world.even()


def test_answers_without_usage_are_kept_and_their_cost_is_unknown(world: World) -> None:
    world.sandbox.faults([{"kind": "no_usage"}])
    world.add("one")
    world.work()
    assert world.states() == {"succeeded": 1}
    assert world.attempts() == {"unknown": 1}
    world.at_risk()


def test_the_length_limit_in_a_batch_is_a_success(world: World) -> None:
    world.sandbox.faults([{"kind": "length"}])
    ident = world.add("one")[0]
    world.work()
    assert world.job(ident)["truncated"]
    world.even()
