"""The batch lane from pack to import, against every ending that the sandbox knows; the ledger is its bill each time."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from db import facts, packing, queue
from jobs import batch, worker
from jobs.sandbox.server import Sandbox, running
from jobs.sandbox.settings import SandboxSettings
from tests import lanes
from tests.lanes import CLAUDE, KEY, World, rows

PROMPTS = [f"Name the capital of country number {n}, in one word." for n in range(10)]
MODELS = ["gpt-6-luna", CLAUDE]
FILES, BATCHES, MESSAGES = "/v1/files", "/v1/batches", "/v1/messages/batches"


def day_later(world: World) -> None:
    """More than an hour past the end of what was submitted, here and at the provider."""
    world.clock.ahead += 25 * 3600 + 60
    world.sandbox.advance(25 * 3600 + 60)


def batch_rows(world: World) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in rows(world.store, "SELECT state, status, rows, create_tries FROM batch ORDER BY id")]


def done(world: World, count: int = 10) -> None:
    assert world.states() == {"succeeded": count}
    world.even()
    world.batch_rows_once()


@pytest.mark.both
@pytest.mark.parametrize("model", MODELS)
def test_completed(world: World, model: str) -> None:
    ids = world.add(*PROMPTS, model=model)
    world.work()
    done(world)
    assert world.sandbox.bill(kind="batch")["totals"]["rows"] == 10
    assert {row[0] for row in batch_rows(world)} == {"imported"}
    found = world.job(ids[0])
    assert found["text"].startswith("[sandbox]")
    assert found["attempts"][0]["cost_source"] == "assumed"
    assert float(found["attempts"][0]["standard_usd"]) > float(found["cost_usd"])
    assert not list(world.folder.glob("*.jsonl"))
    assert world.troubles == []


def test_no_work_is_no_batch(world: World) -> None:
    world.work()
    assert batch_rows(world) == []
    assert world.sandbox.requests()["count"] == 0


def test_two_models_are_two_batches(world: World) -> None:
    world.add(*PROMPTS[:5])
    world.add(*PROMPTS[5:], model="gpt-4o-mini")
    world.work()
    done(world)
    assert [row[2] for row in batch_rows(world)] == [5, 5]


@pytest.mark.both
@pytest.mark.parametrize(
    ("model", "variant"),
    [
        (MODELS[0], "error"),
        (MODELS[0], "zero"),
        (MODELS[0], "null_response"),
        (MODELS[0], "missing"),
        (CLAUDE, "error"),
    ],
)
def test_rows_that_fail_are_sent_again(world: World, model: str, variant: str) -> None:
    world.sandbox.faults([{"kind": "fail_rows", "fraction": 0.3, "variant": variant, "times": 1}])
    world.add(*PROMPTS, model=model)
    world.work()
    done(world)
    assert [row[2] for row in batch_rows(world)] == [10, 3]
    assert world.attempts() == {"ok": 10, "failed": 3}


@pytest.mark.parametrize("model", MODELS)
def test_rows_that_fail_three_times_fail_with_their_reason(world: World, model: str) -> None:
    world.sandbox.faults([{"kind": "fail_rows", "fraction": 1.0, "message": "out of luck", "times": 3}])
    ident = world.add(PROMPTS[0], model=model)[0]
    world.work()
    assert world.states() == {"failed": 1}
    assert "out of luck" in world.job(ident)["error"]["message"]
    assert world.attempts() == {"failed": 3}
    world.even()


def test_a_row_that_can_never_pass_fails_at_once(world: World) -> None:
    world.sandbox.faults([{"kind": "fail_rows", "fraction": 0.1, "status_code": 400, "times": 1}])
    world.add(*PROMPTS)
    world.work()
    assert world.states() == {"succeeded": 9, "failed": 1}
    world.even()


@pytest.mark.both
@pytest.mark.parametrize("error_rows", [True, False])
@pytest.mark.parametrize("model", MODELS)
def test_expired_with_a_part_done(world: World, model: str, error_rows: bool) -> None:
    world.sandbox.faults([{"kind": "expire", "fraction": 0.4, "error_rows": error_rows, "times": 1}])
    world.add(*PROMPTS, model=model)
    world.work()
    done(world)
    assert [row[2] for row in batch_rows(world)] == [10, 6]
    assert world.attempts()["ok"] == 10
    assert world.attempts()["expired"] == 6 or (model == CLAUDE and not error_rows)


@pytest.mark.parametrize("model", MODELS)
def test_expiry_never_uses_up_the_tries(world: World, model: str) -> None:
    world.sandbox.faults([{"kind": "expire", "fraction": 0.0, "times": 4}])
    world.add(*PROMPTS[:2], model=model)
    world.work()
    done(world, 2)


def test_the_providers_queue_is_full(world: World) -> None:
    world.sandbox.faults([{"kind": "token_limit", "times": 4}])
    world.add(*PROMPTS)
    for wait in (60, 120, 240, 480):
        world.work()
        assert world.states() == {"submitted": 10}
        world.clock.ahead += wait + 1
    world.work()
    done(world)
    assert world.attempts() == {"ok": 10}  # nobody's failure
    assert (world.made(FILES), world.made(BATCHES)) == (1, 5)


def test_a_line_that_validation_names_fails_and_the_others_go_without_it(world: World) -> None:
    world.sandbox.faults([{"kind": "batch_failed", "line": 3, "message": "bad line", "times": 1}])
    ids = world.add(*PROMPTS)
    world.work()
    assert world.states() == {"succeeded": 9, "failed": 1}
    wrong = world.job(ids[2])
    assert wrong["state"] == "failed"
    assert wrong["error"]["code"] == "invalid_json_line"
    assert "bad line (line 3 of its batch)" in wrong["error"]["message"]
    world.even()


@pytest.mark.both
@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("path", [FILES, BATCHES])
def test_an_answer_to_a_post_that_was_lost_is_adopted(world: World, path: str, how: str) -> None:
    world.sandbox.faults([{"kind": "lost_create", "how": how, "match": {"path": path}, "times": 1}])
    world.add(*PROMPTS)
    world.work()
    done(world)
    assert (world.made(FILES), world.made(BATCHES)) == (1, 1)
    assert len(batch_rows(world)) == 1


def test_an_anthropic_batch_whose_answer_was_lost_is_known_by_its_results(world: World) -> None:
    world.sandbox.faults([{"kind": "lost_create", "match": {"path": MESSAGES}, "times": 1}])
    world.add(*PROMPTS, model=CLAUDE)
    world.add(*PROMPTS[:3], model="claude-sonnet-5-5")
    world.work()
    done(world, 13)
    assert world.made(MESSAGES) == 2


def test_an_anthropic_create_that_never_arrived_is_sent_again_after_the_grace(world: World) -> None:
    world.sandbox.faults([{"kind": "drop", "match": {"path": MESSAGES, "method": "POST"}, "times": 1}])
    world.settings["grace_s"] = 1.0
    world.add(*PROMPTS, model=CLAUDE)
    world.work()
    done(world)
    assert batch_rows(world)[0][3] == 2


@pytest.mark.parametrize("path", [FILES, BATCHES])
def test_a_post_that_never_arrived_is_sent_again_after_the_grace(world: World, path: str) -> None:
    world.sandbox.faults([{"kind": "drop", "match": {"path": path, "method": "POST"}, "times": 1}])
    world.settings["grace_s"] = 1.0
    world.add(*PROMPTS)
    world.work()
    done(world)
    assert len(batch_rows(world)) == 1


def test_nothing_is_sent_again_before_the_grace_is_over(world: World) -> None:
    world.sandbox.faults([{"kind": "drop", "match": {"path": BATCHES, "method": "POST"}, "times": 1}])
    world.add(*PROMPTS)
    world.settings["grace_s"] = 300.0
    late = world.clock
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "LINGER_S", 1.0)
        patch.setattr(batch, "_SOON_S", 5.0)
        for _ in range(4):
            late.ahead += 50
            world.work()
            assert world.made(BATCHES) == 1
    assert world.states() == {"submitted": 10}
    late.ahead += 300
    world.work()
    done(world)
    assert (world.made(FILES), world.made(BATCHES)) == (2, 2)  # a late first POST would name a dead file


@pytest.mark.parametrize("model", MODELS)
def test_a_list_that_shows_it_late(world: World, model: str) -> None:
    path = MESSAGES if model == CLAUDE else BATCHES
    world.sandbox.faults(
        [
            {"kind": "lost_create", "match": {"path": path}, "times": 1},
            {"kind": "late_list", "seconds": 1.0, "match": {"path": path}, "times": 1},
        ]
    )
    world.settings["grace_s"] = 20.0
    world.add(*PROMPTS, model=model)
    world.work()
    done(world)
    assert world.made(path) == 1


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_without_a_batch_api_gets_plain_calls(world: World, status: int) -> None:
    world.sandbox.faults([{"kind": "status", "status": status, "match": {"path": "/v1/batches*"}}])
    ids = world.add(*PROMPTS)
    world.work()
    done(world)
    assert world.sandbox.bill()["totals"] == world.sandbox.bill(kind="plain")["totals"]
    assert world.job(ids[0])["lane"] == "sync"
    assert facts.get(world.store, f"batch_api {world.sandbox.url}/v1") == "no"
    before = world.sandbox.requests()["count"]
    world.add(PROMPTS[0])
    world.work()
    assert world.sandbox.requests()["count"] == before + 1  # it was not asked again


def test_leaving_in_time(world: World) -> None:
    """Cancel, import what was done, and only the rest by plain calls."""
    world.sandbox.faults([{"kind": "stall", "fraction": 0.5}])
    leave = world.clock.now() + timedelta(hours=1)
    plan = [
        {"lane": "batch", "tier": "default", "leave_by": leave.isoformat()},
        {"lane": "sync", "tier": "default", "leave_by": None},
    ]
    ids = world.add(*PROMPTS, plan=plan, leave_by=leave)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "LINGER_S", 0.25)
        world.work()
    assert world.states() == {"submitted": 10}
    world.clock.ahead += 3601
    world.work()
    done(world)
    assert world.sandbox.bill(kind="batch")["totals"]["rows"] == 5
    assert world.sandbox.bill(kind="plain")["totals"]["rows"] == 5
    assert {world.job(ident)["lane"] for ident in ids} == {"batch", "sync"}


def test_a_batch_that_never_ends_is_cancelled_an_hour_past_its_end(world: World) -> None:
    world.sandbox.faults([{"kind": "stall", "fraction": 0.3, "times": 1}])
    world.add(*PROMPTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "LINGER_S", 0.25)
        world.work()
    day_later(world)
    world.work()
    done(world)
    assert world.attempts() == {"ok": 10, "cancelled": 7}


def test_a_batch_that_the_provider_forgot(world: World) -> None:
    world.sandbox.faults([{"kind": "forget", "times": 1}])
    world.add(*PROMPTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "LINGER_S", 0.25)
        world.work()
        assert world.states() == {"submitted": 10}
    day_later(world)
    world.work()
    assert world.states() == {"succeeded": 10}
    world.at_risk()


def test_cancelled_jobs_inside_a_batch_are_charged_and_stay_cancelled(world: World) -> None:
    world.sandbox.faults([{"kind": "stall", "fraction": 1.0, "times": 1}])
    ids = world.add(*PROMPTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "LINGER_S", 0.25)
        world.work()
    assert world.states() == {"submitted": 10}
    assert sorted(queue.cancel(world.store, ids[:4], world.clock.now())) == sorted(ids[:4])
    day_later(world)
    world.work()
    assert world.states() == {"cancelled": 4, "succeeded": 6}
    assert world.job(ids[0])["text"].startswith("[sandbox]")
    world.even()


def test_jobs_that_are_all_taken_out_before_the_upload_send_nothing(world: World) -> None:
    ids = world.add(*PROMPTS)
    now = world.clock.now()
    group = packing.waiting(world.store, now)[0]
    url = f"{world.sandbox.url}/v1"
    lanes.pack(world.store, "b" * 26, group, base_url=url, max_rows=99, max_bytes=10**6, now=now)
    queue.cancel(world.store, ids, now)
    world.work()
    assert world.states() == {"cancelled": 10}
    assert world.made(FILES) == 0
    world.even()


@pytest.mark.parametrize("model", MODELS)
def test_a_key_that_is_refused_loses_nothing(world: World, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add(*PROMPTS, model=model)
    env = "ANTHROPIC_API_KEY" if model == CLAUDE else "OPENAI_API_KEY"
    monkeypatch.setenv(env, "sk-wrong-0123456789")
    facts.put(world.store, f"batch_api {world.sandbox.url}{'' if model == CLAUDE else '/v1'}", "yes")
    world.work()
    assert world.states() == {"submitted": 10}
    assert len(world.troubles) == 1
    assert "401" in world.troubles[0]
    assert env in world.troubles[0]
    monkeypatch.setenv(env, KEY)
    world.clock.ahead += 61
    world.work()
    done(world)


def test_a_request_that_the_provider_has_no_words_for_fails_alone(world: World) -> None:
    bad = world.add(PROMPTS[0], model=CLAUDE, sent={"logit_bias": {"1": 2}})[0]
    world.add(*PROMPTS[1:], model=CLAUDE)
    world.work()
    assert world.states() == {"succeeded": 9, "failed": 1}
    assert "logit_bias" in world.job(bad)["error"]["message"]
    world.even()


def test_results_that_cannot_be_read_yet_are_read_later(world: World) -> None:
    world.sandbox.faults([{"kind": "status", "status": 500, "match": {"path": "/v1/files/*"}, "times": 2}])
    world.add(*PROMPTS)
    world.work()
    done(world)


def test_results_that_are_gone_do_not_keep_the_worker_for_ever(world: World) -> None:
    world.sandbox.faults([{"kind": "status", "status": 404, "match": {"path": "/v1/files/*", "method": "GET"}}])
    world.add(*PROMPTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "LINGER_S", 0.25)
        world.work()
        assert world.states() == {"submitted": 10}
        day_later(world)
        world.work()
    assert world.attempts()["unknown"] == 10
    world.at_risk()


def test_structured_answers_of_a_batch_are_checked_and_asked_once_more(world: World) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    world.sandbox.faults([{"kind": "length", "times": 1}])
    good, other = world.add("Give me a number.", "Another number.", sent={"response_format": wanted})
    world.work()
    done(world, 2)
    assert world.attempts() == {"ok": 3}
    assert {world.job(good)["text"][0], world.job(other)["text"][0]} == {"{"}
    assert not world.job(good)["truncated"]


@pytest.fixture
def elsewhere() -> Iterator[Sandbox]:
    with running(SandboxSettings()) as server:
        yield server


def test_a_batch_made_elsewhere_is_left_alone(world: World, elsewhere: Sandbox) -> None:
    world.add(*PROMPTS)

    async def submit() -> None:
        context, stop = world.context(), asyncio.Event()
        await worker.once(context, worker.Told(batch=lambda moved: stop.set()), stop)
        await context.close()

    asyncio.run(submit())
    here, world.sandbox = world.sandbox, elsewhere
    world.clock.ahead += 1
    world.work()
    assert world.states() == {"submitted": 10}
    assert "set that base URL" in world.troubles[0]
    assert elsewhere.requests()["count"] == 0
    world.sandbox = here
    world.work()
    done(world)
