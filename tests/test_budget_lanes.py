"""Budgets over a real sandbox: in every lane the cap is sent, the answer ends at it, and the sums are the bill's."""

from collections.abc import Iterator
from typing import Any

import pytest

from db import standing
from db.money import usd
from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings
from tests.lanes import CLAUDE, MODEL, World, rows
from tests.purses import budget, even, said, sums

pytestmark = pytest.mark.both
DOLLAR = 10**9
LANES = [("sync", MODEL), ("sync", CLAUDE), ("stream", MODEL), ("batch", MODEL), ("batch", CLAUDE),
         ("background", MODEL)]  # fmt: skip


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """One whose answers are far longer than anybody expects."""
    with running(SandboxSettings(batch_seconds=0.1, answer_tokens=3000)) as server:
        yield server


def limited(world: World, nano: int, **more: Any) -> None:
    budget(world.store, nano, now=world.clock.now(), **more)


@pytest.mark.parametrize(("lane", "model"), LANES)
def test_an_answer_ends_at_its_cap(world: World, lane: str, model: str) -> None:
    limited(world, DOLLAR, per="day")
    (ident,) = world.add("Tell me all.", lane=lane, model=model)
    world.work(output_cap=40)
    job = world.job(ident)
    assert (job["state"], job["truncated"]) == ("succeeded", True)
    assert [attempt["tokens"]["output"] for attempt in job["attempts"]] == [40]
    assert rows(world.store, "SELECT output_cap, reserved_nano FROM attempt") == [(40, None)]
    world.even()
    even(world.store)
    assert sums(world.store, now=world.clock.now()) == (world.sandbox.bill()["totals"]["cost_nano_usd"], 0)


def test_a_cap_on_the_cost_is_kept_by_every_try(world: World) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "required": ["x"]}}}
    cap = 100_000
    (ident,) = world.add("An object.", lane="sync", max_cost_nano=cap, sent={"response_format": schema})
    world.work()
    bill = world.sandbox.bill()["totals"]["cost_nano_usd"]
    assert 0 < bill <= cap
    world.even()
    even(world.store)
    assert world.job(ident)["state"] in ("succeeded", "failed")


@pytest.mark.parametrize("lane", ["sync", "batch"])
def test_what_finds_no_room_waits_and_the_worker_says_so(world: World, lane: str) -> None:
    limited(world, 40_000, per="day")
    ids = world.add(*("Tell me all." for _ in range(12)), lane=lane)
    world.work(output_cap=40)
    done = world.states()
    assert done.get("succeeded", 0) > 0
    assert done["queued"] > 0
    spent, held = sums(world.store, now=world.clock.now())
    assert (spent, held) == (world.sandbox.bill()["totals"]["cost_nano_usd"], 0)
    assert spent <= 40_000
    waiting = [ident for ident in ids if said(world.store, ident)[0] == "queued"]
    assert {said(world.store, ident)[1] for ident in waiting} == {"over_budget"}
    assert standing.waiting(world.store) == len(waiting)
    even(world.store)


def test_after_midnight_the_rest_goes(world: World) -> None:
    limited(world, 40_000, per="day")
    world.add(*("Tell me all." for _ in range(4)), lane="sync")
    for _ in range(9):
        world.work(output_cap=40)
        world.clock.ahead += 86_400
        even(world.store)
    assert world.states() == {"succeeded": 4}
    assert len(rows(world.store, "SELECT 1 FROM budget_period WHERE spent_nano > 0")) > 1
    assert [note for note in world.notes if "budget 'b'" in note]


def test_a_call_that_broke_off_keeps_what_it_may_have_cost(world: World) -> None:
    limited(world, DOLLAR)
    world.sandbox.faults([{"kind": "cut", "after": 3, "how": "rst", "times": 1}])
    [ident] = world.add("Tell me all.", lane="stream")
    world.work(output_cap=40)
    assert world.attempts()["unknown"] == 1
    _, held = sums(world.store)
    assert held == rows(world.store, "SELECT sum(reserved_nano) FROM attempt WHERE state = 'unknown'")[0][0] > 0
    shown = {one["state"]: one["reserved_usd"] for one in world.job(ident)["attempts"]}
    assert shown["unknown"] == usd(held)
    assert not any(shown[state] for state in shown if state != "unknown")
    world.at_risk()
    even(world.store)
