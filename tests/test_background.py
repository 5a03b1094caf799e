"""The background lane against every ending that the sandbox knows; the ledger is its bill each time."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from db import queue
from jobs import polling, worker
from jobs.retry import MAX_ATTEMPTS
from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings
from tests.lanes import World, rows

pytestmark = pytest.mark.both
PROMPTS = [f"Name the capital of country number {n}, in one word." for n in range(10)]
RESPONSES = "/v1/responses"
LATER = {"match": {"lane": "background"}}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with running(SandboxSettings(background_seconds=0.02)) as server:
        yield server


def step(window: str | None = "2h", **more: Any) -> dict[str, Any]:
    return {"lane": "background", "tier": "default", "leave_by": None, "window": window} | more


SYNC = {"lane": "sync", "tier": "default", "leave_by": None}


def send(world: World, *prompts: str, window: str | None = "2h", **more: Any) -> list[str]:
    plan = more.pop("plan", [step(window)])
    return world.add(*(prompts or PROMPTS), lane="background", plan=plan, **more)


def stop_early(world: World, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Work, and wait for nothing; what was sent is not looked at yet."""
    with monkeypatch.context() as patch:
        patch.setattr(polling, "_FIRST_POLL_S", 5.0)
        patch.setattr(worker, "LINGER_S", -1.0)
        world.work(**changes)


def done(world: World, count: int = 10) -> None:
    assert world.states() == {"succeeded": count}
    world.even()


def billed(world: World) -> int:
    world.sandbox.advance(3600)
    return int(world.sandbox.bill(kind="background")["totals"]["rows"])


def attempts(world: World) -> list[Any]:
    return rows(world.store, "SELECT n, lane, tier, state, error_code FROM attempt ORDER BY job_id, n")


@pytest.mark.parametrize(
    ("window", "tier", "price"), [("2h", "2h", "× 0.7"), ("8h", "8h", "× 0.6"), (None, "default", "standard")]
)
def test_completed(world: World, window: str | None, tier: str, price: str) -> None:
    ids = send(world, window=window)
    world.work()
    done(world)
    assert {row[1:4] for row in map(tuple, attempts(world))} == {("background", tier, "ok")}
    assert {row["tier"] for row in world.sandbox.bill()["rows"]} == {tier}
    found = world.job(ids[0])
    assert found["text"].startswith("[sandbox]")
    assert price in found["attempts"][0]["price"]
    assert (float(found["attempts"][0]["standard_usd"]) > float(found["cost_usd"])) is (window is not None)
    assert {tuple(row) for row in rows(world.store, "SELECT state, lane, completion_window, rows FROM batch")} == {
        ("imported", "background", window, 1)
    }
    assert world.made(RESPONSES) == 10
    assert world.troubles == []


def test_another_model_and_the_batch_lane_go_beside_it(world: World) -> None:
    send(world, *PROMPTS[:3])
    send(world, *PROMPTS[3:6], model="gpt-4o-mini", window="8h")
    world.add(*PROMPTS[6:])
    world.work()
    done(world)
    assert len(rows(world.store, "SELECT 1 FROM batch WHERE lane = 'batch'")) == 1


def test_many_are_under_way_at_once(world: World) -> None:
    send(world, *(f"Say {n}." for n in range(60)))
    world.sandbox.faults([{"kind": "status", "status": 429, "times": 5, "match": {"path": RESPONSES}}])
    world.work(concurrency=8)
    done(world, 60)


# ---- endings ----


def test_what_fails_there_is_tried_again(world: World) -> None:
    world.sandbox.faults([{"kind": "response_failed", "times": 4}])
    send(world)
    world.work()
    done(world)
    assert world.attempts() == {"ok": 10, "failed": 4}


def test_three_failures_are_enough_and_what_they_cost_is_charged(world: World) -> None:
    world.sandbox.faults([{"kind": "response_failed", "billed": True, "message": "out of luck"}])
    [ident] = send(world, PROMPTS[0])
    world.work()
    assert world.states() == {"failed": 1}
    assert world.attempts() == {"failed": MAX_ATTEMPTS}
    assert "out of luck" in world.job(ident)["error"]["message"]
    assert world.sandbox.bill()["totals"]["rows"] == 3
    world.even()


def test_a_lasting_failure_is_not_tried_again(world: World) -> None:
    world.sandbox.faults([{"kind": "response_failed", "code": "invalid_prompt"}])
    send(world, PROMPTS[0])
    world.work()
    assert world.attempts() == {"failed": 1}
    world.even()


def test_a_truncated_answer_succeeds(world: World) -> None:
    world.sandbox.faults([{"kind": "length"}])
    [ident] = send(world, "Explain a railway signal in detail.")
    world.work()
    done(world, 1)
    assert world.job(ident)["truncated"] is True


@pytest.mark.parametrize(("kind", "code"), [("refusal", "refused"), ("content_filter", "filtered")])
def test_a_refusal_fails_with_its_text(world: World, kind: str, code: str) -> None:
    world.sandbox.faults([{"kind": kind}])
    [ident] = send(world, "Explain a railway signal in detail.")
    world.work()
    found = world.job(ident)
    assert (found["state"], found["error"]["code"]) == ("failed", code)
    assert world.sandbox.bill()["totals"]["rows"] == 1
    world.even()


def test_an_answer_without_usage_is_at_risk(world: World) -> None:
    world.sandbox.faults([{"kind": "no_usage"}])
    send(world, PROMPTS[0])
    world.work()
    assert world.states() == {"succeeded": 1}
    assert world.attempts() == {"unknown": 1}
    world.at_risk()


def test_a_cancel_that_nobody_asked_for_is_a_failed_try(world: World) -> None:
    world.sandbox.faults([{"kind": "expire"}])
    send(world, PROMPTS[0])
    world.work()
    assert world.states() == {"failed": 1}
    assert world.attempts() == {"failed": MAX_ATTEMPTS}
    world.even()


# ---- leaving ----


def plan_until(world: World, seconds: float) -> tuple[list[dict[str, Any]], Any]:
    leave = world.clock.now() + timedelta(seconds=seconds)
    return [step(leave_by=leave.isoformat()), SYNC], leave


def test_at_its_hour_it_is_cancelled_and_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.sandbox.faults([{"kind": "stall"} | LATER | {"times": 4}])
    plan, leave = plan_until(world, 600)
    send(world, plan=plan, leave_by=leave)
    stop_early(world, monkeypatch)
    assert world.states() == {"submitted": 10}
    world.clock.ahead += 601
    world.work()
    done(world)
    assert world.attempts() == {"ok": 10, "cancelled": 4}
    assert {row[1:3] for row in map(tuple, attempts(world)) if row[0] == 2} == {("sync", "default")}
    assert world.sandbox.bill(kind="background")["totals"]["rows"] == 6


def test_what_is_done_by_its_hour_is_not_moved(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, leave = plan_until(world, 60)
    send(world, plan=plan, leave_by=leave)
    stop_early(world, monkeypatch)
    world.sandbox.advance(3600)
    world.clock.ahead += 61
    world.work()
    done(world)
    assert world.attempts() == {"ok": 10}
    assert world.sandbox.bill(kind="plain")["totals"]["rows"] == 0


def test_what_was_never_sent_leaves_by_its_hour(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, leave = plan_until(world, 60)
    world.sandbox.faults([{"kind": "status", "status": 503} | LATER])
    send(world, plan=plan, leave_by=leave)
    stop_early(world, monkeypatch)
    assert world.states() == {"submitted": 10}
    world.clock.ahead += 61
    world.work()
    done(world)
    assert world.sandbox.bill(kind="background")["totals"]["rows"] == 0


def test_a_queued_job_leaves_by_its_hour(world: World) -> None:
    plan, leave = plan_until(world, -1)
    send(world, plan=plan, leave_by=leave)
    world.work()
    done(world)
    assert world.attempts() == {"ok": 10}
    assert rows(world.store, "SELECT 1 FROM batch") == []


@pytest.mark.parametrize("words", ["Unknown parameter: 'background_options'.", "background mode is not supported"])
def test_a_server_or_model_without_windows_answers_plain_calls(world: World, words: str) -> None:
    world.sandbox.faults([{"kind": "status", "status": 400, "message": words} | LATER])
    send(world, *PROMPTS[:3])
    world.work()
    done(world, 3)
    assert world.attempts() == {"ok": 3, "failed": 3}


def test_what_cannot_be_said_there_goes_on_before_it_is_sent(world: World) -> None:
    send(world, PROMPTS[0], sent={"store": False})
    world.work()
    done(world, 1)
    assert world.made(RESPONSES) == 0


def test_a_refused_request_fails_and_costs_nothing(world: World) -> None:
    world.sandbox.faults([{"kind": "status", "status": 400, "message": "too long", "code": "too_large"} | LATER])
    [ident] = send(world, PROMPTS[0])
    world.work()
    assert world.job(ident)["error"]["code"] == "too_large"
    assert world.attempts() == {"failed": 1}
    world.even()


def test_a_wrong_key_is_said_once_and_nothing_is_lost(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    send(world)
    with monkeypatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "sk-wrong-0123456789")
        world.work()
    assert len([one for one in world.troubles if "OPENAI_API_KEY" in one]) == 1
    assert world.states() == {"submitted": 10}
    world.clock.ahead += 61
    world.work()
    done(world)


# ---- a person cancels ----


def test_a_cancelled_job_is_cancelled_there_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.sandbox.faults([{"kind": "stall"}])
    ids = send(world)
    stop_early(world, monkeypatch)
    assert world.states() == {"submitted": 10}
    queue.cancel(world.store, ids, world.clock.now())
    world.work()
    assert world.states() == {"cancelled": 10}
    assert world.attempts() == {"cancelled": 10}
    world.even()


def test_a_packed_job_is_taken_out_before_it_is_sent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.sandbox.faults([{"kind": "status", "status": 429} | LATER])
    ids = send(world)
    stop_early(world, monkeypatch)
    queue.cancel(world.store, ids[:4], world.clock.now())
    world.sandbox.faults([])
    world.clock.ahead += 10
    world.work()
    assert world.states() == {"cancelled": 4, "succeeded": 6}
    assert world.sandbox.bill()["totals"]["rows"] == 6
    world.even()


def test_a_cancelled_job_that_was_done_is_charged(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = send(world)
    stop_early(world, monkeypatch)
    world.sandbox.advance(3600)
    queue.cancel(world.store, ids, world.clock.now())
    world.work()
    assert world.states() == {"cancelled": 10}
    assert world.attempts() == {"ok": 10}
    world.even()
