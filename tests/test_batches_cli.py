"""batches list and show with how far they are; adopt and resubmit: what a person decides for one that stands still."""

import io
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert

from db import batches, facts
from db.queue import BATCH
from jobs import worker
from jobs.sandbox.server import Sandbox, running
from tests.commands import Shell, refused
from tests.lanes import MODEL, World, rows, states
from tests.strays import SLOW, by_hand, finish, first_tries

pytestmark = pytest.mark.both
PROMPTS = [f"Name the capital of country number {n}, in one word." for n in range(4)]


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """One whose batches end when a test says so; workers do what is due, and wait for nothing."""
    monkeypatch.setattr(worker, "LINGER_S", -1.0)
    with running(SLOW) as server:
        yield server


@pytest.fixture
def run(
    world: World,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    database_url: str,
) -> Shell:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{sandbox.url}/v1")
    world.settings["install"] = facts.install(world.store)
    shell = Shell(monkeypatch, capsys, tmp_path)
    monkeypatch.setenv("SHUNTER_DATABASE_URL", database_url)
    return shell


def unsure(world: World, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[str]]:
    """A batch whose create was answered to nobody and made nothing, and its jobs."""
    create = {"kind": "status", "status": 500, "match": {"path": "/v1/batches", "method": "POST"}, "times": 1}
    world.sandbox.faults([create])
    ids = world.add(*PROMPTS)
    world.work()
    [(batch_id, state, intent)] = rows(world.store, "SELECT id, state, create_intent_at FROM batch")
    assert state in ("uploaded", "unsure")
    assert intent
    return batch_id, ids


def stuck_one(world: World, monkeypatch: pytest.MonkeyPatch) -> str:
    """A batch that the provider does not end, half of its rows done."""
    world.sandbox.faults([{"kind": "stall", "fraction": 0.5, "times": 1}])
    world.add(*PROMPTS)
    world.work()
    world.sandbox.advance(600)
    [(batch_id,)] = rows(world.store, "SELECT id FROM batch WHERE state = 'submitted'")
    return str(batch_id)


# ---- list and show ----


def test_the_list_says_how_far_it_is_when_it_ends_and_what_it_costs(
    world: World, run: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add(*PROMPTS)
    finish(world)
    open_ = stuck_one(world, monkeypatch)
    first, second = run("batches", "list", "--json").json["batches"]
    assert (first["id"], first["cost_usd"]) == (open_, "0")
    assert first["eta_at"]
    assert float(first["expected_usd"]) > 0
    assert float(first["at_risk_usd"]) > 0
    assert (second["eta_at"], second["expected_usd"], second["at_risk_usd"]) == (None, "0", "0")
    assert float(second["cost_usd"]) > 0
    drawn = run("batches", "list").out
    assert max(map(len, drawn.splitlines())) <= 80
    for word in (open_, "submitted", "imported", MODEL, "~", "ends"):
        assert word in drawn
    shown = run("batches", "show", open_).out
    for word in ("may end", "so far", "at risk", "4 submitted"):
        assert word in shown


# ---- adopt ----


def test_a_batch_is_told_which_one_it_is_and_goes_on(world: World, run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id, ids = unsure(world, monkeypatch)
    made = by_hand(world.sandbox, first_tries(ids), shunter_batch=batch_id)
    done = run("batches", "adopt", batch_id[:-2], made, "--json")
    assert done.code == 0
    assert (done.json["batch"], done.json["provider_batch_id"]) == (batch_id, made)
    world.clock.ahead += 1
    finish(world)
    assert world.states() == {"succeeded": 4}
    world.even()
    world.batch_rows_once()
    refused(run("batches", "adopt", batch_id, made), 2, "imported", "nothing to adopt")


def test_results_show_whose_it_is_where_there_is_no_metadata(
    world: World, run: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id, ids = unsure(world, monkeypatch)
    theirs, ours = by_hand(world.sandbox, ["theirs"]), by_hand(world.sandbox, first_tries(ids))
    named = by_hand(world.sandbox, first_tries(ids), shunter_batch="f" * 26)
    world.sandbox.faults([{"kind": "stall"}])
    fresh = by_hand(world.sandbox, first_tries(ids))
    world.sandbox.advance(600)
    refused(run("batches", "adopt", batch_id, theirs), 2, "not of this batch's rows", "--force")
    refused(run("batches", "adopt", batch_id, named), 2, "metadata names")
    refused(run("batches", "adopt", batch_id, fresh), 2, "before it has ended")
    refused(run("batches", "adopt", batch_id, "batch_nowhere"), 1, "404")
    assert run("batches", "adopt", batch_id, ours).code == 0
    assert rows(world.store, "SELECT state, provider_batch_id FROM batch") == [("submitted", ours)]


def test_force_takes_a_persons_word_but_not_one_that_is_known(
    world: World, run: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = stuck_one(world, monkeypatch)
    [(theirs,)] = rows(world.store, "SELECT provider_batch_id FROM batch")
    world.sandbox.faults([{"kind": "status", "status": 500, "match": {"path": "/v1/batches", "method": "POST"},
                           "times": 1}])  # fmt: skip
    ids = world.add(*PROMPTS)
    world.work()
    [(batch_id,)] = rows(world.store, "SELECT id FROM batch WHERE state <> 'submitted'")
    refused(run("batches", "adopt", batch_id, theirs, "--force"), 2, f"is batch {known} already")
    world.sandbox.faults([{"kind": "stall"}])
    fresh = by_hand(world.sandbox, first_tries(ids))
    assert run("batches", "adopt", batch_id, fresh, "--force").code == 0


def test_a_batch_that_a_worker_moves_is_left_to_it(world: World, run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id, ids = unsure(world, monkeypatch)
    made, later = by_hand(world.sandbox, first_tries(ids)), world.clock.now() + timedelta(hours=1)
    world.sandbox.advance(600)
    batches.take(world.store, "me", later, later)
    refused(run("batches", "adopt", batch_id, made), 2, "a worker moves")
    refused(run("batches", "resubmit", batch_id, "--yes"), 1, "a worker moves")


# ---- resubmit ----


def test_rows_are_sent_again_and_what_they_may_have_cost_stays_at_risk(
    world: World, run: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id, _ = unsure(world, monkeypatch)
    refused(run("batches", "resubmit", batch_id), 3, "4 jobs are sent again", "paid twice", "--yes")
    assert world.states() == {"submitted": 4}
    done = run("batches", "resubmit", batch_id, "--yes", "--json")
    assert done.json["jobs_queued"] == 4
    assert done.json["cancelled"] is None
    assert "may be paid twice" in done.err
    assert (world.states(), world.attempts()) == ({"queued": 4}, {"unknown": 4})
    finish(world)
    assert world.states() == {"succeeded": 4}
    assert world.attempts() == {"unknown": 4, "ok": 4}
    world.at_risk()
    refused(run("batches", "resubmit", batch_id, "--yes"), 2, "no job waits")


def test_a_stuck_batch_is_cancelled_at_the_provider_too(
    world: World, run: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = stuck_one(world, monkeypatch)
    done = run("batches", "resubmit", batch_id, "-y", "--json")
    assert (done.json["jobs_queued"], done.json["cancelled"]) == (4, True)
    assert rows(world.store, "SELECT state FROM batch") == [("imported",)]
    world.at_risk()
    world.sandbox.advance(700)
    shown = run("doctor", "--adopt-orphans", "--json")
    (adopted,) = shown.json["done"]
    assert (adopted["action"], adopted["settled"]) == ("adopted", 4)  # two had been done, and two never ran
    assert states(world.store) == {"succeeded": 2, "queued": 2}  # nothing was paid twice after all
    world.even()


def test_at_a_terminal_a_person_is_asked(world: World, run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id, _ = unsure(world, monkeypatch)

    class Typed(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Typed("n\n"))
    refused_ = run("batches", "resubmit", batch_id)
    assert (refused_.code, "nothing was changed" in refused_.err) == (3, True)
    assert world.states() == {"submitted": 4}
    monkeypatch.setattr("sys.stdin", Typed("y\n"))
    assert run("batches", "resubmit", batch_id).code == 0
    assert world.states() == {"queued": 4}


def test_what_was_never_sent_is_no_matter_for_it(world: World, run: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    world.sandbox.faults([{"kind": "status", "status": 429, "match": {"path": "/v1/files", "method": "POST"}}])
    world.add(*PROMPTS)
    world.work()
    [(batch_id,)] = rows(world.store, "SELECT id FROM batch")
    refused(run("batches", "resubmit", batch_id, "--yes"), 2, "nothing was created", "batches cancel")


def test_a_response_in_the_background_is_none_of_these(world: World, run: Shell) -> None:
    batch_id, now = "0" * 25 + "d", world.clock.now()
    facts_ = {"id": batch_id, "state": "packed", "lane": "background", "provider": "openai", "base_url": "u", "rows": 1,
              "model": MODEL, "packed_at": now, "next_poll_at": now, "create_tries": 0, "done": 0,
              "input_tokens": 0}  # fmt: skip
    with world.store.write() as connection:
        connection.execute(insert(BATCH).values(facts_))
    assert run("batches", "list", "--json").json == {"batches": []}
    assert [one["id"] for one in run("batches", "list", "--background", "--json").json["batches"]] == [batch_id]
    refused(run("batches", "resubmit", batch_id, "--yes"), 2, "jobs retry")
    refused(run("batches", "adopt", batch_id, "batch_1"), 2, "jobs retry")
